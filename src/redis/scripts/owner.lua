-- Owner: who works on a partition. One worker at a time owns it; others stand by and take over. No clock decides
-- anything here: workers compare what they see from look to look.
--
-- After the settings of common.lua: 3 what, 4 worker, then
--   check    5 state format, 6 a random epoch, 7 n, n × (setting, value). Holds the caller to the deployment's
--            settings. Returns  { 'OK' },  { 'DIFFERS', setting, stored, own },  { 'MOVING', from:to }
--            or  { 'PENDING', entries }
--   join     the same up to the settings; then the new fence, the reason (free, again, stall or death) and what the
--            caller saw of epoch, owner, term, cursor and beat, '' where nothing. Takes the partition if that still
--            holds. Returns as check, or  { 'CHANGED' },  or
--            { 'OK', epoch, term, cursor, deaths on the entry after it, id the group was made at or '', 1 if the
--            stream is another than before }
--   beat     5 term, 6 fence. Shows that the owner is alive, repairs what strangers did. Returns
--            { 'OK', who asks for the partition or '', strangers' interferences },  or  { 'OTHER' }  if the stream is
--            not the cursor's any more, or its ids were set back
--   release  5 term, 6 fence, 7 heir or ''. Gives the partition up
--   name     5 term, 6 fence, 7 cursor. Names the entry after the cursor as what is tried next: should the
--            worker die, it died on it. Returns 1, or 0 if there is none
--   unname   5 term, 6 fence. The worker is alive, and done with the entry it had named
--   skip     5 term, 6 fence, 7 cursor, 8 reason, 9 detail, 10 deaths. Writes the entry after the cursor off
--            without reading it. Returns its id, '' if there is none, or fewer owners died on it
--   innocent 5 term. A former owner is alive: the entry it had named did not kill it
--   live     5 its report. Returns { workers and their reports, seen } with seen as in look()
--   ask      asks the owner for the partition
--   bury     5 its last report. Forgets a worker that reports nothing new. Returns 1 if it did
--   leave    forgets this worker

local worker

-- ---- position

-- Recorded with the settings. If they are gone, the janitor's copy counts; if both are, the group's own position
-- does.
local function stored_cursor(own)
  return call('HGET', meta, 'cursor') or call('HGET', janitor, 'cursor')
    or own and own['last-delivered-id'] or call('HGET', janitor, 'finished:' .. group) or '0-0'
end

-- ---- settings

-- What keeps the caller from this deployment. The previous format kept its position in the group; if nothing is
-- pending there, that is the cursor.
local function differing(own_format)
  local stored = call('HGET', meta, 'format')
  if stored and stored ~= own_format and not (stored == '1' and own_format == '2') then
    return { 'DIFFERS', 'format', stored, own_format }
  end
  for i = 8, 7 + 2 * ARGV[7], 2 do
    local setting = call('HGET', meta, ARGV[i])
    if setting and setting ~= ARGV[i + 1] then return { 'DIFFERS', ARGV[i], setting, ARGV[i + 1] } end
  end
  local moving = call('HGET', meta, 'moving')
  if moving then return { 'MOVING', moving } end
  local own = stored == '1' and own_group()
  if own and own.pending > 0 then return { 'PENDING', own.pending } end
end

-- From now on the cursor counts, whatever workers of the previous version still read.
local function migrate()
  local base = sub(meta, 1, -5)
  call('UNLINK', base .. 'consumers', base .. 'suspects')
  call('HSET', meta, 'cursor', stored_cursor(own_group()))
end

-- Writes settings that are not stored yet. A new setting gives the deployment a new epoch, so that processes with the
-- old settings are refused.
local function agree()
  local differs = differing(ARGV[5])
  if differs then return differs end
  local stored, renewed = call('HGET', meta, 'format'), false
  if stored ~= ARGV[5] then
    if stored then migrate() end
    call('HSET', meta, 'format', ARGV[5])
    renewed = true
  end
  for i = 8, 7 + 2 * ARGV[7], 2 do
    if call('HEXISTS', meta, ARGV[i]) == 0 then
      call('HSET', meta, ARGV[i], ARGV[i + 1])
      renewed = true
    end
  end
  if renewed then call('HSET', meta, 'epoch', ARGV[6]) end
end

local function check()
  return wrong_shared_key() or agree() or { 'OK' }
end

-- ---- the group

-- Records the stream's figures, and the cursor at that time.
local function record(info, cursor, count)
  call('HSET', meta, 'last_id', info['last-generated-id'], 'added', format('%d', info['entries-added']))
  call('HSET', janitor, 'read', count, 'looked', cursor, 'taken', taken_from(info),
    'deleted', info['max-deleted-entry-id'] or '0-0')
end

-- Publishes the cursor as the group's position; creates stream and group if they are missing. Returns what strangers
-- had done to them.
local function publish(info, own, cursor)
  local interferences, count = 0, count_read(info, cursor)
  local text = format('%d', count)
  record(info, cursor, text)
  if not own then
    call('XGROUP', 'CREATE', stream, group, cursor, 'MKSTREAM', 'ENTRIESREAD', text)
    return 1
  end
  if own.pending > 0 then
    for _, row in ipairs(call('XPENDING', stream, group, '-', '+', CHUNK)) do
      interferences = interferences + call('XACK', stream, group, row[1])
    end
  end
  local moved = own['last-delivered-id'] ~= cursor
  if moved or (own['entries-read'] or -1) ~= count then call('XGROUP', 'SETID', stream, group, cursor, 'ENTRIESREAD', text) end
  return interferences + (moved and 1 or 0)
end

-- ---- taking

-- Terms whose owners died on the entry after the cursor, as recorded: `cursor term term …`.
local function deaths_on(cursor)
  local terms, first = {}, true
  for word in string.gmatch(call('HGET', meta, 'deaths') or '', '%S+') do
    if first and word ~= cursor then return {} end
    if not first then terms[#terms + 1] = word end
    first = false
  end
  return terms
end

local function record_deaths(cursor, terms)
  if #terms == 0 then return call('HDEL', meta, 'deaths') end
  call('HSET', meta, 'deaths', cursor .. ' ' .. table.concat(terms, ' '))
end

local function join()
  local refused = wrong_shared_key()
  if refused then return refused end
  local after = 8 + 2 * ARGV[7]
  local fence, reason = ARGV[after], ARGV[after + 1]
  local seen = call('HMGET', meta, 'epoch', 'owner', 'term', 'cursor', 'beat')
  for i = 1, 5 do
    if (seen[i] or '') ~= ARGV[after + 1 + i] then return { 'CHANGED' } end
  end
  local differs = agree()
  if differs then return differs end

  local info, own = stream_info(), own_group()
  local cursor, had_epoch = stored_cursor(own), call('HEXISTS', meta, 'epoch') == 1
  local other = is_other_stream(info, own, cursor)
  if not other and was_set_back(info, cursor) then cursor = before_unread(info) end
  if other then
    cursor = '0-0'
    call('HDEL', meta, 'last_id', 'added', 'named', 'deaths')
    call('HDEL', janitor, 'read', 'taken', 'deleted', 'looked')
  end
  if other or not had_epoch then call('HSET', meta, 'epoch', ARGV[6]) end

  local deaths = deaths_on(cursor)
  if reason == 'death' and call('HGET', meta, 'named') == (seen[3] or '') .. ' ' .. cursor then
    deaths[#deaths + 1] = seen[3]
    record_deaths(cursor, deaths)
  end
  if reason == 'death' then call('HDEL', workers, seen[2]) end
  call('HSET', meta, 'owner', worker, 'fence', fence, 'cursor', cursor, 'beat', 0)
  call('HDEL', meta, 'heir', 'ask', 'named')
  call('HSET', janitor, 'cursor', cursor)
  call('HDEL', janitor, 'finished:' .. group)
  local term = call('HINCRBY', meta, 'term', 1)
  publish(info, own, cursor)
  return { 'OK', call('HGET', meta, 'epoch'), tostring(term), cursor, #deaths, own and '' or cursor, other and 1 or 0 }
end

-- ---- owning

local function beat()
  call('HINCRBY', meta, 'beat', 1)
  local info, own = stream_info(), own_group()
  local cursor = call('HGET', meta, 'cursor')
  if is_other_stream(info, own, cursor) or was_set_back(info, cursor) then return { 'OTHER' } end
  local interferences = publish(info, own, cursor)
  return { 'OK', call('HGET', meta, 'ask') or '', interferences }
end

local function release()
  call('HSET', meta, 'owner', '', 'heir', ARGV[7])
  call('HDEL', meta, 'ask', 'named')
  return 1
end

local function next_entry()
  if ARGV[7] == GREATEST_ID then return nil end
  return call('XRANGE', stream, '(' .. ARGV[7], '+', 'COUNT', 1)[1]
end

local function name()
  if not next_entry() then return 0 end
  call('HSET', meta, 'named', ARGV[5] .. ' ' .. ARGV[7])
  return 1
end

local function unname()
  return call('HDEL', meta, 'named')
end

local function skip()
  local entry = next_entry()
  if not entry or #deaths_on(ARGV[7]) < tonumber(ARGV[10]) then return '' end
  local refused = wrong_shared_key()
  if refused then return refused end
  local other, read = refuse_other_stream(ARGV[7])
  if other then return other end
  local id, fields, bytes = entry[1], entry[2], 0
  for _, text in ipairs(fields) do bytes = bytes + #text end
  local detail = ARGV[9] .. '; it has ' .. #fields / 2 .. ' fields with ' .. bytes
    .. ' bytes, and stays in the stream under this id until it is trimmed'
  call('XADD', dead, '*', 'entry_id', id, 'reason', ARGV[8], 'detail', detail, 'deliveries', ARGV[10] + 1,
    'index', '', 'stream', stream)
  call('XTRIM', dead, 'MAXLEN', dead_cap)
  call('HDEL', meta, 'deaths', 'named')
  move_cursor(id, 1, read)
  return id
end

local function innocent()
  local cursor = call('HGET', meta, 'cursor') or ''
  local left = {}
  for _, term in ipairs(deaths_on(cursor)) do
    if term ~= ARGV[5] then left[#left + 1] = term end
  end
  record_deaths(cursor, left)
  return 1
end

-- ---- standing by

local function look()
  return call('HMGET', meta, 'epoch', 'owner', 'term', 'cursor', 'beat', 'fence', 'heir')
end

local function live()
  call('HSET', workers, worker, ARGV[5])
  return { call('HGETALL', workers), look() }
end

local function ask()
  call('HSET', meta, 'ask', worker)
  return 1
end

local function bury()
  if call('HGET', workers, worker) ~= ARGV[5] then return 0 end
  return call('HDEL', workers, worker)
end

local function leave()
  return call('HDEL', workers, worker)
end

local of_owner = { beat = beat, release = release, name = name, unname = unname, skip = skip }
local of_anyone =
  { check = check, join = join, innocent = innocent, live = live, ask = ask, bury = bury, leave = leave }

local function run()
  local what = ARGV[3]
  worker = ARGV[4]
  if of_anyone[what] then return of_anyone[what]() end
  local from = (what == 'name' or what == 'skip') and ARGV[7] or ''
  return refuse_stranger(worker, ARGV[5], ARGV[6], from) or of_owner[what]()
end

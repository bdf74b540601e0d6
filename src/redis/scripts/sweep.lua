-- Sweep: removes from one structure what is stale or beyond its cap, a chunk per call.
--
-- After the settings of common.lua: 3 what to sweep, 4 most members to look at, 5 cap, 6 horizon ms,
-- 7 keep ms. Returns { looked at, removed, changes dropped, 1 if there is more to do now, { kind of change,
-- count, … }, … }; for `repairs` what was put right since that was asked last, { what, count, … }, and the last
-- of it: `ms what key`.

local what, limit, cap, horizon, keep

local function begin_sweep()
  what, limit, cap = ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
  horizon, keep = tonumber(ARGV[6]), tonumber(ARGV[7])
end

-- Walks a hash, or with another command a sorted set, a page at a time. The cursor is kept on the server, so all
-- janitors share one walk. `visit` receives the page's members with their values, and returns how many it removed.
local function walk(key, visit, command)
  local name = 'cursor:' .. what
  local cursor = call('HGET', janitor, name) or '0'
  local reply = call(command or 'HSCAN', key, cursor, 'COUNT', limit)
  local members, values = {}, {}
  for i = 1, #reply[2], 2 do
    local n = #members + 1
    members[n], values[n] = reply[2][i], reply[2][i + 1]
  end
  local removed = visit(members, values)
  if reply[1] == '0' then call('HDEL', janitor, name) else call('HSET', janitor, name, reply[1]) end
  return #members, removed, reply[1] ~= '0'
end

-- A visit to one member after the other; `visit` returns whether it was removed.
local function each(visit)
  return function(members, values)
    local removed = 0
    for i, member in ipairs(members) do
      if visit(member, values[i]) then removed = removed + 1 end
    end
    return removed
  end
end

local function stale(key, bound, visit)
  local members = call('ZRANGEBYSCORE', key, '-inf', bound, 'LIMIT', 0, limit)
  for _, member in ipairs(members) do visit(member) end
  return #members, #members, #members == limit
end

local function remove_from(key)
  return function(member) call('ZREM', key, member) end
end

-- The lower limit of the ids of all entries to come: the first after the cursor, or the cursor. Unknown without a
-- cursor.
local function oldest_to_come()
  local cursor = call('HGET', meta, 'cursor')
  if not cursor then return 0 end
  return tonumber((halves(first_after(cursor) or cursor)))
end

local sweeps = {}

-- The users of presence fields, unescaped and as the fields begin; empty for other fields.
local function users_of(fields)
  local users, names = {}, {}
  for i, field in ipairs(fields) do
    names[i] = place_of(field) or ''
    users[i] = unescape(names[i])
  end
  return users, names
end

local function is_indexed(stored, field)
  local _, address = place_of(field)
  if not address or stored == address then return true end
  if stored == CROWD then return call('ZSCORE', presence_crowds, field) end
  return stored and find('|' .. stored .. '|', '|' .. address .. '|', 1, true)
end

-- Removes stale entries and those that a logout of all of a user's entries left; adds to the index what others wrote
-- or removed there.
function sweeps.presence()
  return walk(presence, function(fields, values)
    local users, names = users_of(fields)
    local stored = lookup('HMGET', presence_addresses, users, 1, #users)
    local ended = lookup('ZMSCORE', presence_ended, names, 1, #names)
    local removed = 0
    for i, field in ipairs(fields) do
      local t = tonumber(version(values[i], LAST_SEEN))
      if t + presence_ttl > now and not (ended[i] and tonumber(ended[i]) >= t) then
        if not is_indexed(stored[i], field) then move(field, true) end
      elseif call('HDEL', presence, field) == 1 then
        presence_change('offline', now, field)
        removed = removed + 1
      end
    end
    return removed
  end)
end

-- Whether others removed the entry of an address, so that its end was not recorded as a change.
local function is_taken(field)
  if call('HEXISTS', presence, field) == 1 then return false end
  presence_change('offline', now, field)
  return true
end

local function tell_taken(looked, removed, more)
  if removed > 0 then repaired('present', presence, removed) end
  return looked, removed, more
end

function sweeps.addresses()
  return tell_taken(walk(presence_addresses, each(function(user, stored)
    local name, is_stale = escape(user) .. '|', false
    if stored == CROWD then moved[user] = #crowd(user, ADDRESSES + 1) <= ADDRESSES and {} or nil end
    for address in string.gmatch(stored ~= CROWD and stored .. '|' or '', '([^|]*)|') do
      if is_taken(name .. address) then is_stale = true end
    end
    return is_stale
  end)))
end

function sweeps.crowds()
  return walk(presence_crowds, each(function(field)
    local user = place_of(field)
    if user and call('HGET', presence_addresses, unescape(user)) == CROWD then return is_taken(field) end
    call('ZREM', presence_crowds, field)
    return true
  end), 'ZSCAN')
end

function sweeps.presence_ended()
  return stale(presence_ended, now - presence_ttl, remove_from(presence_ended))
end

function sweeps.sessions()
  return walk(sessions, function(sids, values)
    local ttls, removed = lookup('HMGET', session_ttls, sids, 1, #sids), 0
    for i, sid in ipairs(sids) do
      if version(values[i], LAST_ACTIVITY) + life(ttls[i]) <= now and call('HDEL', sessions, sid) == 1 then
        change('session_expired', now, 'user', user_of(values[i]), 'sid', sid)
        removed = removed + 1
      end
    end
    return removed
  end)
end

-- The data itself expires natively; this removes the versions of data that is gone.
function sweeps.session_data()
  return walk(session_versions, each(function(sid)
    return call('EXISTS', session_data_of .. sid) == 0 and call('HDEL', session_versions, sid) == 1
  end))
end

function sweeps.session_ttls()
  return walk(session_ttls, each(function(sid, record)
    return not read_ttl(record) and call('HDEL', session_ttls, sid) == 1
  end))
end

function sweeps.documents()
  return stale(docs_joined, now - document_ttl, function(member)
    local part = parts(member)
    need_document_rights(part[1])
    drop_connection(part[1], part[2], member, now)
  end)
end

function sweeps.documents_left()
  return stale(docs_left, now - document_ttl, remove_from(docs_left))
end

-- A document's set and count follow from the connections; what others removed from them is restored.
local function put_back(doc, users)
  local users_key, count_key = document_of .. doc .. ':users', document_of .. doc .. ':count'
  if not (is_type(users_key, 'set') and is_type(count_key, 'string')) then return end
  need_document_rights(doc, true)
  local missing = call('SADD', users_key, unpack(users))
  if missing > 0 then repaired('user', users_key, missing) end
  persist(users_key)
  local count = call('SCARD', users_key)
  if call('GET', count_key) == tostring(count) then
    persist(count_key)
  else
    call('SET', count_key, count)
    repaired('count', count_key)
  end
  cross_thresholds(doc, count, now, true)
end

function sweeps.document_users()
  local docs = {}
  local looked, _, more = walk(docs_connections, each(function(pair)
    local part = parts(pair)
    local users = docs[part[1]] or {}
    users[#users + 1] = part[2]
    docs[part[1]] = users
  end))
  for doc, users in pairs(docs) do put_back(doc, users) end
  return looked, 0, more
end

-- Tokens that somebody holds, but whose last use others removed: it is unknown, so they are evicted first.
function sweeps.logins()
  if call('HLEN', login) <= call('ZCARD', recent) then return 0, 0, false end
  local missing = 0
  local looked, _, more = walk(login, each(function(token)
    missing = missing + call('ZADD', recent, 'NX', 0, token)
  end))
  if missing > 0 then repaired('token', recent, missing) end
  return looked, 0, more
end

function sweeps.recent()
  local excess = math.min(call('ZCARD', recent) - cap, limit)
  if excess <= 0 then return 0, 0, false end
  for _, token in ipairs(call('ZRANGE', recent, 0, excess - 1)) do drop_token(token, now) end
  return excess, excess, excess == limit
end

function sweeps.ranking()
  local excess = math.min(call('ZCARD', viewed) - cap, limit)
  if excess <= 0 then return 0, 0, false end
  call('ZREMRANGEBYRANK', viewed, 0, excess - 1)
  return excess, excess, excess == limit
end

-- Endings stay while an entry that they must outlast may still come.
local function tombstones(key)
  local bound = math.min(now, oldest_to_come()) - horizon
  return stale(key, '(' .. format('%d', bound), remove_from(key))
end

function sweeps.tokens_ended() return tombstones(tokens_ended) end
function sweeps.sessions_ended() return tombstones(sessions_ended) end

-- Trims the stream below the cursor, below what every other group has finished, and below what is kept. The cursor's
-- own entry stays: it identifies the stream. If the cursor is unknown, or belongs to a stream that is gone, nothing
-- is trimmed.
function sweeps.stream()
  local cursor = call('HGET', meta, 'cursor') or '0-0'
  local bound = format('%d-0', math.max(now - keep, 0))
  local blocking, oldest = '', first_after(cursor)
  if oldest and id_less(oldest, bound) then bound, blocking = oldest, group end
  for _, info in ipairs(groups()) do
    local unfinished = info.name ~= group and oldest_unfinished(info)
    if unfinished and id_less(unfinished, bound) then bound, blocking = unfinished, info.name end
  end
  if id_less(cursor, bound) then bound = cursor end
  local removed = 0
  if call('EXISTS', stream) == 1 and #call('XRANGE', stream, cursor, cursor) > 0 then
    removed = call('XTRIM', stream, 'MINID', '~', bound, 'LIMIT', limit)
    -- All of it is behind the cursor, so for the count of entries ahead nobody removed anything.
    if removed > 0 and call('HEXISTS', janitor, 'taken') == 1 then call('HINCRBY', janitor, 'taken', removed) end
  end
  local age = oldest and math.max(0, now - tonumber((halves(oldest)))) or 0
  -- Trimming removes whole nodes, so it stops a little short of its limit.
  return removed, removed, removed > 0 and removed + 200 > limit, blocking, age
end

-- Removes numbers of erased changes beyond what the cap keeps and older than all changes that exist, and blocks that
-- no entry can hit any more.
function sweeps.erased()
  local numbers, blocked = changes .. ':erased', sub(meta, 1, -5) .. 'blocked'
  local removed, more, ended = 0, false, 0
  if call('EXISTS', numbers) == 1 and is_type(numbers, 'zset') then
    local first = call('XRANGE', changes, '-', '+', 'COUNT', 1)[1]
    local bound = tonumber(call('GET', changes_seq) or 0) - tonumber(changes_cap)
    bound = math.min(bound, first and tonumber(first[2][2]) or bound)
    local _
    _, removed, more = stale(numbers, '(' .. format('%d', math.max(bound, 0)), remove_from(numbers))
  end
  if is_type(blocked, 'zset') then
    local _
    _, ended = stale(blocked, '(' .. format('%d', math.min(now, oldest_to_come())), remove_from(blocked))
  end
  return removed + ended, removed + ended, more
end

local REPAIRS = { 'expiry', 'present', 'user', 'count', 'joined', 'token', 'sequence', 'clock' }

local function tell_repairs()
  local told = {}
  for _, what in ipairs(REPAIRS) do
    local count = call('HGET', janitor, 'repairs:' .. what)
    if count then
      told[#told + 1], told[#told + 2] = what, count
      call('HDEL', janitor, 'repairs:' .. what)
    end
  end
  return { told, call('HGET', janitor, 'repair') or '' }
end

-- A clock may be adjusted slightly at any time.
local CLOCK_MS = 1000
local function note_run()
  local last = tonumber(call('HGET', janitor, 'last_run') or 0)
  if last and last - now > CLOCK_MS then repaired('clock', janitor) end
  call('HSET', janitor, 'last_run', format('%d', now))
end

local function run()
  begin_sweep()
  local refused = wrong_shared_key() or wrong_seq()
  if refused then return refused end
  if call('HEXISTS', meta, 'moving') == 1 then
    return redis.error_reply('REPARTITION the deployment is being repartitioned; nothing is swept meanwhile')
  end
  if what == 'repairs' then return tell_repairs() end
  local looked, removed, extra, age = 0, 0, nil, nil
  local mended, more = mend_documents(limit)
  if not mended then
    looked, removed, more, extra, age = sweeps[what]()
  end
  count_documents()
  local dropped, kinds = write_changes()
  index_addresses()
  note_run()
  return { looked, removed, dropped, more and 1 or 0, kinds, extra or '', age or 0 }
end

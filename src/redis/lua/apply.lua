-- Apply: merges a folded batch into the state, records what changed, acknowledges last. One atomic call.
--
-- After the settings of common.lua, ARGV[11] names the entry that is tried alone ('' usually). Then
-- sections in a fixed order, each a count followed by that many rows:
--   sets      key, expiry ms, n, n members         grow-only sets that go at an absolute time
--   latest    user, seconds                        the highest wins
--   present   field, value | ended: field, t       last writer wins, kept-out tombstones
--   tokens    token, user, t, n, n × (item, score)  | ended: token, entry ms, t
--   touched   sid, value | data: sid, t, data | ended: sid, entry ms, t
--   joined    doc, user, connection, t | left: the same
--   ids       acknowledged | items: item, n, n ids | packed: id, n, n × (item, count)
-- Returns  { acknowledged, late, changes, changes dropped, letters, letters dropped }
--   or     { 'WRONGTYPE', key … }: all other keys are merged, nothing is acknowledged.

local late, wrong = 0, {}
local at = 12

local function section()
  local count = tonumber(ARGV[at])
  at = at + 1
  return count
end

local function take(count)
  local first = at
  at = at + count
  return unpack(ARGV, first, at - 1)
end

local function mark_wrong(key)
  wrong[#wrong + 1] = key
end

local function is_late(expires)
  if expires > now then return false end
  late = late + 1
  return true
end

-- Calls `visit(first, last)` for a table cut into pieces that unpack() can take.
local function chunks(count, visit)
  for first = 1, count, CHUNK do visit(first, math.min(first + CHUNK - 1, count)) end
end

local function each_member(list, command, ...)
  local prefix = { command, ... }
  chunks(#list, function(first, last)
    local args = { unpack(prefix) }
    for i = first, last do args[#args + 1] = list[i] end
    call(unpack(args))
  end)
end

-- The values of `members` in a hash or sorted set; all false without a call if the key is absent.
local function lookup(command, key, members)
  if #members == 0 or call('EXISTS', key) == 0 then return {} end
  local found = {}
  chunks(#members, function(first, last)
    for i, value in ipairs(call(command, key, unpack(members, first, last))) do found[first + i - 1] = value end
  end)
  return found
end

-- A table of rows of `width` arguments, by column.
local function columns(width)
  local count, cols = section(), {}
  for c = 1, width do cols[c] = {} end
  for row = 1, count do
    for c = 1, width do cols[c][row] = ARGV[at + c - 1] end
    at = at + width
  end
  return count, cols
end

-- ---- letters are read first: whether an entry is still pending is asked before anything is written

local pending = {}
local function deliveries(id)
  if pending[id] == nil then
    local found = call('XPENDING', stream, group, id, id, 1)[1]
    pending[id] = found and found[4] or false
  end
  return pending[id]
end

local function write_letters(letters)
  local written = 0
  for _, letter in ipairs(letters) do
    local id, reason, detail, index, fields = unpack(letter)
    if deliveries(id) then
      call('XADD', dead, '*', 'entry_id', id, 'reason', reason, 'detail', detail, 'deliveries', deliveries(id),
        'index', index, 'stream', stream, unpack(fields))
      written = written + 1
    end
  end
  if written == 0 then return 0, 0 end
  return written, call('XTRIM', dead, 'MAXLEN', dead_cap)
end

-- ---- merges

local function merge_sets()
  for _ = 1, section() do
    local key, expires, count = take(3)
    if is_late(tonumber(expires)) then
      at = at + tonumber(count)
    else
      local last = at + count - 1
      for first = at, last, CHUNK do
        call('SADD', key, unpack(ARGV, first, math.min(first + CHUNK - 1, last)))
      end
      call('PEXPIREAT', key, expires)
      at = last + 1
    end
  end
end

local function merge_latest()
  local ttl, expiries = tonumber(ARGV[6]), {} -- a batch has few distinct seconds
  for _ = 1, section() do
    local key, seconds = activity_of .. ARGV[at], ARGV[at + 1]
    at = at + 2
    local expiry = expiries[seconds]
    if not expiry then
      expiry = string.format('%.0f', seconds + ttl)
      expiries[seconds] = expiry
    end
    if not is_late(expiry * 1000) then
      local old = try('SET', key, seconds, 'EXAT', expiry, 'GET')
      if type(old) == 'table' then
        mark_wrong(key)
      elseif old and old ~= seconds and (tonumber(old) or 0) > tonumber(seconds) then
        call('SET', key, old, 'EXAT', old + ttl) -- it was newer: put it back
      end
    end
  end
end

local function merge_present()
  local count, cols = columns(2)
  local fields, values = unpack(cols)
  local stored = lookup('HMGET', presence, fields)
  local some_ended, writes = count > 0 and call('EXISTS', presence_ended) == 1, {}
  for i = 1, count do
    local field, value, old = fields[i], values[i], stored[i]
    local t, wins = sub(value, LAST_SEEN, LAST_SEEN + 12), not old
    if not is_late(t + presence_ttl) then
      if old then
        local old_t = version(old, LAST_SEEN)
        wins = t > old_t or (t == old_t and greater_bytes(value, old))
      elseif some_ended then -- only the winner of value and tombstone stays
        local ended = call('ZSCORE', presence_ended, field)
        wins = not ended or tonumber(ended) < tonumber(t)
        if ended and wins then call('ZREM', presence_ended, field) end
      end
      if wins then
        writes[#writes + 1] = field
        writes[#writes + 1] = value
        if not old then
          local part = parts(field)
          change('online', t, 'user', part[1], 'ip', part[2])
        end
      end
    end
  end
  each_member(writes, 'HSET', presence)
end

local function end_presence()
  for _ = 1, section() do
    local field, t = take(2)
    if not is_late(t + presence_ttl) then
      local old = call('HGET', presence, field)
      if not old or version(old, LAST_SEEN) <= t then
        call('ZADD', presence_ended, 'GT', t, field)
        if old then
          call('HDEL', presence, field)
          local part = parts(field)
          change('offline', t, 'user', part[1], 'ip', part[2])
        end
      end
    end
  end
end

local function read_tokens()
  local rows, tokens = {}, {}
  for i = 1, section() do
    local token, user, t, count = take(4)
    rows[i] = { user = user, t = t, items = at, count = count * 2 }
    tokens[i] = token
    at = at + rows[i].count
  end
  return rows, tokens
end

local function merge_items(token, row)
  if row.count == 0 then return end
  local key = viewed .. token
  local scores = {}
  for i = row.items, row.items + row.count - 1, 2 do
    scores[#scores + 1] = ARGV[i + 1]
    scores[#scores + 1] = ARGV[i]
  end
  for first = 1, #scores, CHUNK do
    local added = try('ZADD', key, 'GT', unpack(scores, first, math.min(first + CHUNK - 1, #scores)))
    if type(added) == 'table' then return mark_wrong(key) end
  end
  call('ZREMRANGEBYRANK', key, 0, -viewed_cap - 1)
end

local function merge_tokens()
  local rows, tokens = read_tokens()
  local ended = lookup('ZMSCORE', tokens_ended, tokens)
  local scores = lookup('ZMSCORE', recent, tokens)
  local users = lookup('HMGET', login, tokens)
  local logins, seen = {}, {}
  for i, row in ipairs(rows) do
    if not ended[i] then
      local token, score, old_user = tokens[i], sub(row.t, 1, 10) .. '.' .. sub(row.t, 11), users[i]
      local new, old = tonumber(score), tonumber(scores[i] or 0)
      if not old_user or new > old or (new == old and greater_bytes(row.user, old_user)) then
        logins[#logins + 1] = token
        logins[#logins + 1] = row.user
        if not old_user then change('login', row.t, 'user', row.user, 'token', token) end
      end
      seen[#seen + 1] = score
      seen[#seen + 1] = token
      merge_items(token, row)
    end
  end
  each_member(logins, 'HSET', login)
  each_member(seen, 'ZADD', recent, 'GT')
end

local function end_tokens()
  for _ = 1, section() do
    local token, entry_ms, t = take(3)
    call('ZADD', tokens_ended, 'GT', entry_ms, token)
    drop_token(token, t)
  end
end

local function merge_touched()
  local count, cols = columns(2)
  local sids, values = unpack(cols)
  local stored = lookup('HMGET', sessions, sids)
  local ended = lookup('ZMSCORE', sessions_ended, sids)
  local data = lookup('HMGET', session_versions, sids)
  local writes = {}
  for i = 1, count do
    local sid, value, old = sids[i], values[i], stored[i]
    local t = sub(value, LAST_ACTIVITY, LAST_ACTIVITY + 12)
    if not ended[i] and not is_late(t + session_ttl) then
      local old_t = old and version(old, LAST_ACTIVITY)
      if not old or t > old_t or (t == old_t and greater_bytes(value, old)) then
        writes[#writes + 1] = sid
        writes[#writes + 1] = value
        -- Only data that Rollcall wrote: another's key of that name is not ours to expire.
        if data[i] then call('PEXPIREAT', session_data_of .. sid, t + session_ttl) end
        if not old then change('session_started', t, 'user', user_of(value), 'sid', sid) end
      end
    end
  end
  each_member(writes, 'HSET', sessions)
end

local function wins_data(key, sid, t, data)
  local old_t = call('HGET', session_versions, sid)
  if not old_t or t ~= old_t then return not old_t or t > old_t end
  local old = call('GET', key)
  return not old or greater_bytes(data, old)
end

local function merge_data()
  for _ = 1, section() do
    local sid, t, data = take(3)
    local key = session_data_of .. sid
    if not call('ZSCORE', sessions_ended, sid) and not is_late(t + session_ttl) then
      if not is_type(key, 'string') then
        mark_wrong(key)
      elseif wins_data(key, sid, t, data) then
        -- What has data was touched just above, so the session is there.
        local active = version(call('HGET', sessions, sid) or '', LAST_ACTIVITY)
        call('SET', key, data, 'PXAT', active + session_ttl)
        call('HSET', session_versions, sid, t)
      end
    end
  end
end

local function end_sessions()
  for _ = 1, section() do
    local sid, entry_ms, t = take(3)
    call('ZADD', sessions_ended, 'GT', entry_ms, sid)
    if call('HDEL', session_versions, sid) == 1 then call('UNLINK', session_data_of .. sid) end
    local old = call('HGET', sessions, sid)
    if old then
      call('HDEL', sessions, sid)
      change('session_ended', t, 'user', user_of(old), 'sid', sid)
    end
  end
end

local checked_docs = {}
local function is_document(doc)
  if checked_docs[doc] == nil then
    checked_docs[doc] = true
    for suffix, kind in pairs({ [':users'] = 'set', [':count'] = 'string' }) do
      local key = document_of .. doc .. suffix
      if not is_type(key, kind) then
        mark_wrong(key)
        checked_docs[doc] = false
      end
    end
  end
  return checked_docs[doc]
end

-- All joins go before all leaves, so that a user who only changes connections never counts as gone.
local function merge_joined()
  for _ = 1, section() do
    local doc, user, connection, t = take(4)
    local member = escape(doc) .. '|' .. escape(user) .. '|' .. escape(connection)
    if is_document(doc) and not is_late(t + document_ttl) then
      local left = tonumber(call('ZSCORE', docs_left, member) or 0)
      local joined = call('ZSCORE', docs_joined, member)
      if tonumber(t) > left then
        if left > 0 then call('ZREM', docs_left, member) end
        if joined then
          call('ZADD', docs_joined, 'GT', t, member)
        else
          join_connection(doc, user, member, t)
        end
      end
    end
  end
end

local function merge_left()
  for _ = 1, section() do
    local doc, user, connection, t = take(4)
    local member = escape(doc) .. '|' .. escape(user) .. '|' .. escape(connection)
    if is_document(doc) and not is_late(t + document_ttl) then
      local joined = call('ZSCORE', docs_joined, member)
      if not joined or tonumber(joined) <= tonumber(t) then
        call('ZADD', docs_left, 'GT', t, member)
        drop_connection(doc, user, member, t)
      end
    end
  end
end

local function read_letters()
  local letters = {}
  for i = 1, section() do
    local id, reason, detail, index, count = take(5)
    letters[i] = { id, reason, detail, index, { take(count * 2) } }
    deliveries(id)
  end
  return letters
end

-- ---- acknowledging: nothing after it can fail, and only the ranking follows it

local function acknowledge_ids()
  local count, acknowledged = section(), 0
  local last = at + count - 1
  for first = at, last, CHUNK do
    acknowledged = acknowledged + call('XACK', stream, group, unpack(ARGV, first, math.min(first + CHUNK - 1, last)))
  end
  at = last + 1
  return acknowledged
end

-- Entries that are one view of the same item: how many were mine is how many views to count.
local function acknowledge_items()
  local acknowledged = 0
  for _ = 1, section() do
    local item, count = take(2)
    local mine, last = 0, at + count - 1
    for first = at, last, CHUNK do
      mine = mine + call('XACK', stream, group, unpack(ARGV, first, math.min(first + CHUNK - 1, last)))
    end
    at = last + 1
    if mine > 0 then call('ZINCRBY', viewed, mine, item) end
    acknowledged = acknowledged + mine
  end
  return acknowledged
end

local function acknowledge_packed()
  local acknowledged = 0
  for _ = 1, section() do
    local id, count = take(2)
    local mine = call('XACK', stream, group, id)
    for i = at, at + count * 2 - 1, 2 do
      if mine == 1 then call('ZINCRBY', viewed, ARGV[i + 1], ARGV[i]) end
    end
    at = at + count * 2
    acknowledged = acknowledged + mine
  end
  return acknowledged
end

-- ---- the call

if call('HGET', meta, 'epoch') ~= ARGV[1] then
  return redis.error_reply('STALEEPOCH the group was created anew since this batch was read')
end
local refused = wrong_shared_key() or wrong_seq()
if refused then return refused end

local letters = read_letters()
merge_sets()
merge_latest()
merge_present()
end_presence()
merge_tokens()
end_tokens()
merge_touched()
merge_data()
end_sessions()
merge_joined()
merge_left()
count_documents()
local changed, changes_dropped = write_changes()
if #wrong > 0 then return { 'WRONGTYPE', unpack(wrong, 1, math.min(#wrong, CHUNK)) } end
local written, letters_dropped = write_letters(letters)
if ARGV[11] ~= '' then call('HDEL', suspects, ARGV[11]) end
local acknowledged = acknowledge_ids() + acknowledge_items() + acknowledge_packed()
return { acknowledged, late, changed, changes_dropped, written, letters_dropped }

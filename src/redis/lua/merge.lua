-- Merge: what the apply script does with each section of its arguments. `late` counts operations that had
-- expired already, `wrong` lists keys of another type.

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

-- Whether a command met a key of another type; any other trouble ends the call.
local function is_wrong(reply)
  if type(reply) ~= 'table' or not reply.err then return false end
  if sub(reply.err, 1, 9) ~= 'WRONGTYPE' then error(reply) end
  return true
end

local function is_late(expires)
  if expires > now then return false end
  late = late + 1
  return true
end

-- Calls `visit(first, last)` for a list cut into pieces that unpack() can take.
local function chunks(count, visit)
  for first = 1, count, CHUNK do visit(first, math.min(first + CHUNK - 1, count)) end
end

local function hset(key, list)
  chunks(#list, function(first, last) call('HSET', key, unpack(list, first, last)) end)
end

-- The section's column of members begins at the returned position; what follows it is at `at`.
local function column()
  local count = section()
  local first = at
  at = at + count
  return count, first
end

-- What a hash or sorted set holds for a column of members; nothing, without a call, if the key is absent.
local function lookup(command, key, count, column_at)
  if count == 0 or call('EXISTS', key) == 0 then return {} end
  if count <= CHUNK then return call(command, key, unpack(ARGV, column_at, column_at + count - 1)) end
  local found = {}
  chunks(count, function(first, last)
    local values = call(command, key, unpack(ARGV, column_at + first - 1, column_at + last - 1))
    for i, value in ipairs(values) do found[first + i - 1] = value end
  end)
  return found
end

-- ---- merges

local function merge_sets()
  for _ = 1, section() do
    local key, expires, count = take(3)
    local fine, found = is_type(key, 'set')
    if not fine then error(redis.error_reply('WRONGKEY ' .. key .. ' holds a ' .. found .. ' where Rollcall keeps a set')) end
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
      if is_wrong(old) then
        mark_wrong(key)
      elseif old and old ~= seconds and (tonumber(old) or 0) > tonumber(seconds) then
        call('SET', key, old, 'EXAT', old + ttl) -- it was newer: put it back
      end
    end
  end
end

-- A version as a number; 0 for a value that Rollcall did not write.
local function stored_time(value, first)
  return tonumber(sub(value, first, first + 12)) or 0
end

local function merge_present()
  local count, fields = column()
  local stored = lookup('HMGET', presence, count, fields)
  local some_ended, writes, appeared = count > 0 and call('EXISTS', presence_ended) == 1, {}, {}
  for i = 1, count do
    local field, value, old = ARGV[fields + i - 1], ARGV[at + i - 1], stored[i]
    local t, wins = stored_time(value, LAST_SEEN), not old
    if not is_late(t + presence_ttl) then
      if old then
        local old_t = stored_time(old, LAST_SEEN)
        wins = t > old_t or (t == old_t and greater_bytes(value, old))
      elseif some_ended then -- only the winner of value and tombstone stays
        local ended = call('ZSCORE', presence_ended, field)
        wins = not ended or tonumber(ended) < t
        if ended and wins then call('ZREM', presence_ended, field) end
      end
      if wins then
        local n = #writes
        writes[n + 1], writes[n + 2] = field, value
        if not old then appeared[#appeared + 1] = { field, t } end
      end
    end
  end
  at = at + count
  hset(presence, writes)
  for _, entry in ipairs(appeared) do
    local part = parts(entry[1])
    change('online', entry[2], 'user', part[1], 'ip', part[2])
  end
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

-- Merges `count` arguments, scores and items in turn.
local function merge_items(token, count)
  if count == 0 then return end
  local key, last = viewed .. token, at + count - 1
  for first = at, last, CHUNK do
    local added = try('ZADD', key, 'GT', unpack(ARGV, first, math.min(first + CHUNK - 1, last)))
    if is_wrong(added) then return mark_wrong(key) end
  end
  call('ZREMRANGEBYRANK', key, 0, -viewed_cap - 1)
end

local function merge_tokens()
  local count, tokens = column()
  local ended = lookup('ZMSCORE', tokens_ended, count, tokens)
  local scores = lookup('ZMSCORE', recent, count, tokens)
  local users = lookup('HMGET', login, count, tokens)
  local logins, seen, appeared = {}, {}, {}
  for i = 1, count do
    local token, user, t, items = ARGV[tokens + i - 1], take(3)
    if not ended[i] then
      local score, old_user = sub(t, 1, 10) .. '.' .. sub(t, 11), users[i]
      local new, old = tonumber(score), tonumber(scores[i] or 0)
      if not old_user or new > old or (new == old and greater_bytes(user, old_user)) then
        local n = #logins
        logins[n + 1], logins[n + 2] = token, user
        if not old_user then appeared[#appeared + 1] = { t, user, token } end
      end
      local n = #seen
      seen[n + 1], seen[n + 2] = score, token
      merge_items(token, tonumber(items))
    end
    at = at + items
  end
  hset(login, logins)
  for _, entry in ipairs(appeared) do change('login', entry[1], 'user', entry[2], 'token', entry[3]) end
  chunks(#seen, function(first, last) call('ZADD', recent, 'GT', unpack(seen, first, last)) end)
end

local function end_tokens()
  for _ = 1, section() do
    local token, entry_ms, t = take(3)
    call('ZADD', tokens_ended, 'GT', entry_ms, token)
    drop_token(token, t)
  end
end

local function merge_touched()
  local count, sids = column()
  local stored = lookup('HMGET', sessions, count, sids)
  local ended = lookup('ZMSCORE', sessions_ended, count, sids)
  local data = lookup('HMGET', session_versions, count, sids)
  local writes, appeared = {}, {}
  for i = 1, count do
    local sid, value, old = ARGV[sids + i - 1], ARGV[at + i - 1], stored[i]
    local t = stored_time(value, LAST_ACTIVITY)
    if not ended[i] and not is_late(t + session_ttl) then
      local old_t = old and stored_time(old, LAST_ACTIVITY)
      if not old or t > old_t or (t == old_t and greater_bytes(value, old)) then
        local n = #writes
        writes[n + 1], writes[n + 2] = sid, value
        -- Only data that Rollcall wrote: another's key of that name is not ours to expire.
        local key = session_data_of .. sid
        if data[i] and is_type(key, 'string') then call('PEXPIREAT', key, t + session_ttl) end
        if not old then appeared[#appeared + 1] = { t, user_of(value), sid } end
      end
    end
  end
  at = at + count
  hset(sessions, writes)
  for _, entry in ipairs(appeared) do change('session_started', entry[1], 'user', entry[2], 'sid', entry[3]) end
end

local function wins_data(key, t, data, old_t)
  if not old_t or t ~= old_t then return not old_t or t > old_t end
  local old = call('GET', key)
  return not old or greater_bytes(data, old)
end

local function merge_data()
  local count, sids = column()
  local ended = lookup('ZMSCORE', sessions_ended, count, sids)
  local versions = lookup('HMGET', session_versions, count, sids)
  -- What has data was touched just above, so the session is there unless both are late.
  local active = lookup('HMGET', sessions, count, sids)
  local writes = {}
  for i = 1, count do
    local sid, t, data = ARGV[sids + i - 1], take(2)
    local key = session_data_of .. sid
    if not ended[i] and not is_late(t + session_ttl) then
      if not is_type(key, 'string') then
        mark_wrong(key)
      elseif wins_data(key, t, data, versions[i]) then
        call('SET', key, data, 'PXAT', stored_time(active[i], LAST_ACTIVITY) + session_ttl)
        local n = #writes
        writes[n + 1], writes[n + 2] = sid, t
      end
    end
  end
  hset(session_versions, writes)
end

local function end_sessions()
  for _ = 1, section() do
    local sid, entry_ms, t = take(3)
    call('ZADD', sessions_ended, 'GT', entry_ms, sid)
    local key = session_data_of .. sid
    if call('HDEL', session_versions, sid) == 1 and is_type(key, 'string') then call('UNLINK', key) end
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
  local count = section()
  if count > 0 then need_document_rights(ARGV[at], true) end
  for _ = 1, count do
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
  local count = section()
  if count > 0 then need_document_rights(ARGV[at]) end
  for _ = 1, count do
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

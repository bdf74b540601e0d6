-- Merge: what the apply script does with each section of its arguments. `late` counts operations that had
-- expired already, `wrong` lists keys of another type.

local late, wrong = 0, {}
local at = 17

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

local function is_late(expires, count)
  if expires > now then return false end
  late = late + (count or 1)
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

-- What a hash or sorted set holds for `count` members of a list; nothing, without a call, if the key is absent.
local function lookup(command, key, list, first, count)
  if count == 0 or call('EXISTS', key) == 0 then return {} end
  if count <= CHUNK then return call(command, key, unpack(list, first, first + count - 1)) end
  local found = {}
  chunks(count, function(from, to)
    local values = call(command, key, unpack(list, first + from - 1, first + to - 1))
    for i, value in ipairs(values) do found[from + i - 1] = value end
  end)
  return found
end

-- ---- merges

-- Thirteen digits up to which a version with this time to live has expired.
local function late_until(ttl)
  return string.format('%013.0f', math.max(0, now - ttl))
end

local function merge_minute(key, expires, first, last)
  local fine, found = is_type(key, 'set')
  if not fine then error(redis.error_reply('WRONGKEY ' .. key .. ' holds a ' .. found .. ' where Rollcall keeps a set')) end
  if is_late(tonumber(expires)) then return end
  for from = first, last, CHUNK do
    call('SADD', key, unpack(ARGV, from, math.min(from + CHUNK - 1, last)))
  end
  call('PEXPIREAT', key, expires)
end

-- A presence entry that appeared with its write: unless it has ended already, that is a change.
local function appeared(field, value)
  local t, part = version(value, LAST_SEEN), parts(field)
  local ended = call('ZSCORE', presence_ended, field)
  if ended and tonumber(ended) >= tonumber(t) then return call('HDEL', presence, field) end
  if ended then call('ZREM', presence_ended, field) end -- only the winner of value and tombstone stays
  change('online', t, 'user', part[1], 'ip', part[2])
end

local function write_present(field, value)
  if call('HSET', presence, field, value) == 1 then appeared(field, value) end
end

-- Presence entries that have to be compared with what is stored: fields, values, and whether their user had
-- no activity.
local doubtful, doubtful_values, without_activity = {}, {}, {}
local function doubt(field, value, is_absent)
  local n = #doubtful + 1
  doubtful[n], doubtful_values[n], without_activity[n] = field, value, is_absent
end

-- Whether an older activity proves that a presence entry is the newest. Where an activity was seen that is
-- not what Rollcall made it, none does until the presence entries of that time have expired.
local distrusted_until = tonumber(call('HGET', meta, 'activity_distrusted_until') or 0)
local is_proof = distrusted_until <= now

local function distrust_activity(t)
  local last = t + presence_ttl
  if last <= distrusted_until then return end
  distrusted_until = last
  call('HSET', meta, 'activity_distrusted_until', string.format('%.0f', last))
end

-- Whether an activity that was stored proves, with its age, that what comes with a later one is the newest.
-- A newer one is put back; other's keys are noted.
local function is_outdone(old, key, seconds, is_in_time)
  if is_wrong(old) then
    mark_wrong(key)
    distrust_activity(seconds * 1000 + 999)
    return false
  end
  if #old == 10 and old > seconds and not find(old, '%D') then
    call('SET', key, old, 'EXAT', old + ARGV[6])
    return false
  end
  return is_proof and is_in_time and #old == 10
end

-- Users last seen in the same second; the first of them with a presence entry of that second each. Nothing
-- stored for a user is newer than its activity: where that was older, so is the presence entry, unread.
local function merge_activity(seconds, user_at, users, entry_at, entries)
  local expiry = string.format('%.0f', seconds + ARGV[6])
  local is_kept = not is_late(expiry * 1000, users)
  local is_in_time = seconds * 1000 + presence_ttl > now
  local outdone = {} -- many were last seen in the same few seconds: what was found of one holds for all
  for i = 0, users - 1 do
    local old, is_newer = nil, false
    if is_kept then
      local key = activity_of .. ARGV[user_at + i]
      old = try('SET', key, seconds, 'EXAT', expiry, 'GET')
      if old then
        is_newer = outdone[old]
        if not is_newer and old ~= seconds then
          is_newer = is_outdone(old, key, seconds, is_in_time)
          outdone[old] = is_newer
        end
      end
    end
    if i < entries then
      local field, value = ARGV[entry_at + 2 * i], ARGV[entry_at + 2 * i + 1]
      if is_newer then write_present(field, value) else doubt(field, value, is_kept and not old) end
    end
  end
end

local function merge_seen()
  for _ = 1, section() do
    local key, expires, count, groups = take(4)
    local group_at, user_at = at, at + groups * 3
    local entry_at = user_at + count
    if key ~= '' then merge_minute(key, expires, user_at, entry_at - 1) end
    for _ = 1, groups do
      local seconds, users, entries = ARGV[group_at], tonumber(ARGV[group_at + 1]), tonumber(ARGV[group_at + 2])
      if seconds ~= '' then merge_activity(seconds, user_at, users, entry_at, entries) end
      group_at, user_at, entry_at = group_at + 3, user_at + users, entry_at + entries * 2
    end
    at = entry_at
  end
end

local function merge_present()
  for _ = 1, section() do
    local field, value = take(2)
    doubt(field, value, false)
  end
  local stored, gone = lookup('HMGET', presence, doubtful, 1, #doubtful), late_until(presence_ttl)
  for i, field in ipairs(doubtful) do
    local value, old = doubtful_values[i], stored[i]
    local t, old_t = version(value, LAST_SEEN), old and version(old, LAST_SEEN)
    if without_activity[i] and old and old_t > t then distrust_activity(old_t) end
    if t <= gone then
      late = late + 1
    elseif not old or t > old_t or (t == old_t and greater_bytes(value, old)) then
      write_present(field, value)
    end
  end
end

local function end_presence()
  local gone = late_until(presence_ttl)
  for _ = 1, section() do
    local field, t = take(2)
    if t <= gone then
      late = late + 1
    else
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
  local key, last, added = viewed .. token, at + count - 1, 0
  for first = at, last, CHUNK do
    local reply = try('ZADD', key, 'GT', unpack(ARGV, first, math.min(first + CHUNK - 1, last)))
    if is_wrong(reply) then return mark_wrong(key) end
    added = added + reply
  end
  if added > 0 then call('ZREMRANGEBYRANK', key, 0, -viewed_cap - 1) end
end

-- The token is whose it was used by last; at the same time the greater bytes win.
local function use_token(token, user, score, holder)
  local is_newest = call('ZADD', recent, 'GT', 'CH', score, token) == 1
  local is_holder = is_newest or not holder
    or (greater_bytes(user, holder) and tonumber(call('ZSCORE', recent, token)) == tonumber(score))
  if is_holder and call('HSET', login, token, user) == 1 then
    change('login', sub(score, 1, 10) .. sub(score, 12), 'user', user, 'token', token)
  end
end

local function merge_tokens()
  local count, tokens = column()
  local ended = lookup('ZMSCORE', tokens_ended, ARGV, tokens, count)
  local holders = lookup('HMGET', login, ARGV, tokens, count)
  local kept = {} -- score and token where the holder stays the same, whichever use is the latest
  for i = 1, count do
    local token, user, score, items = ARGV[tokens + i - 1], take(3)
    if not ended[i] then
      if holders[i] == user then
        local n = #kept
        kept[n + 1], kept[n + 2] = score, token
      else
        use_token(token, user, score, holders[i])
      end
      if items ~= '0' then merge_items(token, tonumber(items)) end
    end
    at = at + items
  end
  chunks(#kept, function(first, last) call('ZADD', recent, 'GT', unpack(kept, first, last)) end)
end

local function end_tokens()
  for _ = 1, section() do
    local token, entry_ms, t = take(3)
    call('ZADD', tokens_ended, 'GT', entry_ms, token)
    drop_token(token, t)
  end
end

local last_activity = {} -- of the sessions touched in this call, unless they have ended

local function merge_touched()
  local count, sids = column()
  local stored = lookup('HMGET', sessions, ARGV, sids, count)
  local ended = lookup('ZMSCORE', sessions_ended, ARGV, sids, count)
  local data = lookup('HMGET', session_versions, ARGV, sids, count)
  local gone = late_until(session_ttl)
  for i = 1, count do
    local sid, value, old = ARGV[sids + i - 1], ARGV[at + i - 1], stored[i]
    local t = version(value, LAST_ACTIVITY)
    if ended[i] then
      -- What ended stays ended.
    elseif t <= gone then
      late = late + 1
    else
      local old_t = old and version(old, LAST_ACTIVITY)
      last_activity[sid] = old_t
      if not old or t > old_t or (t == old_t and greater_bytes(value, old)) then
        last_activity[sid] = t
        call('HSET', sessions, sid, value)
        -- Only data that Rollcall wrote: another's key of that name is not ours to expire.
        local key = session_data_of .. sid
        if data[i] and is_type(key, 'string') then call('PEXPIREAT', key, t + session_ttl) end
        if not old then change('session_started', t, 'user', user_of(value), 'sid', sid) end
      end
    end
  end
  at = at + count
end

local function wins_data(key, t, data, old_t)
  if not old_t or t ~= old_t then return not old_t or t > old_t end
  local old = call('GET', key)
  return not old or greater_bytes(data, old)
end

local function merge_data()
  local count, sids = column()
  local ended = lookup('ZMSCORE', sessions_ended, ARGV, sids, count)
  local versions = lookup('HMGET', session_versions, ARGV, sids, count)
  local gone, writes = late_until(session_ttl), {}
  for i = 1, count do
    local sid, t, data = ARGV[sids + i - 1], take(2)
    local key = session_data_of .. sid
    if ended[i] then
      -- What ended stays ended.
    elseif t <= gone then
      late = late + 1
    elseif not is_type(key, 'string') then
      mark_wrong(key)
    elseif wins_data(key, t, data, versions[i]) then
      -- What has data was touched just above.
      call('SET', key, data, 'PXAT', last_activity[sid] + session_ttl)
      local n = #writes
      writes[n + 1], writes[n + 2] = sid, t
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

-- Merge: sessions and their data.

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

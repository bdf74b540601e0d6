-- Merge: sessions and their data.

local given -- session → the lifetime that this batch gave it last: when, seconds
local lives -- of sessions with a lifetime of their own, touched in this call: ms
local expiries -- of sessions touched in time: when they expire as they are stored now, ms
local moves -- of sessions whose data, which Rollcall wrote, is to expire at another time: when, ms
local tied -- sessions whose data of the same time cannot be told apart here

local function begin_sessions()
  given, lives, expiries, moves, tied = {}, {}, {}, {}, {}
end

local function read_ttls()
  for _ = 1, section() do
    local sid, t, seconds = take(3)
    given[sid] = { t, seconds }
  end
end

local function later(a, b)
  return (not a or (b and b > a)) and b or a
end

-- Merges a session's stored and given lifetimes, and returns the lifetime in ms. The last activity is stored with the
-- lifetime, so that an earlier event is still late once the session itself is gone.
local function merge_ttl(sid, record, t, old_t, writes)
  local own = given[sid]
  local named_t, seconds, seen = read_ttl(record)
  local is_known = named_t or old_t
  if own and (not named_t or own[1] > named_t or (own[1] == named_t and own[2] > seconds)) then
    named_t, seconds = own[1], own[2]
  end
  if not named_t then return session_ttl end
  local merged = format('%s:%07d:%s', named_t, seconds, later(later(seen, t), old_t))
  if merged ~= record and (is_known or read_ttl(merged)) then
    local n = #writes
    writes[n + 1], writes[n + 2] = sid, merged
  end
  lives[sid] = seconds * 1000
  return lives[sid]
end

-- Writes a touch that is in time, if it is the latest; returns whether it is.
local function touch(sid, value, t, old, old_t)
  if old and (t < old_t or (t == old_t and not greater_bytes(value, old))) then return false end
  call('HSET', sessions, sid, value)
  if not old then change('session_started', t, 'user', user_of(value), 'sid', sid) end
  return true
end

local function merge_touched()
  local count, sids = column()
  local values = long(count)
  local stored = lookup('HMGET', sessions, args, sids, count)
  local ended = lookup('ZMSCORE', sessions_ended, args, sids, count)
  local data = lookup('HMGET', session_versions, args, sids, count)
  local ttls, writes = lookup('HMGET', session_ttls, args, sids, count), {}
  for i = 1, count do
    local sid, value, old = args[sids + i - 1], ARGV[values + i - 1], stored[i]
    local t = version(value, LAST_ACTIVITY)
    local last = old and version(old, LAST_ACTIVITY)
    if not ended[i] then -- what ended stays ended
      local life_ms, is_moved = session_ttl, false
      if ttls[i] or given[sid] then
        life_ms = merge_ttl(sid, ttls[i], t, last, writes)
        is_moved = given[sid] and last
      end
      local expiry = t + life_ms
      if not is_late(expiry) then
        if touch(sid, value, t, old, last) then is_moved = true else expiry = last + life_ms end
        expiries[sid] = expiry
      end
      if is_moved and data[i] then moves[sid] = expiries[sid] or last + life_ms end
    end
  end
  with_all('HSET', session_ttls, writes)
end

-- The bytes of tokens do not show their content, so the worker says which stored value they win over.
local function wins_data(sid, t, data, old_t, beaten)
  if not old_t or t ~= old_t then return not old_t or t > old_t end
  local old = call('GET', session_data_of .. sid)
  if not old or not beaten then return not old or greater_bytes(data, old) end
  if old ~= data and old ~= beaten then tied[#tied + 1] = sid end
  return old == beaten
end

local function merge_data()
  local count, sids = column()
  local are_tokens = count > 0 and take(1) == 1
  local ended = lookup('ZMSCORE', sessions_ended, args, sids, count)
  local versions = lookup('HMGET', session_versions, args, sids, count)
  local writes = {}
  for i = 1, count do
    local sid, t, data = args[sids + i - 1], take(1), ARGV[long(1)]
    local beaten = are_tokens and ARGV[long(1)]
    local key = session_data_of .. sid
    -- A session with data was touched just above, unless it has ended.
    if not ended[i] and not is_late(t + (lives[sid] or session_ttl)) then
      if not is_type(key, 'string') then
        mark_wrong(key)
      elseif wins_data(sid, t, data, versions[i], beaten) then
        call('SET', key, data, 'PXAT', expiries[sid])
        moves[sid] = nil
        local n = #writes
        writes[n + 1], writes[n + 2] = sid, t
      end
    end
  end
  with_all('HSET', session_versions, writes)
end

-- A key of that name that is not ours must not be given an expiry.
local function move_expiries()
  for sid, expiry in pairs(moves) do
    local key = session_data_of .. sid
    if is_type(key, 'string') then call('PEXPIREAT', key, expiry) end
  end
end

local function end_sessions()
  local count = section()
  local has_ttls = count > 0 and call('EXISTS', session_ttls) == 1
  for _ = 1, count do
    local sid, entry_ms, t = take(3)
    call('ZADD', sessions_ended, 'GT', entry_ms, sid)
    local key = session_data_of .. sid
    if call('HDEL', session_versions, sid) == 1 and is_type(key, 'string') then call('UNLINK', key) end
    if has_ttls then call('HDEL', session_ttls, sid) end
    local old = call('HGET', sessions, sid)
    if old then
      call('HDEL', sessions, sid)
      change('session_ended', t, 'user', user_of(old), 'sid', sid)
    end
  end
end

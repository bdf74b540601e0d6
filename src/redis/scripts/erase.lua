-- Erase: removes one user from one structure, a piece per call.
--
-- After the settings of common.lua: 3 what, 4 the user, 5 1 if it is only to be counted, 6 a random fence; then
--   block      7 the user's digest, 8 up to which millisecond of entries' ids. Refuses the user's events
--   note       7 where to, then `t` and a token or `s` and a session of theirs: soon nothing else may name them
--   forget     7 where that was
--   entries    for each: id, how many entries replace it, for each of those: n, n × (name, value)
--   presence   fields
--   sessions   sids | tokens: tokens | ended: tokens, '', sids
--   documents  `doc|user|connection` | pairs: `doc|user`, of which no connection is left
--   user       7 what minute sets begin with, the rest minutes
--   names      `a` and a name of rollcall:presence:ended, or `l` and one of rollcall:docs:left
--   changes    ids
--   letters    for each: its id, n, n × (name, value); 0 if nothing replaces it
-- Returns counts, in the order of the caller's names for them: see erase.rs.

local what, user, is_dry, at

local function begin_erase()
  what, user, is_dry, at = ARGV[3], ARGV[4], ARGV[5] == '1', 7
end

local function take(count)
  local first = at
  at = at + count
  return unpack(ARGV, first, at - 1)
end

-- Each remaining argument.
local function rest()
  return function()
    local argument = ARGV[at]
    at = at + 1
    return argument
  end
end

-- From now on no batch in progress is applied: the owner begins a new session and reads from the cursor. The fence
-- says that no subscription shows whether the owner is alive.
local function renew_fence()
  call('HSET', meta, 'fence', ARGV[6])
end

local steps = {}

function steps.block()
  local digest, until_ms = take(2)
  call('ZADD', sub(meta, 1, -5) .. 'blocked', 'GT', until_ms, digest)
  renew_fence()
  return { 1 }
end

function steps.note()
  local key = take(1)
  if not is_dry then
    for name in rest() do call('SADD', key, name) end
  end
  return { 1 }
end

function steps.forget()
  if not is_dry then call('UNLINK', take(1)) end
  return { 1 }
end

-- ---- the stream

-- Whether the figures that counts are computed from were changed by nobody else since the last look.
local function is_known(info)
  local seen = call('HMGET', janitor, 'taken', 'deleted')
  return seen[1] == taken_from(info) and seen[2] == (info['max-deleted-entry-id'] or '0-0')
end

-- Erased entries count as settled, so none is lost. Those ahead of the cursor count as read, so that the group's lag
-- stays right.
local function settle(known, ahead)
  call('HSET', janitor, 'settled', format('%d', settled + ahead))
  if not known then return end
  local info = stream_info()
  call('HSET', janitor, 'taken', taken_from(info), 'deleted', info['max-deleted-entry-id'] or '0-0')
  if read_before >= 0 then call('HSET', janitor, 'read', format('%d', read_before + ahead)) end
end

-- Replaces an entry by others. An entry before the cursor has already had its effect, and the others say so.
local function replace(id, count, is_ahead)
  local is_there = #call('XRANGE', stream, id, id) > 0
  for _ = 1, count do
    local pairs = take(1)
    local first, last = at, at + pairs * 2 - 1
    at = last + 1
    if is_there and not is_dry then
      if is_ahead then
        call('XADD', stream, '*', unpack(ARGV, first, last))
      else
        call('XADD', stream, '*', 'rest_of', id, unpack(ARGV, first, last))
      end
    end
  end
  if is_there and not is_dry then call('XDEL', stream, id) end
  return is_there
end

function steps.entries()
  local cursor = call('HGET', meta, 'cursor') or call('HGET', janitor, 'cursor') or '0-0'
  local known = is_known(stream_info())
  local whole, cut, ahead = 0, 0, 0
  for id in rest() do
    local count = tonumber(take(1))
    local is_ahead = id_less(cursor, id)
    if replace(id, count, is_ahead) then
      if count > 0 then cut = cut + 1 else whole = whole + 1 end
      if is_ahead then ahead = ahead + 1 end
    end
  end
  if not is_dry and whole + cut > 0 then
    settle(known, ahead)
    if ahead > 0 then renew_fence() end
  end
  return { whole, cut }
end

-- ---- the state

function steps.presence()
  local count = 0
  for field in rest() do
    if call('HEXISTS', presence, field) == 1 then
      count = count + 1
      if not is_dry then
        call('HDEL', presence, field)
        presence_change('offline', now, field)
      end
    end
  end
  return { count }
end

-- Sessions that are the user's or by now nobody's, and sessions of which only the data is left.
function steps.sessions()
  local entries, data = 0, 0
  for sid in rest() do
    local stored, key = call('HGET', sessions, sid), session_data_of .. sid
    local holder = stored and user_of(stored)
    if not stored or holder == user or holder == 'unknown' then
      local is_known = call('HEXISTS', session_versions, sid) == 1
      local has_data = (stored or is_known) and call('TYPE', key).ok == 'string'
      if stored then entries = entries + 1 end
      if has_data then data = data + 1 end
      if not is_dry then
        if has_data then call('UNLINK', key) end
        call('HDEL', session_versions, sid)
        call('HDEL', session_ttls, sid)
        if stored then
          call('HDEL', sessions, sid)
          change('session_ended', now, 'user', holder, 'sid', sid)
        end
      end
    end
  end
  return { entries, data }
end

function steps.tokens()
  local tokens, items = 0, 0
  for token in rest() do
    if call('HGET', login, token) == user then
      tokens = tokens + 1
      if is_type(viewed .. token, 'zset') then items = items + call('ZCARD', viewed .. token) end
      if not is_dry then drop_token(token, now) end
    end
  end
  return { tokens, items }
end

-- Endings of tokens and sessions that by now belong to nobody else.
function steps.ended()
  local tombstones, key, holders = 0, tokens_ended, login
  for name in rest() do
    if name == '' then
      key, holders = sessions_ended, sessions
    elseif call('HEXISTS', holders, name) == 0 and call('ZSCORE', key, name) then
      tombstones = tombstones + 1
      if not is_dry then call('ZREM', key, name) end
    end
  end
  return { tombstones }
end

function steps.documents()
  local joined, left = 0, 0
  for member in rest() do
    local part = parts(member)
    local is_joined, has_left = call('ZSCORE', docs_joined, member), call('ZSCORE', docs_left, member)
    if is_joined then joined = joined + 1 end
    if has_left then left = left + 1 end
    if not is_dry then
      need_document_rights(part[1])
      call('ZREM', docs_left, member)
      drop_connection(part[1], part[2], member, now)
    end
  end
  return { joined, left }
end

-- If others removed the connections, a count of them may be left.
function steps.pairs()
  local count = 0
  for pair in rest() do
    local doc = parts(pair)[1]
    local key = document_of .. doc .. ':users'
    count = count + call('HEXISTS', docs_connections, pair)
    if not is_dry then
      need_document_rights(doc)
      call('HDEL', docs_connections, pair)
      if is_type(key, 'set') and call('SREM', key, user) == 1 then document_change('document_left', now, user, doc) end
    end
  end
  return { count }
end

-- Keys that are found by the user's name alone.
function steps.user()
  local minutes, activity, index = 0, call('EXISTS', activity_of .. user), 0
  local beginning = take(1)
  for minute in rest() do
    local key = beginning .. minute
    if is_type(key, 'set') then
      minutes = minutes + (is_dry and call('SISMEMBER', key, user) or call('SREM', key, user))
    end
  end
  index = call('HEXISTS', presence_addresses, user)
  if not is_dry then
    call('DEL', activity_of .. user)
    call('HDEL', presence_addresses, user)
    for _, field in ipairs(crowd(user, CHUNK)) do call('ZREM', presence_crowds, field) end
    call('HDEL', janitor, 'repair')
  end
  return { minutes, activity, index }
end

function steps.names()
  local count = 0
  for letter in rest() do
    local key, name = letter == 'a' and presence_ended or docs_left, take(1)
    count = count + (is_dry and 1 or call('ZREM', key, name))
  end
  return { count }
end

-- ---- changes and dead letters

-- The numbers of erased changes are kept as long as there are older changes, so that readers can tell these holes from
-- gaps.
function steps.changes()
  local count = 0
  for id in rest() do
    local entry = call('XRANGE', changes, id, id)[1]
    if entry then
      count = count + 1
      if not is_dry then
        if entry[2][1] == 'seq' then call('ZADD', changes .. ':erased', entry[2][2], entry[2][2]) end
        call('XDEL', changes, id)
      end
    end
  end
  return { count }
end

function steps.letters()
  local whole, cut = 0, 0
  for id in rest() do
    local pairs = tonumber((take(1)))
    local first, last = at, at + pairs * 2 - 1
    at = last + 1
    if #call('XRANGE', dead, id, id) > 0 then
      if pairs > 0 then cut = cut + 1 else whole = whole + 1 end
      if not is_dry then
        if pairs > 0 then call('XADD', dead, '*', unpack(ARGV, first, last)) end
        call('XDEL', dead, id)
      end
    end
  end
  return { whole, cut }
end

-- ---- the call

-- Rights that would be needed only after something is written.
local function missing_right()
  local may = redis.acl_check_cmd
  local fine = may('XADD', stream, '*', '', '') and may('XDEL', stream, '0-1') and may('XADD', dead, '*', '', '')
    and may('XDEL', dead, '0-1') and may('XADD', changes, '*', 'kind', '') and may('XDEL', changes, '0-1')
    and may('HSET', meta, 'fence', '') and may('HSET', janitor, '', '') and may('INCRBY', changes_seq, 1)
    and may('XTRIM', changes, 'MAXLEN', 1) and may('HDEL', session_versions, '') and may('ZADD', changes .. ':erased', 1, '')
  if not fine then
    return redis.error_reply('NOPERM XADD and XDEL of ' .. stream .. ', ' .. dead .. ' and ' .. changes
      .. ', HSET of ' .. meta .. ' and the rights of a janitor are needed')
  end
end

local function run()
  begin_erase()
  local refused = wrong_shared_key() or wrong_seq() or not is_dry and missing_right() or nil
  if refused then return refused end
  -- If a step still fails, the changes of what was done are still recorded.
  local is_done, counts = pcall(steps[what])
  count_documents()
  write_changes()
  index_addresses()
  if is_done then return counts end
  local text = type(counts) == 'table' and counts.err or tostring(counts)
  return redis.error_reply(find(text, '^%u+ ') and text or 'ERR the script failed: ' .. text)
end

#!lua
-- What the scripts share: keys, settings, the server's time, changes, and how a structure loses a member.
--
-- KEYS     the names of declared_keys() in script.rs, in this order; the last three are beginnings of names
-- ARGV     1 epoch, 2 group, 3 presence ttl ms, 4 session ttl ms, 5 document ttl ms, 6 activity ttl s,
--          7 viewed cap, 8 changes cap, 9 dead cap, 10 thresholds `up:down,…`; then what each script says
local stream, dead, changes, changes_seq, meta, janitor, workers,
  login, recent, viewed, tokens_ended, presence, presence_ended,
  sessions, sessions_ended, session_versions,
  docs_joined, docs_left, docs_connections, docs_levels,
  activity_of, session_data_of, document_of = unpack(KEYS)

-- Locals are reached faster than globals.
local call, try, ARGV = redis.call, redis.pcall, ARGV
local byte, sub, gsub, find = string.byte, string.sub, string.gsub, string.find
local group = ARGV[2]
local presence_ttl, session_ttl, document_ttl = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local viewed_cap, changes_cap, dead_cap = tonumber(ARGV[7]), ARGV[8], ARGV[9]
local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

-- unpack() takes at most 7,999 values.
local CHUNK = 2000

-- ---- types: checked before the first write, so that nothing after it can fail

local TYPES = {
  { 'stream', stream, dead, changes },
  { 'string', changes_seq },
  { 'hash', meta, janitor, workers, login, presence, sessions, session_versions, docs_connections, docs_levels },
  { 'zset', recent, viewed, tokens_ended, presence_ended, sessions_ended, docs_joined, docs_left },
}

local function is_type(key, kind)
  local found = call('TYPE', key).ok
  return found == kind or found == 'none', found
end

-- Entries that this group is done with: without it they would count as lost.
local settled = 0

local function wrong_shared_key()
  for _, row in ipairs(TYPES) do
    for i = 2, #row do
      local fine, found = is_type(row[i], row[1])
      if not fine then
        return redis.error_reply('WRONGKEY ' .. row[i] .. ' holds a ' .. found .. ' where Rollcall keeps a ' .. row[1])
      end
    end
  end
  local stored = call('HGET', janitor, 'settled') or '0'
  if find(stored, '%D') or #stored > 15 then
    return redis.error_reply('WRONGKEY ' .. janitor .. ' holds no number under settled; delete that field')
  end
  settled = tonumber(stored)
end

-- ---- names: two parts are joined with | after % and | in each were escaped

local function escape(part)
  if find(part, '[%%|]') then
    part = gsub(gsub(part, '%%', '%%25'), '|', '%%7C')
  end
  return part
end

local function unescape(part)
  if find(part, '%%') then
    part = gsub(gsub(part, '%%7C', '|'), '%%25', '%%')
  end
  return part
end

local function parts(name)
  local list = {}
  for part in string.gmatch(name .. '|', '([^|]*)|') do list[#list + 1] = unescape(part) end
  return list
end

-- ---- versions: `<` follows the locale, so it meets only the thirteen digits; ties go byte by byte

local function greater_bytes(a, b)
  for i = 1, math.min(#a, #b) do
    local x, y = byte(a, i), byte(b, i)
    if x ~= y then return x > y end
  end
  return #a > #b
end

local function halves(id)
  return string.match(id, '^(%d+)-(%d+)$')
end

-- Ids have 128 bits, more than a number holds: compare by length, then digit by digit.
local function digits_less(a, b)
  if #a ~= #b then return #a < #b end
  return a ~= b and greater_bytes(b, a)
end

local function id_less(a, b)
  local a_ms, a_seq = halves(a)
  local b_ms, b_seq = halves(b)
  if a_ms ~= b_ms then return digits_less(a_ms, b_ms) end
  return digits_less(a_seq, b_seq)
end

-- Values begin with their version: {"lastSeen":1790000000000, and {"last_activity":1790000000000,
local function version(value, first)
  local digits = sub(value, first, first + 12)
  if #digits == 13 and not find(digits, '%D') then return digits end
  return '0000000000000' -- not written by Rollcall: older than anything
end
local LAST_SEEN, LAST_ACTIVITY = 13, 18

local function user_of(value)
  local ok, decoded = pcall(cjson.decode, value)
  return ok and type(decoded) == 'table' and type(decoded.user) == 'string' and decoded.user or ''
end

-- ---- changes: what differs between before and after the call, numbered without gaps

local pending_changes, change_counts = {}, {}

local function change(kind, at, ...)
  local record = { 'kind', kind, 'time', at, ... }
  pending_changes[#pending_changes + 1] = record
  change_counts[kind] = (change_counts[kind] or 0) + 1
  return record
end

-- Returns how many old changes the cap dropped, and { kind, count, … } of those written.
local function write_changes()
  local count, kinds = #pending_changes, {}
  if count == 0 then return 0, kinds end
  for kind, recorded in pairs(change_counts) do
    kinds[#kinds + 1], kinds[#kinds + 2] = kind, recorded
  end
  local seq = call('INCRBY', changes_seq, count) - count
  for i = 1, count do
    call('XADD', changes, '*', 'seq', seq + i, unpack(pending_changes[i]))
  end
  return call('XTRIM', changes, 'MAXLEN', changes_cap), kinds
end

local function wrong_seq()
  local seq = call('GET', changes_seq)
  if seq and (find(seq, '%D') or #seq > 15) then
    return redis.error_reply('WRONGKEY ' .. changes_seq .. ' holds no sequence number')
  end
end

-- ---- tokens: login, recent and viewed lose a token together

local function drop_token(token, at)
  local user = call('HGET', login, token)
  call('ZREM', recent, token)
  if is_type(viewed .. token, 'zset') then call('UNLINK', viewed .. token) end
  if not user then return end
  call('HDEL', login, token)
  change('logout', at, 'user', user, 'token', token)
end

-- ---- documents: set, count and levels follow from the joined connections

local touched_docs = {} -- document → the changes of its users in this call

local function document_change(kind, at, user, doc)
  local records = touched_docs[doc] or {}
  records[#records + 1] = change(kind, at, 'user', user, 'doc', doc)
  records.at = math.max(records.at or 0, tonumber(at))
  touched_docs[doc] = records
end

-- Set, count and connections of a document are written one after the other: a right that is missing for one
-- of them must be told before the first.
local function need_document_rights(doc, joining)
  local users_key, count_key = document_of .. doc .. ':users', document_of .. doc .. ':count'
  local may = redis.acl_check_cmd
  local fine = may('HINCRBY', docs_connections, '', 1) and may('SET', count_key, 0)
  if joining then
    fine = fine and may('ZADD', docs_joined, 0, '') and may('SADD', users_key, '')
  else
    fine = fine and may('ZREM', docs_joined, '') and may('HDEL', docs_connections, '')
      and may('SREM', users_key, '') and may('DEL', count_key)
  end
  if not fine then
    error(redis.error_reply('NOPERM to keep ' .. users_key .. ', its count and its connections a right is missing'))
  end
end

local function join_connection(doc, user, member, at)
  call('ZADD', docs_joined, at, member)
  if call('HINCRBY', docs_connections, escape(doc) .. '|' .. escape(user), 1) > 1 then return end
  call('SADD', document_of .. doc .. ':users', user)
  document_change('document_joined', at, user, doc)
end

local function drop_connection(doc, user, member, at)
  if call('ZREM', docs_joined, member) == 0 then return end
  local pair = escape(doc) .. '|' .. escape(user)
  if call('HINCRBY', docs_connections, pair, -1) > 0 then return end
  call('HDEL', docs_connections, pair)
  local key = document_of .. doc .. ':users'
  if is_type(key, 'set') then call('SREM', key, user) end
  document_change('document_left', at, user, doc)
end

local function cross_thresholds(doc, count, at)
  for up, down in string.gmatch(ARGV[10], '(%d+):(%d+)') do
    local level = up .. ':' .. down .. ':' .. escape(doc)
    local reached = call('HEXISTS', docs_levels, level) == 1
    if not reached and count >= tonumber(up) then
      call('HSET', docs_levels, level, 1)
      change('threshold_reached', at, 'doc', doc, 'count', count, 'threshold', up)
    elseif reached and count <= tonumber(down) then
      call('HDEL', docs_levels, level)
      change('threshold_left', at, 'doc', doc, 'count', count, 'threshold', up)
    end
  end
end

local function count_documents()
  for doc, records in pairs(touched_docs) do
    -- A sweep meets documents whose keys others have taken since: it leaves those alone.
    local users_key, count_key = document_of .. doc .. ':users', document_of .. doc .. ':count'
    local count = is_type(users_key, 'set') and call('SCARD', users_key) or 0
    if is_type(count_key, 'string') then
      if count > 0 then call('SET', count_key, count) else call('DEL', count_key) end
    end
    for _, record in ipairs(records) do
      record[#record + 1] = 'count'
      record[#record + 1] = count
    end
    cross_thresholds(doc, count, records.at)
  end
end

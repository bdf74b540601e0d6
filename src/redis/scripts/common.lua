-- Shared by the scripts: keys, settings, the server's time, changes, and how a structure loses a member.
--
-- KEYS     the names of declared_keys() in mod.rs, in this order; the last three are beginnings of names
-- ARGV     1 epoch, 2 settings: a JSON object of the names below; then what each script says
local stream, dead, changes, changes_seq, meta, janitor, workers,
  login, recent, viewed, tokens_ended, presence, presence_ended, presence_addresses, presence_crowds,
  sessions, sessions_ended, session_versions, session_ttls,
  docs_joined, docs_left, docs_connections, docs_levels,
  activity_of, session_data_of, document_of

-- As a function of a library this text runs once, and its functions are called many times. State of one call is set
-- by begin() and the begin_…() beside it. Locals are faster than globals.
local call, try, ARGV, now
local byte, sub, gsub, find, format -- a library has no globals while it is loaded
local settings -- the argument that these were read from
local group, presence_ttl, session_ttl, document_ttl, activity_ttl, viewed_cap, changes_cap, dead_cap, thresholds
-- How many entries this group has settled (without that number they would count as lost), and how many entries up to
-- the cursor were ever added.
local settled, read_before
-- The shared keys that did not exist when the call began.
local absent
local pending_changes, change_counts
local moved -- user → address, escaped → whether there is an entry now
local touched_docs -- document → the changes of its users in this call

-- Nearly every call has the settings of the call before.
local function read_settings(json)
  settings = json
  local of = cjson.decode(json)
  group, presence_ttl, session_ttl, document_ttl = of.group, of.presence_ttl, of.session_ttl, of.document_ttl
  activity_ttl, viewed_cap, changes_cap, dead_cap = of.activity_ttl, of.viewed_cap, of.changes_cap, of.dead_cap
  thresholds = of.thresholds
end

local function begin(keys, arguments)
  stream, dead, changes, changes_seq, meta, janitor, workers,
    login, recent, viewed, tokens_ended, presence, presence_ended, presence_addresses, presence_crowds,
    sessions, sessions_ended, session_versions, session_ttls,
    docs_joined, docs_left, docs_connections, docs_levels,
    activity_of, session_data_of, document_of = unpack(keys)
  call, try, ARGV = redis.call, redis.pcall, arguments
  byte, sub, gsub, find, format = string.byte, string.sub, string.gsub, string.find, string.format
  if ARGV[2] ~= settings then read_settings(ARGV[2]) end
  local time = call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
  settled, read_before, absent = 0, -1, {}
  pending_changes, change_counts, moved, touched_docs = {}, {}, {}, {}
end

-- unpack() takes at most 7,999 values.
local CHUNK = 2000

-- Calls `visit(first, last)` for a list in chunks that unpack() can take.
local function chunks(count, visit)
  for first = 1, count, CHUNK do visit(first, math.min(first + CHUNK - 1, count)) end
end

-- Sends a command with a list of any length.
local function with_all(command, key, list)
  chunks(#list, function(first, last) call(command, key, unpack(list, first, last)) end)
end

-- The values of a shared hash or sorted set for `count` members of a list that this call has not written; none,
-- without a command, if the key was absent.
local function lookup(command, key, list, first, count)
  if count == 0 or absent[key] then return {} end
  if count <= CHUNK then return call(command, key, unpack(list, first, first + count - 1)) end
  local found = {}
  chunks(count, function(from, to)
    local values = call(command, key, unpack(list, first + from - 1, first + to - 1))
    for i, value in ipairs(values) do found[from + i - 1] = value end
  end)
  return found
end

-- ---- types: checked before the first write, so that nothing after it can fail

-- Each type with a command that refuses other types. The commands that count return 0 for a missing key.
local HASH, ZSET, STREAM, STRING = { 'hash', 'HLEN' }, { 'zset', 'ZCARD' }, { 'stream', 'XLEN' }, { 'string', 'GET' }

-- Calls `visit` with each of the shared keys and its type until it returns something.
local function shared(visit)
  return visit(stream, STREAM) or visit(dead, STREAM) or visit(changes, STREAM) or visit(changes_seq, STRING)
    or visit(meta, HASH) or visit(janitor, HASH) or visit(workers, HASH) or visit(login, HASH)
    or visit(presence, HASH) or visit(presence_addresses, HASH) or visit(sessions, HASH)
    or visit(session_versions, HASH) or visit(session_ttls, HASH) or visit(docs_connections, HASH)
    or visit(docs_levels, HASH) or visit(recent, ZSET) or visit(viewed, ZSET) or visit(tokens_ended, ZSET)
    or visit(presence_ended, ZSET) or visit(presence_crowds, ZSET) or visit(sessions_ended, ZSET)
    or visit(docs_joined, ZSET) or visit(docs_left, ZSET)
end

local function is_type(key, kind)
  local found = call('TYPE', key).ok
  return found == kind or found == 'none', found
end

-- Counts a repair of what others, or a clock that went back, did to Rollcall's keys. The janitor reports it.
local function repaired(what, key, count)
  call('HINCRBY', janitor, 'repairs:' .. what, count or 1)
  call('HSET', janitor, 'repair', format('%d %s %s', now, what, key))
end

-- Removes an expiry that others set on a key that has none.
local function persist(key)
  if call('PERSIST', key) == 1 then repaired('expiry', key) end
end

-- Removes expiries from the shared keys, at most this often for all callers together: a janitor or a worker does it
-- every second.
local KEEP_MS = 500
local function keep_shared_keys(kept)
  local age = now - (tonumber(kept) or 0)
  if age >= 0 and age < KEEP_MS then return end
  shared(function(key, kind)
    if is_type(key, kind[1]) then persist(key) end
  end)
  call('HSET', janitor, 'kept', format('%d', now))
end

-- Refuses a key of another type, and notes whether the key exists.
local function check_type(key, kind)
  local count = try(kind[2], key)
  if count == 0 then
    absent[key] = true
  elseif type(count) == 'table' then
    if sub(count.err, 1, 9) ~= 'WRONGTYPE' then return count end
    local found = call('TYPE', key).ok
    return redis.error_reply('WRONGKEY ' .. key .. ' holds a ' .. found .. ' where Rollcall keeps a ' .. kind[1])
  end
end

local function wrong_shared_key()
  local refused = shared(check_type)
  if refused and not is_type(janitor, 'hash') then return refused end
  local stored, kept, read = unpack(call('HMGET', janitor, 'settled', 'kept', 'read'))
  keep_shared_keys(kept)
  if refused then return refused end
  stored = stored or '0'
  if find(stored, '%D') or #stored > 15 then
    return redis.error_reply('WRONGKEY ' .. janitor .. ' holds no number under settled; delete that field')
  end
  settled, read_before = tonumber(stored), read and find(read, '^%d+$') and #read <= 15 and tonumber(read) or -1
end

-- ---- names: two parts are joined with |, after escaping % and | in each

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

-- ---- versions: `<` follows the locale, so it is used on the thirteen digits only; ties are decided byte by byte

-- Long values mostly differ late or not at all, so chunks are compared first.
local PIECE = 64

local function greater_bytes(a, b)
  if a == b then return false end
  local first = 1
  while first <= #a and sub(a, first, first + PIECE - 1) == sub(b, first, first + PIECE - 1) do first = first + PIECE end
  for i = first, math.min(#a, #b) do
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
  if #digits == 13 and find(digits, '^%d+$') then return digits end
  return '0000000000000' -- not written by Rollcall: older than anything
end
local LAST_SEEN, LAST_ACTIVITY = 13, 18

local function user_of(value)
  local ok, decoded = pcall(cjson.decode, value)
  return ok and type(decoded) == 'table' and type(decoded.user) == 'string' and decoded.user or ''
end

-- ---- changes: the difference between the state before and after the call, numbered without gaps

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

-- If others removed the sequence number, the last change has it, or the last erased one.
local function restore_seq()
  local last = call('XREVRANGE', changes, '+', '-', 'COUNT', 1)[1]
  local seq = last and last[2][1] == 'seq' and tonumber(last[2][2])
  if not seq then return end
  local erased = try('ZRANGE', changes .. ':erased', -1, -1)
  seq = math.max(seq, tonumber(erased[1]) or 0)
  call('SET', changes_seq, format('%d', seq))
  repaired('sequence', changes_seq)
end

local function wrong_seq()
  local seq = call('GET', changes_seq)
  if not seq then restore_seq() end
  if seq and (find(seq, '%D') or #seq > 15) then
    return redis.error_reply('WRONGKEY ' .. changes_seq .. ' holds no sequence number')
  end
end

-- ---- presence: the index of addresses follows the entries as they come and go

-- The maximum number of addresses of a user in one value; the entries of a user with more are kept in a sorted set.
local ADDRESSES, CROWD = 16, '%'

-- Both parts of a presence field, still escaped; nil if it is not one.
local function place_of(field)
  return string.match(field, '^([^|]*)|([^|]*)$')
end

-- Notes that an entry appeared or disappeared; returns its user and address, empty if it is not a presence field.
local function move(field, is_there)
  local user, address = place_of(field)
  if not user then return unescape(field), '' end
  user = unescape(user)
  local addresses = moved[user]
  if addresses then addresses[address] = is_there else moved[user] = { [address] = is_there } end
  return user, unescape(address)
end

local function presence_change(kind, at, field)
  local user, ip = move(field, kind == 'online')
  change(kind, at, 'user', user, 'ip', ip)
end

-- The entries of a user in the sorted set, up to `limit`.
local function crowd(user, limit)
  local name = escape(user)
  return call('ZRANGE', presence_crowds, '[' .. name .. '|', '(' .. name .. '}', 'BYLEX', 'LIMIT', 0, limit)
end

-- The index value of a user whose entries are in the sorted set, after some came or went.
local function index_crowd(user, addresses)
  local name = escape(user) .. '|'
  for address, is_there in pairs(addresses) do
    if is_there then
      call('ZADD', presence_crowds, 0, name .. address)
    else
      call('ZREM', presence_crowds, name .. address)
    end
  end
  local fields = crowd(user, ADDRESSES + 1)
  if #fields > ADDRESSES then return CROWD end
  for i, field in ipairs(fields) do
    call('ZREM', presence_crowds, field)
    fields[i] = sub(field, #name + 1)
  end
  return #fields > 0 and table.concat(fields, '|')
end

-- The same for a user with few: the value, in the order of bytes, or false if none is left.
local function index_user(user, stored, addresses)
  if stored == CROWD then return index_crowd(user, addresses) end
  local address, is_there = next(addresses)
  if next(addresses, address) == nil and (not stored or stored == address) then -- nearly always
    return is_there and address
  end
  local list = {}
  for stored_address in string.gmatch(stored and stored .. '|' or '', '([^|]*)|') do
    if addresses[stored_address] == nil then list[#list + 1] = stored_address end
  end
  for moved_address, has_come in pairs(addresses) do
    if has_come then list[#list + 1] = moved_address end
  end
  if #list > ADDRESSES then
    for i = 1, #list do addresses[list[i]] = true end
    return index_crowd(user, addresses)
  end
  table.sort(list, function(a, b) return greater_bytes(b, a) end)
  return #list > 0 and table.concat(list, '|')
end

local function index_addresses()
  local users, kept, gone = {}, {}, {}
  for user in pairs(moved) do users[#users + 1] = user end
  local stored = lookup('HMGET', presence_addresses, users, 1, #users)
  for i, user in ipairs(users) do
    local value = index_user(user, stored[i], moved[user])
    if not value then
      gone[#gone + 1] = user
    elseif value ~= stored[i] then
      kept[#kept + 1] = user
      kept[#kept + 1] = value
    end
  end
  with_all('HSET', presence_addresses, kept)
  with_all('HDEL', presence_addresses, gone)
end

-- ---- sessions: a session's own lifetime is kept as when:seconds:last activity, 13, 7 and 13 digits

-- When it was set, its seconds, the last activity. Nothing if there is none, or if it is forgotten because no earlier
-- event can count any more.
local function read_ttl(record)
  local t, seconds, seen = string.match(record or '', '^(%d+):(%d+):(%d+)$')
  if not t or seen + math.max(seconds * 1000, session_ttl) <= now then return end
  return t, tonumber(seconds), seen
end

local function life(record)
  local _, seconds = read_ttl(record)
  return seconds and seconds * 1000 or session_ttl
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

local function document_change(kind, at, user, doc)
  local records = touched_docs[doc] or {}
  records[#records + 1] = change(kind, at, 'user', user, 'doc', doc)
  records.at = math.max(records.at or 0, tonumber(at))
  touched_docs[doc] = records
end

-- Set, count and connections of a document are written one after the other, so a missing right for one of them must
-- be noticed before the first write.
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

-- While a set is restored piece by piece, its count only `rises`, so no threshold is left for it.
local function cross_thresholds(doc, count, at, rises)
  for _, threshold in ipairs(thresholds) do
    local up, down = threshold.up, threshold.down
    local level = format('%d:%d:%s', up, down, escape(doc))
    local reached = call('HEXISTS', docs_levels, level) == 1
    if not reached and count >= up then
      call('HSET', docs_levels, level, 1)
      change('threshold_reached', at, 'doc', doc, 'count', count, 'threshold', up)
    elseif reached and count <= down and not rises then
      call('HDEL', docs_levels, level)
      change('threshold_left', at, 'doc', doc, 'count', count, 'threshold', up)
    end
  end
end

local function count_documents()
  for doc, records in pairs(touched_docs) do
    -- A sweep finds documents whose keys others have replaced meanwhile, and leaves those alone.
    local users_key, count_key = document_of .. doc .. ':users', document_of .. doc .. ':count'
    local is_set = is_type(users_key, 'set')
    local count = is_set and call('SCARD', users_key) or 0
    if is_set and count > 0 then persist(users_key) end
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

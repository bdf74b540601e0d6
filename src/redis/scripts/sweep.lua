-- Sweep: takes from one structure what is stale or beyond its cap, a chunk a call.
--
-- After the settings of common.lua: 11 what to sweep, 12 most members to look at, 13 cap, 14 horizon ms,
-- 15 keep ms. Returns { looked at, removed, changes dropped, 1 if there is more to do now, { kind of change,
-- count, … }, … }.

local what, limit, cap = ARGV[11], tonumber(ARGV[12]), tonumber(ARGV[13])
local horizon, keep = tonumber(ARGV[14]), tonumber(ARGV[15])

-- Walks a hash a chunk at a time; the cursor is kept in the server, so that all janitors walk together.
local function walk(key, visit)
  local name = 'cursor:' .. what
  local cursor = call('HGET', janitor, name) or '0'
  local reply = call('HSCAN', key, cursor, 'COUNT', limit)
  local removed = 0
  for i = 1, #reply[2], 2 do
    if visit(reply[2][i], reply[2][i + 1]) then removed = removed + 1 end
  end
  if reply[1] == '0' then call('HDEL', janitor, name) else call('HSET', janitor, name, reply[1]) end
  return #reply[2] / 2, removed, reply[1] ~= '0'
end

local function stale(key, bound, visit)
  local members = call('ZRANGEBYSCORE', key, '-inf', bound, 'LIMIT', 0, limit)
  for _, member in ipairs(members) do visit(member) end
  return #members, #members, #members == limit
end

local function remove_from(key)
  return function(member) call('ZREM', key, member) end
end

-- What every entry to come is younger than: the first after the cursor, or the cursor. Nothing is known without it.
local function oldest_to_come()
  local cursor = call('HGET', meta, 'cursor')
  if not cursor then return 0 end
  return tonumber((halves(first_after(cursor) or cursor)))
end

local sweeps = {}

function sweeps.presence()
  return walk(presence, function(field, value)
    if version(value, LAST_SEEN) + presence_ttl > now then return false end
    if call('HDEL', presence, field) == 0 then return false end
    local part = parts(field)
    change('offline', now, 'user', part[1], 'ip', part[2] or '')
    return true
  end)
end

function sweeps.presence_ended()
  return stale(presence_ended, now - presence_ttl, remove_from(presence_ended))
end

function sweeps.sessions()
  return walk(sessions, function(sid, value)
    if version(value, LAST_ACTIVITY) + session_ttl > now then return false end
    if call('HDEL', sessions, sid) == 0 then return false end
    change('session_expired', now, 'user', user_of(value), 'sid', sid)
    return true
  end)
end

-- The data itself goes by its own expiry; this takes the versions of what has gone.
function sweeps.session_data()
  return walk(session_versions, function(sid)
    return call('EXISTS', session_data_of .. sid) == 0 and call('HDEL', session_versions, sid) == 1
  end)
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
  return stale(key, '(' .. string.format('%.0f', bound), remove_from(key))
end

function sweeps.tokens_ended() return tombstones(tokens_ended) end
function sweeps.sessions_ended() return tombstones(sessions_ended) end

-- Trims the stream below the cursor, what every other group has finished, and what is kept. The cursor's own entry
-- stays: it tells this stream from another one. Where the cursor is unknown, or about a stream that is gone, nothing
-- is trimmed.
function sweeps.stream()
  local cursor = call('HGET', meta, 'cursor')
  if not cursor then return 0, 0, false, group, 0 end
  local bound = string.format('%.0f-0', math.max(now - keep, 0))
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
  end
  local age = oldest and math.max(0, now - tonumber((halves(oldest)))) or 0
  -- Trimming takes whole nodes, so it stops a little short of its limit.
  return removed, removed, removed > 0 and removed + 200 > limit, blocking, age
end

local refused = wrong_shared_key() or wrong_seq()
if refused then return refused end
local looked, removed, more, extra, age = sweeps[what]()
count_documents()
local dropped, kinds = write_changes()
call('HSET', janitor, 'last_run', string.format('%.0f', now))
return { looked, removed, dropped, more and 1 or 0, kinds, extra or '', age or 0 }

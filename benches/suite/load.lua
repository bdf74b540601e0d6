-- Fills one structure as Rollcall would have filled it, stale members and fresh ones in turn.
--
-- ARGV  1 structure, 2 first number, 3 last number, 4 now ms, 5 stale age ms, 6 every how manyth is fresh, 0 for none

local what, first, last = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local now, age, fresh_every = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local call = redis.call
local UA = 'Mozilla/5.0 (X11; Linux x86_64; rv:127.0) Gecko/20100101 Firefox/127.0'

local function fresh(number)
  return fresh_every > 0 and number % fresh_every == 0
end

local function digits(number)
  return string.format('%.0f', fresh(number) and now or now - age)
end

local fill = {}

function fill.presence(n)
  local user = 'loaded-' .. n
  call('HSET', 'presence:users', user .. '|10.0.0.7', '{"lastSeen":' .. digits(n) .. ',"user":"' .. user
    .. '","ip":"10.0.0.7","ua":"' .. UA .. '","page":"/home"}')
end

function fill.sessions(n)
  local sid, stale = 'loaded-' .. n, not fresh(n)
  call('HSET', 'sessions:active', sid, '{"last_activity":' .. digits(n) .. ',"sid":"' .. sid .. '","session_id":"'
    .. sid .. '","user":"loaded","ip":"10.0.0.7","ua":"' .. UA .. '"}')
  call('HSET', 'rollcall:sessions:data', sid, digits(n))
  -- The data of a stale session has gone by its own expiry.
  if not stale then call('SET', 'session:' .. sid, '{"theme":"dark"}', 'PXAT', string.format('%.0f', now + 1800000)) end
end

-- A thousand users in each document.
function fill.documents(n)
  local doc, user = 'document-' .. math.floor(n / 1000), 'loaded-' .. n
  call('ZADD', 'rollcall:docs:joined', digits(n), doc .. '|' .. user .. '|c1')
  call('HSET', 'rollcall:docs:connections', doc .. '|' .. user, 1)
  call('SADD', 'sessions:doc:' .. doc .. ':users', user)
  call('INCR', 'sessions:doc:' .. doc .. ':count')
end

function fill.tombstones(n)
  call('ZADD', 'rollcall:tokens:ended', digits(n), 'loaded-' .. n)
end

function fill.tokens(n)
  local token = 'loaded-' .. n
  local score = string.format('%.3f', (now - age + n / 1000) / 1000)
  call('HSET', 'login:', token, 'loaded')
  call('ZADD', 'recent:', score, token)
  call('ZADD', 'viewed:' .. token, score, 'item-1', score, 'item-2')
end

for number = first, last do fill[what](number) end

-- Where a notifier's target is in the changes, who tells it, and what is told by way of the server itself: effect
-- and position in one step.
--
-- KEYS     1 the positions (hash: target → `epoch seq id`), 2 the target's lease (string: `length holder`)
-- ARGV     1 nothing, 2 what to do, 3 target, 4 who asks, 5 length of a lease in ms; then
--          take      nothing
--          publish   6 the position before; then for each step: the position after it, how many publications, and
--                    of each the channel and what to publish
-- replies  take      { 1, position or nothing } or { 0, who has the lease }
--          publish   { 1 } or { 0, who has the lease } or { 2, position that is there instead }
--          release   { 1 }
local positions, lease, call, try, ARGV
local target, me, length

local function begin(keys, arguments)
  positions, lease = unpack(keys)
  call, try, ARGV = redis.call, redis.pcall, arguments
  target, me, length = ARGV[3], ARGV[4], ARGV[5]
end

-- Who else has the lease. One that has longer to go than it is long, or no end, is none: the clock went back, or
-- somebody took its expiry off.
local function other()
  local value = call('GET', lease)
  if not value then return nil end
  local long, holder = string.match(value, '^(%d+) (.*)$')
  if not long or holder == me then return nil end
  local left = call('PTTL', lease)
  if left < 0 or left > tonumber(long) then return nil end
  return holder
end

local function keep()
  call('PERSIST', positions)
  call('SET', lease, length .. ' ' .. me, 'PX', length)
end

local function take()
  local position = call('HGET', positions, target)
  keep()
  return { 1, position or '' }
end

-- Stops at the first publication that the server refuses: what is told by then stays told.
local function publish()
  local position = call('HGET', positions, target) or ''
  if position ~= ARGV[6] then return { 2, position } end
  keep()
  local at, told = 7, nil
  while ARGV[at] do
    local after, count = ARGV[at], tonumber(ARGV[at + 1])
    at = at + 2
    for _ = 1, count do
      local sent = try('PUBLISH', ARGV[at], ARGV[at + 1])
      if type(sent) == 'table' and sent.err then
        if told then call('HSET', positions, target, told) end
        return sent
      end
      at = at + 2
    end
    told = after
  end
  if told then call('HSET', positions, target, told) end
  return { 1 }
end

local deeds = { take = take, publish = publish }

local function run()
  local holder = other()
  if ARGV[2] == 'release' then
    if not holder then call('DEL', lease) end
    return { 1 }
  end
  if holder then return { 0, holder } end
  return deeds[ARGV[2]]()
end

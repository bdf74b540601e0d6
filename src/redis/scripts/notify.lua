-- Notify: the position of a notifier's target in the changes, who notifies it, and what is published through the
-- server itself, so that effect and position are one step.
--
-- KEYS     1 the positions (hash: target → `epoch seq id`; target:batch → `epoch first last`), 2 the target's lease
--          (string: `length holder`), 3 the dead letters
-- ARGV     1 nothing, 2 what to do, 3 target, 4 who asks, 5 length of a lease in ms; then
--          take      nothing
--          publish   6 the position before; then for each step: the position after it, how many publications, and
--                    of each the channel and what to publish
--          hold      6 the position, 7 the borders of the batch that will be sent next
--          bury      6 the position before, 7 the position after, 8 most dead letters; then for each letter how many
--                    words it has, and those
-- replies  take      { 1, position or nothing, borders or nothing } or { 0, who has the lease }
--          publish   { 1 } or { 0, who has the lease } or { 2, position that is there instead }; so do hold and bury
--          release   { 1 }
local positions, lease, dead, call, try, ARGV
local target, me, length

local function begin(keys, arguments)
  positions, lease, dead = unpack(keys)
  call, try, ARGV = redis.call, redis.pcall, arguments
  target, me, length = ARGV[3], ARGV[4], ARGV[5]
end

-- Who else has the lease. A lease with more time left than its length, or without an end, is ignored: the clock went
-- back, or somebody removed its expiry.
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
  local found = call('HMGET', positions, target, target .. ':batch')
  keep()
  return { 1, found[1] or '', found[2] or '' }
end

-- Stops at the first publication that the server refuses; earlier ones have been published.
local function publish()
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

local function hold()
  call('HSET', positions, target .. ':batch', ARGV[7])
  return { 1 }
end

-- Writes dead letters, and moves the position.
local function bury()
  local at = 9
  while ARGV[at] do
    local count = tonumber(ARGV[at])
    call('XADD', dead, 'MAXLEN', ARGV[8], '*', unpack(ARGV, at + 1, at + count))
    at = at + 1 + count
  end
  call('HSET', positions, target, ARGV[7])
  return { 1 }
end

local steps = { publish = publish, hold = hold, bury = bury }

local function run()
  local holder = other()
  if ARGV[2] == 'release' then
    if not holder then call('DEL', lease) end
    return { 1 }
  end
  if holder then return { 0, holder } end
  if ARGV[2] == 'take' then return take() end
  -- Before the first write: refuses keys of another type.
  local position = call('HGET', positions, target) or ''
  if ARGV[2] == 'bury' then call('XLEN', dead) end
  if position ~= ARGV[6] then return { 2, position } end
  keep()
  return steps[ARGV[2]]()
end

#!lua flags=no-writes
-- Look: several reads of one partition at one instant, with the cursor at that instant.
--
-- KEYS     1 the hash that holds epoch and cursor
-- ARGV     for each read the number of its words, and the words
-- Returns  { epoch or false, cursor or false, replies }; the reply of a read that found another type is the status
--          WRONGTYPE
local replies, at = {}, 1
while ARGV[at] do
  local last = at + ARGV[at]
  local reply = redis.pcall(unpack(ARGV, at + 1, last))
  if type(reply) == 'table' and reply.err then
    if string.sub(reply.err, 1, 9) ~= 'WRONGTYPE' then return reply end
    reply = { ok = 'WRONGTYPE' }
  end
  replies[#replies + 1] = reply
  at = last + 1
end
local stands = redis.call('HMGET', KEYS[1], 'epoch', 'cursor')
return { stands[1], stands[2], replies }

#!lua
-- Letters: adds the entries of dead letters again and removes the letters; each both or neither. One atomic call.
--
-- KEYS     1 the stream, 2 the dead letters
-- ARGV     letters in turn: its id, the id of its entry, n, then n names and values
-- Returns  how many letters existed; their entries are on the stream now
local stream, dead = KEYS[1], KEYS[2]
local call = redis.call

for _, key in ipairs(KEYS) do
  local found = call('TYPE', key).ok
  if found ~= 'stream' and found ~= 'none' then
    return redis.error_reply('WRONGKEY ' .. key .. ' holds a ' .. found .. ' where Rollcall keeps a stream')
  end
end
-- Checks what could fail between the two writes.
if not (redis.acl_check_cmd('XADD', stream, '*', '', '') and redis.acl_check_cmd('XDEL', dead, '0-1')) then
  return redis.error_reply('NOPERM XADD to ' .. stream .. ' and XDEL of ' .. dead .. ' are needed')
end

local moved, at = 0, 1
while ARGV[at] do
  local id, entry, pairs = ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 2])
  local first, last = at + 3, at + 2 + pairs * 2
  at = last + 1
  local letter = call('XRANGE', dead, id, id)[1]
  -- If the dead letters were deleted and begun again, another letter may have the same id.
  if letter and letter[2][2] == entry then
    call('XADD', stream, '*', unpack(ARGV, first, last))
    call('XDEL', dead, id)
    moved = moved + 1
  end
end
return moved

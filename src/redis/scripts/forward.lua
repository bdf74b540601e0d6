#!lua
-- Forward: adds entries that were sent to earlier layouts to the streams where they belong, each once. One atomic
-- call; all keys are on one server.
--
-- KEYS     1 meta of the source, 2 meta of who forwards, then the stream and the dead letters of each target
-- ARGV     1 partitions, 2 the source's stream, 3 whether that stream is gone, 4 the cursor that the entries follow,
--          5 dead cap, then source entries in turn: its id; n targets, each its place among the targets; m entries to add,
--          each k and k values; m letters, each reason, detail, index, k and k values
-- Returns  how many source entries were new, or -1 if another process was faster. If the stream no longer exists, its
--          cursor moves as well; otherwise meta records how far it was examined under this number of partitions.
local source, own, partitions, stream = KEYS[1], KEYS[2], ARGV[1], ARGV[2]
local is_gone, after = ARGV[3] == '1', ARGV[4]
local call, find, sub = redis.call, string.find, string.sub

if call('HGET', own, 'partitions') ~= partitions then
  return redis.error_reply('REPARTITION the deployment has another number of partitions by now')
end
for i = 3, #KEYS do
  local found = call('TYPE', KEYS[i]).ok
  if found ~= 'stream' and found ~= 'none' then
    return redis.error_reply('WRONGKEY ' .. KEYS[i] .. ' holds a ' .. found .. ' where Rollcall keeps a stream')
  end
  if not redis.acl_check_cmd('XADD', KEYS[i], '*', '', '') then
    return redis.error_reply('NOPERM XADD to ' .. KEYS[i] .. ' is needed')
  end
end
if not redis.acl_check_cmd('HSET', source, '', '') or is_gone and not redis.acl_check_cmd('XTRIM', stream, 'MINID', '0') then
  return redis.error_reply('NOPERM HSET of ' .. source .. ' and XTRIM of ' .. stream .. ' are needed')
end

-- Halves of ids are whole numbers of up to 20 digits, more than a Lua number holds.
local function less_number(a, b)
  if #a ~= #b then return #a < #b end
  return a < b
end

local function less(a, b)
  local i, j = find(a, '-', 1, true), find(b, '-', 1, true)
  local ms, other = sub(a, 1, i - 1), sub(b, 1, j - 1)
  if ms ~= other then return less_number(ms, other) end
  return less_number(sub(a, i + 1), sub(b, j + 1))
end

local at = 6

local function take(n)
  local first = at
  at = at + n
  return unpack(ARGV, first, at - 1)
end

local function add_entries(target, is_there)
  for _ = 1, tonumber(take(1)) do
    local count = tonumber(take(1))
    if is_there then call('XADD', target, '*', take(count)) else at = at + count end
  end
end

local function add_letters(dead, id, is_there)
  for _ = 1, tonumber(take(1)) do
    local reason, detail, index, count = take(4)
    if is_there then
      call('XADD', dead, '*', 'entry_id', id, 'reason', reason, 'detail', detail, 'deliveries', 1, 'index', index,
        'stream', stream, take(tonumber(count)))
      call('XTRIM', dead, 'MAXLEN', ARGV[5])
    else
      at = at + count
    end
  end
end

local field = is_gone and 'cursor' or 'forwarded:' .. partitions
local last = call('HGET', source, field) or '0-0'
if is_gone and last ~= after then return -1 end
local new = 0
while ARGV[at] do
  local id, targets = take(2)
  local is_new = less(last, id)
  -- An entry that was erased since it was read adds nothing.
  local is_there = is_new and #call('XRANGE', stream, id, id) > 0
  for _ = 1, tonumber(targets) do
    local place = tonumber(take(1))
    add_entries(KEYS[1 + 2 * place], is_there)
    add_letters(KEYS[2 + 2 * place], id, is_there)
  end
  if is_new then last, new = id, new + 1 end
end
if new > 0 then
  call('HSET', source, field, last)
  if is_gone then call('XTRIM', stream, 'MINID', last) end
end
return new

#!lua
-- Forward: adds entries that were sent to another layout, each once. One atomic call.
--
-- KEYS     1 the stream, 2 meta, which records how far it is, 3 the dead letters
-- ARGV     1 where they come from, 2 the stream that was, 3 dead cap, then source entries in turn: its id; n entries to
--          add, each m and m values; n letters, each reason, detail, index, m and m values
-- Returns  how many source entries were new here.
local stream, meta, dead = KEYS[1], KEYS[2], KEYS[3]
local call = redis.call
local find, sub = string.find, string.sub

for i, wanted in ipairs({ 'stream', 'hash', 'stream' }) do
  local found = call('TYPE', KEYS[i]).ok
  if found ~= wanted and found ~= 'none' then
    return redis.error_reply('WRONGKEY ' .. KEYS[i] .. ' holds a ' .. found .. ' where Rollcall keeps a ' .. wanted)
  end
end
local may = redis.acl_check_cmd
if not (may('XADD', stream, '*', '', '') and may('XADD', dead, '*', '', '') and may('HSET', meta, '', '')) then
  return redis.error_reply('NOPERM XADD to ' .. stream .. ' and ' .. dead .. ' and HSET of ' .. meta .. ' are needed')
end

-- Halves of ids are whole numbers of up to 20 digits, more than a number of Lua holds.
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

local at = 4

local function take(n)
  local first = at
  at = at + n
  return unpack(ARGV, first, at - 1)
end

local field = 'from:' .. ARGV[1]
local last, new = call('HGET', meta, field) or '0-0', 0
while ARGV[at] do
  local id, entries = take(2)
  local is_new = less(last, id)
  for _ = 1, tonumber(entries) do
    local count = tonumber(take(1))
    if is_new then call('XADD', stream, '*', take(count)) else at = at + count end
  end
  for _ = 1, tonumber(take(1)) do
    local reason, detail, index, count = take(4)
    if is_new then
      call('XADD', dead, '*', 'entry_id', id, 'reason', reason, 'detail', detail, 'deliveries', 1, 'index', index,
        'stream', ARGV[2], take(tonumber(count)))
    else
      at = at + count
    end
  end
  if is_new then last, new = id, new + 1 end
end
if new > 0 then
  call('HSET', meta, field, last)
  call('XTRIM', dead, 'MAXLEN', ARGV[3])
end
return new

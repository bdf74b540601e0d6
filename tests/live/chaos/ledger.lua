-- What strangers do to the stream and its group. The same call records the entries that it removes, and whether the
-- cursor had passed them. The records are kept in the same server: if a server returns with the data of an earlier
-- time, or with none, its records are of that time, too.
--
-- KEYS  1 stream, 2 gone: id → passed or behind, its fields; 3 kept: id → the same of entries that Rollcall may trim;
--       4 base: entries added to streams that are gone, less those settled before the janitor's hash was deleted;
--       5 rollcall:meta, 6 rollcall:janitor
-- ARGV  1 group, 2 what is done, 3 how much or in which way
-- Returns how many entries it concerns, or -1 if there is no group for it just now.

local stream, gone, kept, base, meta, janitor = unpack(KEYS)
local group, what, argument = ARGV[1], ARGV[2], tonumber(ARGV[3])
local call = redis.call

-- Ids of a server's clock: both halves are small enough for numbers.
local function less(a, b)
  local a_ms, a_seq = string.match(a, '(%d+)-(%d+)')
  local b_ms, b_seq = string.match(b, '(%d+)-(%d+)')
  if a_ms ~= b_ms then return tonumber(a_ms) < tonumber(b_ms) end
  return tonumber(a_seq) < tonumber(b_seq)
end

local function fields(row)
  local info = {}
  for i = 1, #row, 2 do info[row[i]] = row[i + 1] end
  return info
end

local function own_group()
  if call('EXISTS', stream) == 0 then return nil end
  for _, row in ipairs(call('XINFO', 'GROUPS', stream)) do
    if fields(row).name == group then return fields(row) end
  end
end

local cursor = call('HGET', meta, 'cursor') or call('HGET', janitor, 'cursor') or '0-0'

local function note(key, entry)
  local text = { (less(cursor, entry[1]) and 'behind' or 'passed') .. ' ' }
  for _, part in ipairs(entry[2]) do text[#text + 1] = #part .. ':' .. part end
  call('HSET', key, entry[1], table.concat(text))
end

local blows = {}

-- Removes the oldest entries, passed or not.
function blows.trim()
  local length = call('XLEN', stream)
  local count = math.floor(length * argument / 1000)
  if count == 0 then return 0 end
  for _, entry in ipairs(call('XRANGE', stream, '-', '+', 'COUNT', count)) do note(gone, entry) end
  return call('XTRIM', stream, 'MAXLEN', length - count)
end

-- Removes every third of the newest entries.
function blows.delete()
  local count = 0
  for i, entry in ipairs(call('XREVRANGE', stream, '+', '-', 'COUNT', argument)) do
    if i % 3 == 1 then
      note(gone, entry)
      count = count + call('XDEL', stream, entry[1])
    end
  end
  return count
end

-- Removes the stream with its groups. 1: a new one begins with a smaller id; 2: and continues with greater ones; 3: and
-- somebody creates the group. That the stream is a new one shows in its number of added entries, if that was greater.
function blows.drop()
  if call('EXISTS', stream) == 0 then return 0 end
  local info, count = fields(call('XINFO', 'STREAM', stream)), 0
  for _, entry in ipairs(call('XRANGE', stream, '-', '+')) do
    note(gone, entry)
    count = count + 1
  end
  call('INCRBY', base, info['entries-added'])
  call('DEL', stream)
  if argument == 0 then return count end
  call('XADD', stream, '1000-' .. call('HLEN', gone) + 1, 'type', 'nonsense')
  if argument == 1 then return count end
  local ms = tonumber((string.match(info['last-generated-id'], '^%d+')))
  call('XSETID', stream, string.format('%.0f-0', math.max(ms, 1000) + 1)) -- no entry may have come before
  if argument == 3 and tonumber(call('HGET', meta, 'added') or 0) > 1 then call('XGROUP', 'CREATE', stream, group, '0') end
  return count
end

-- The last id jumps ahead.
function blows.advance()
  if call('EXISTS', stream) == 0 then return 0 end
  local last = fields(call('XINFO', 'STREAM', stream))['last-generated-id']
  local ms = tonumber((string.match(last, '^%d+')))
  call('XSETID', stream, string.format('%.0f-0', ms + argument))
  return 1
end

local function read_on()
  local got = call('XREADGROUP', 'GROUP', group, 'stranger', 'COUNT', argument, 'STREAMS', stream, '>')
  return got and got[1][2] or {}
end

-- Reads through the group without acknowledging: what is new, or everything again if nothing is.
function blows.read()
  local entries = read_on()
  if #entries > 0 then return #entries end
  call('XGROUP', 'SETID', stream, group, '0')
  return #read_on()
end

-- Reads what is new, and acknowledges it.
function blows.finish()
  local entries = read_on()
  for _, entry in ipairs(entries) do call('XACK', stream, group, entry[1]) end
  return #entries
end

-- Reads, and then deletes the consumer with what is pending for it.
function blows.forget()
  local count = blows.read()
  call('XGROUP', 'DELCONSUMER', stream, group, 'stranger')
  return count
end

-- Moves the group to this many thousandths of the stream.
function blows.set()
  local count = math.floor(call('XLEN', stream) * argument / 1000)
  local entries = call('XRANGE', stream, '-', '+', 'COUNT', math.max(count, 1))
  call('XGROUP', 'SETID', stream, group, count > 0 and entries[count][1] or '0')
  return 1
end

-- Removes the group. 1: and somebody creates it again at the beginning of the stream; 2: at its end.
function blows.destroy()
  call('XGROUP', 'DESTROY', stream, group)
  if argument > 0 then call('XGROUP', 'CREATE', stream, group, argument == 1 and '0' or '$') end
  return 1
end

-- Removes the settings, the owner and the cursor. 1: and the group.
function blows.unset()
  if argument == 1 then call('XGROUP', 'DESTROY', stream, group) end
  return call('DEL', meta)
end

-- Removes the janitor's copy of the cursor, and its sums.
function blows.untell()
  call('DECRBY', base, call('HGET', janitor, 'settled') or 0)
  return call('DEL', janitor)
end

-- Removes nothing, but records all entries, so that Rollcall may trim them.
function blows.keep()
  local entries = call('XRANGE', stream, '-', '+')
  for _, entry in ipairs(entries) do note(kept, entry) end
  return #entries
end

local of_group = { read = 1, finish = 1, forget = 1, set = 1, destroy = 1 }
if (of_group[what] or what == 'unset' and argument == 1) and not own_group() then return -1 end
return blows[what]()

-- Breaks the consumer group or the stream, and in the same call writes down what had become of the entries that
-- this concerns. The notes stand in the same server, so that a server that comes back with what it had some
-- time ago, or with nothing, has the notes of then.
--
-- KEYS  1 stream, 2 gone: id → what had become of it, its fields; 3 again: id → acknowledgements before a group
--       that reads it again; 4 dropped: ids that Redis took off the pending entries list, 5 the janitor's hash
-- ARGV  1 group, 2 trim, delete, forget, destroy, strand or drop, 3 how much
-- Returns how many entries it concerns, or -1 if it cannot be done just now: there is no group, say.

local stream, gone, again, dropped, janitor = unpack(KEYS)
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

local function named(rows, name)
  for _, row in ipairs(rows) do
    if fields(row).name == name then return fields(row) end
  end
end

if call('EXISTS', stream) == 0 then return -1 end
local info = named(call('XINFO', 'GROUPS', stream), group)
if not info then return -1 end
local last, pending = info['last-delivered-id'], {}
for _, row in ipairs(call('XPENDING', stream, group, '-', '+', 1000000)) do pending[row[1]] = row[2] end

local function fate(id)
  if less(last, id) then return 'undelivered' end
  if pending[id] then return 'pending' end
  if call('SISMEMBER', dropped, id) == 1 then return 'dropped' end
  return 'acknowledged'
end

local function note_gone(entry)
  local id = entry[1]
  local note = { fate(id) .. ' ' .. (call('HGET', again, id) or '-') .. ' ' }
  for _, text in ipairs(entry[2]) do note[#note + 1] = #text .. ':' .. text end
  call('HSET', gone, id, table.concat(note))
end

local blows = {}

-- The oldest entries, finished or not.
function blows.trim()
  local length = call('XLEN', stream)
  local count = math.floor(length * argument / 1000)
  if count == 0 then return 0 end
  for _, entry in ipairs(call('XRANGE', stream, '-', '+', 'COUNT', count)) do note_gone(entry) end
  return call('XTRIM', stream, 'MAXLEN', length - count)
end

-- Every third of the newest entries.
function blows.delete()
  local count = 0
  for i, entry in ipairs(call('XREVRANGE', stream, '+', '-', 'COUNT', argument)) do
    if i % 3 == 1 then
      note_gone(entry)
      count = count + call('XDEL', stream, entry[1])
    end
  end
  return count
end

-- The consumer for which the oldest entry is pending, with all that is.
function blows.forget()
  local first = call('XPENDING', stream, group, '-', '+', 1)[1]
  if not first then return 0 end
  for id, owner in pairs(pending) do
    if owner == first[2] then call('SADD', dropped, id) end
  end
  return call('XGROUP', 'DELCONSUMER', stream, group, first[2])
end

-- Leaves entries with a consumer that never comes back, as if delivered very often.
function blows.strand()
  for _ = 1, argument do
    local id = call('XADD', stream, '*', 'type', 'nonsense')
    call('XREADGROUP', 'GROUP', group, 'ghost', 'COUNT', 1, 'STREAMS', stream, '>')
    call('XCLAIM', stream, group, 'ghost', 0, id, 'IDLE', 5000, 'RETRYCOUNT', 20)
  end
  return argument
end

-- The group. The next one begins after what the janitor last saw finished.
function blows.destroy()
  local from = call('HGET', janitor, 'finished:' .. group)
  if not from or less(fields(call('XINFO', 'STREAM', stream))['last-generated-id'], from) then from = '0-0' end
  local count = 0
  for _, entry in ipairs(call('XRANGE', stream, '(' .. from, last)) do
    local id = entry[1]
    local acknowledged = fate(id) == 'acknowledged' and 1 or 0
    call('HINCRBY', again, id, acknowledged)
    call('SREM', dropped, id)
    count = count + acknowledged
  end
  call('XGROUP', 'DESTROY', stream, group)
  return count
end

-- The stream with all that is in it. Never in the millisecond of its last id, which the next stream would give again.
function blows.drop()
  local time = call('TIME')
  local now = time[1] * 1000 + math.floor(time[2] / 1000)
  if now <= tonumber(string.match(fields(call('XINFO', 'STREAM', stream))['last-generated-id'], '%d+')) then return -1 end
  local entries = call('XRANGE', stream, '-', '+')
  for _, entry in ipairs(entries) do note_gone(entry) end
  call('DEL', stream)
  return #entries
end

return blows[what]()

-- Cursor: who may move it, and moving it. The group's position is the cursor, published for all tools that look at
-- groups.

-- Refuses a call from a worker that no longer owns the partition, or whose batch does not follow the cursor. `from`
-- is the id that the batch follows, or '' if that does not matter. The second result is the time until which
-- activities are distrusted.
local function refuse_stranger(owner, term, fence, from)
  local found = call('HMGET', meta, 'epoch', 'owner', 'term', 'fence', 'cursor', 'activity_distrusted_until')
  local same = found[1] == ARGV[1] and found[2] == owner and found[3] == term and found[4] == fence
  if not same then return redis.error_reply('NOTOWNER the partition was taken over, or begun anew') end
  if from ~= '' and found[5] ~= from then
    return redis.error_reply('NOTOWNER the cursor is at ' .. tostring(found[5]) .. ', the batch follows ' .. from)
  end
  return nil, found[6]
end

local function is_there(id)
  return #call('XRANGE', stream, id, id) > 0
end

-- Refuses a batch of another stream than the current one. The cursor's own entry identifies the stream: Rollcall
-- never trims it. If others removed it, the stream's own figures decide. Returns the number of entries read if that
-- is known better than before.
local function refuse_other_stream(from)
  if from == '0-0' or is_there(from) then return nil end
  local info = stream_info()
  if is_other_stream(info, true, from) or was_set_back(info, from) then
    return redis.error_reply('NOTOWNER the stream was deleted and begun again, or its ids were set back')
  end
  return nil, count_read(info, from)
end

-- Moves the cursor past `count` entries that have had their effect. Everything that could fail came before. `read` is
-- the number of entries up to the cursor that were ever added, if it was just counted.
local function move_cursor(to, count, read)
  read = read or read_before
  local text = format('%d', read < 0 and -1 or read + count)
  call('HSET', meta, 'cursor', to)
  call('HSET', janitor, 'cursor', to, 'settled', format('%d', settled + count), 'read', text)
  call('XGROUP', 'SETID', stream, group, to, 'ENTRIESREAD', text)
end

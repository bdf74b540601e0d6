-- Cursor: whose call may move it, and moving it. The group's position is the cursor, published for all tools
-- that look at groups.

-- Refuses a call of who no longer owns the partition, or whose batch follows another entry than the cursor's.
-- `from` is that entry's id; '' where it does not matter. Returns the entries read, -1 where nobody can know.
local function refuse_stranger(owner, term, fence, from)
  local found = call('HMGET', meta, 'epoch', 'owner', 'term', 'fence', 'cursor', 'read')
  local same = found[1] == ARGV[1] and found[2] == owner and found[3] == term and found[4] == fence
  if not same then return redis.error_reply('NOTOWNER the partition was taken over, or begun anew') end
  if from ~= '' and found[5] ~= from then
    return redis.error_reply('NOTOWNER the cursor is at ' .. tostring(found[5]) .. ', the batch follows ' .. from)
  end
  return nil, tonumber(found[6]) or -1
end

-- Moves the cursor past `count` entries that have had their effect. All that could fail came before.
local function move(to, count, read)
  if read >= 0 then read = read + count end
  call('HSET', meta, 'cursor', to, 'read', string.format('%.0f', read))
  call('HSET', janitor, 'cursor', to, 'settled', string.format('%.0f', settled + count))
  call('XGROUP', 'SETID', stream, group, to, 'ENTRIESREAD', string.format('%.0f', read))
end

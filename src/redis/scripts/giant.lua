-- Giant: the second half of a transaction whose first half, a plain XADD, wrote a dead letter with more
-- fields than a script can pass to a command. Keeps it and acknowledges, or takes it back.
--
-- After the settings of common.lua: 11 the entry's id. Returns 1 if the letter was kept.

local id = ARGV[11]

-- The letter, if the first half wrote it: it begins with the pair `entry_id`.
local function letter()
  local last = call('XREVRANGE', dead, '+', '-', 'COUNT', 1)[1]
  if last and last[2][1] == 'entry_id' and last[2][2] == id then return last[1] end
end

local function take_back(reply)
  local own = is_type(dead, 'stream') and letter()
  if own then call('XDEL', dead, own) end
  return reply
end

local refused = wrong_shared_key()
if refused then return take_back(refused) end
if call('HGET', meta, 'epoch') ~= ARGV[1] then
  return take_back(redis.error_reply('STALEEPOCH the group was created anew since this entry was read'))
end
if #call('XPENDING', stream, group, id, id, 1) == 0 then return take_back(0) end
if not letter() then return redis.error_reply('WRONGKEY ' .. dead .. ' takes no more entries') end
call('XTRIM', dead, 'MAXLEN', dead_cap)
call('HDEL', suspects, id)
return settle(call('XACK', stream, group, id))

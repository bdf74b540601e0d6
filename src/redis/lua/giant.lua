-- Giant: the second half of a transaction whose first half, a plain XADD, wrote a dead letter with more
-- fields than a script can pass to a command. Keeps it and acknowledges, or takes it back.
--
-- After the settings of common.lua: 11 the entry's id. Returns 1 if the letter was kept.

local function take_back()
  local last = call('XREVRANGE', dead, '+', '-', 'COUNT', 1)[1]
  if last then call('XDEL', dead, last[1]) end
  return 0
end

local refused = wrong_shared_key()
if refused then return refused end
if call('HGET', meta, 'epoch') ~= ARGV[1] then
  take_back()
  return redis.error_reply('STALEEPOCH the group was created anew since this entry was read')
end
if #call('XPENDING', stream, group, ARGV[11], ARGV[11], 1) == 0 then return take_back() end
call('XTRIM', dead, 'MAXLEN', dead_cap)
call('HDEL', suspects, ARGV[11])
return call('XACK', stream, group, ARGV[11])

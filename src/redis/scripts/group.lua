-- Consumer: joins the group, says that it lives, leaves. Joining creates the group where there is none, and
-- holds the deployment to one set of settings.
--
-- After the settings of common.lua: 11 join, check or leave, 12 consumer; for join and check 13 state format,
-- 14 a random epoch, 15 n, then n × (setting, value).
-- join returns  { 'OK', epoch, id the group was created from or '' }  or  { 'DIFFERS', setting, stored, own }
-- check does the same for the settings alone, and joins nothing.
-- leave returns 1 if it left, 0 if something is pending for it, so that it has to stay.

local consumer = ARGV[12]

-- Writes what no one wrote yet. A deployment that gets a new setting gets a new epoch, so that those who
-- still hold to the old ones are refused.
local function agree_on_settings()
  local renewed = false
  local function agree(setting, own)
    local stored = call('HGET', meta, setting)
    if stored and stored ~= own then return { 'DIFFERS', setting, stored, own } end
    if not stored then
      call('HSET', meta, setting, own)
      renewed = true
    end
  end
  local differs = agree('format', ARGV[13])
  for i = 16, 15 + 2 * ARGV[15], 2 do differs = differs or agree(ARGV[i], ARGV[i + 1]) end
  return differs, renewed
end

-- Where a new group begins: after what the janitor last saw finished, if the state and the stream survived
-- their group. A stream that itself began anew, with lesser ids, has nothing finished in it.
local function beginning()
  local finished = call('HGET', janitor, 'finished:' .. group)
  if not finished or call('EXISTS', stream) == 0 then return '0-0' end
  local last = members(call('XINFO', 'STREAM', stream))['last-generated-id']
  return id_less(last, finished) and '0-0' or finished
end

local function check()
  local differs, renewed = agree_on_settings()
  if differs then return differs end
  if renewed then call('HSET', meta, 'epoch', ARGV[14]) end
  return { 'OK', '', '' }
end

local function join()
  local differs, renewed = agree_on_settings()
  if differs then return differs end
  local from = ''
  if not own_group() then
    from = beginning()
    call('XGROUP', 'CREATE', stream, group, from, 'MKSTREAM')
    renewed = true
  end
  if renewed or call('HEXISTS', meta, 'epoch') == 0 then call('HSET', meta, 'epoch', ARGV[14]) end
  call('XGROUP', 'CREATECONSUMER', stream, group, consumer)
  call('ZADD', consumers, now, consumer)
  return { 'OK', call('HGET', meta, 'epoch'), from }
end

local function leave()
  local own = try('XPENDING', stream, group, '-', '+', 1, consumer)
  if not own.err and #own > 0 then return 0 end
  try('XGROUP', 'DELCONSUMER', stream, group, consumer)
  call('ZREM', consumers, consumer)
  return 1
end

local refused = wrong_shared_key()
if refused then return refused end
return ({ join = join, check = check, leave = leave })[ARGV[11]]()

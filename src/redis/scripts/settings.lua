#!lua
-- Settings: makes these the deployment's. Processes with the old ones are refused from then on.
--
-- KEYS     1 the hash that holds them
-- ARGV     1 a random epoch, then names and values in turn
-- Returns  { name, before, … } of the settings that changed; nothing is written if none did, or if the hash has no
--          format
local changed = {}
if redis.call('HEXISTS', KEYS[1], 'format') == 0 then return changed end
for i = 2, #ARGV, 2 do
  local before = redis.call('HGET', KEYS[1], ARGV[i]) or ''
  if before ~= ARGV[i + 1] then
    changed[#changed + 1], changed[#changed + 2] = ARGV[i], before
  end
end
if #changed > 0 then redis.call('HSET', KEYS[1], 'epoch', unpack(ARGV)) end
return changed

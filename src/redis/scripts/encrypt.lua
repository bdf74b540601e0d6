#!lua
-- Encrypt: replaces a session's data by a token, if the data is still what was read. Its expiry stays.
--
-- KEYS     1 the session's data
-- ARGV     1 what was read, 2 the token
-- Returns  1 if it is done, 0 if the data has changed
local call = redis.call
if call('TYPE', KEYS[1]).ok ~= 'string' or call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
call('SET', KEYS[1], ARGV[2], 'KEEPTTL')
return 1

#!lua flags=no-writes,allow-stale
-- Rights: which commands this user may send. Each element of ARGV is one command, its words joined by tabs; it is
-- checked, not run. Returns 1 or 0 for each, or 2 if the server does not have the command. Words must make a whole
-- command: Redis 7.0 reads past the end of one that lacks its keys.

local allowed = {}
for i, command in ipairs(ARGV) do
  local words = {}
  for word in string.gmatch(command, '[^\t]+') do words[#words + 1] = word end
  local is_known, may = pcall(redis.acl_check_cmd, unpack(words))
  allowed[i] = is_known and (may and 1 or 0) or 2
end
return allowed

-- Merge: how the apply script handles each section of its arguments. `late` counts operations that had already
-- expired, `wrong` lists keys of another type.

local late, wrong, at

local function begin_merge()
  late, wrong, at = 0, {}, 9
end

local function section()
  local count = tonumber(ARGV[at])
  at = at + 1
  return count
end

local function take(count)
  local first = at
  at = at + count
  return unpack(ARGV, first, at - 1)
end

local function mark_wrong(key)
  wrong[#wrong + 1] = key
end

-- Whether a command found a key of another type; any other error ends the call.
local function is_wrong(reply)
  if type(reply) ~= 'table' or not reply.err then return false end
  if sub(reply.err, 1, 9) ~= 'WRONGTYPE' then error(reply) end
  return true
end

local function is_late(expires, count)
  if expires > now then return false end
  late = late + (count or 1)
  return true
end

-- The section's column of members begins at the returned position; what follows the column is at `at`.
local function column()
  local count = section()
  local first = at
  at = at + count
  return count, first
end

-- The time (thirteen digits) up to which a version with this lifetime has expired.
local function late_until(ttl)
  return format('%013d', math.max(0, now - ttl))
end

-- Merge: how the apply script handles each section of its arguments. `late` counts operations that had already
-- expired, `wrong` lists keys of another type.

local late, wrong
-- How many arguments are packed, and then the number of rows of each section; which section is in hand; all packed
-- values, and the position of the next one; the position of the next long value in ARGV.
local rows, section_at, args, at, long_at

-- One argument has all packed values but for a huge batch: unpacking takes a place on the stack for each.
local function unpack_sections()
  rows, args = { cmsgpack.unpack(ARGV[9]) }, { cmsgpack.unpack(ARGV[10]) }
  for i = 11, 9 + rows[1] do
    local more, n = { cmsgpack.unpack(ARGV[i]) }, #args
    for j = 1, #more do args[n + j] = more[j] end
  end
end

local function begin_merge()
  late, wrong, section_at, at, long_at = 0, {}, 1, 1, 10 + rows[1]
end

-- Goes on to the next section; returns the number of its rows.
local function section()
  section_at = section_at + 1
  return rows[section_at]
end

local function take(count)
  local first = at
  at = at + count
  return unpack(args, first, at - 1)
end

-- The position of the first of so many long values.
local function long(count)
  long_at = long_at + count
  return long_at - count
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

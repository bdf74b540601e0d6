-- Merge: online minutes, activity and presence entries.

local function merge_minute(key, expires, first, last)
  local fine, found = is_type(key, 'set')
  if not fine then error(redis.error_reply('WRONGKEY ' .. key .. ' holds a ' .. found .. ' where Rollcall keeps a set')) end
  if is_late(tonumber(expires)) then return end
  for from = first, last, CHUNK do
    call('SADD', key, unpack(args, from, math.min(from + CHUNK - 1, last)))
  end
  call('PEXPIREAT', key, expires)
end

-- Presence entries that must be compared with the stored ones: fields, values, and whether their user had no
-- activity.
local doubtful, doubtful_values, without_activity

-- Whether an older activity proves that a presence entry is the newest. After an activity was found that Rollcall did
-- not write, none does until the presence entries of that time have expired.
local distrusted_until, is_proof

-- Presence entries that are proven to be the newest: users; fields and values in turn.
local proven_users, proven

-- How many entries a call examines for users all of whose entries end; the janitor ends the rest.
local looks_left

local function begin_presence(stored_distrust)
  doubtful, doubtful_values, without_activity = {}, {}, {}
  proven_users, proven = {}, {}
  distrusted_until = tonumber(stored_distrust or 0)
  is_proof = distrusted_until <= now
  looks_left = 2000
end

local function doubt(field, value, is_absent)
  local n = #doubtful + 1
  doubtful[n], doubtful_values[n], without_activity[n] = field, value, is_absent
end

local function distrust_activity(t)
  local last = t + presence_ttl
  if last <= distrusted_until then return end
  distrusted_until = last
  call('HSET', meta, 'activity_distrusted_until', format('%d', last))
end

-- Restores a newer activity, and notes keys of another type. Returns true if the stored activity is older: the stored
-- presence is then older too and need not be read.
local function settle_activity(old, key, seconds, is_in_time)
  if is_wrong(old) then
    mark_wrong(key)
    distrust_activity(seconds * 1000 + 999)
    return false
  end
  if #old == 10 and old > seconds and not find(old, '%D') then
    call('SET', key, old, 'EXAT', old + activity_ttl)
    return false
  end
  return is_proof and is_in_time and #old == 10
end

-- Whether an entry that does not exist, or all of its user's entries, have already ended.
local function has_ended(field, t)
  if absent[presence_ended] then return false end
  for _, ended in ipairs(call('ZMSCORE', presence_ended, field, (place_of(field)))) do
    if ended and tonumber(ended) >= tonumber(t) then return true end
  end
  return false
end

-- `prove` takes an entry that is proven to be the newest, `write_proven` writes those that are left. Their own functions
-- are in a block, as a text has at most 200 locals outside of blocks.
local prove, write_proven
do
  -- How many are written together. With more, the index would be asked more often about entries that have not come.
  local TOGETHER = 16

  -- Notes that an entry has come, unless it had ended before.
  local function come(field, value)
    local t = version(value, LAST_SEEN)
    if has_ended(field, t) then return call('HDEL', presence, field) end
    presence_change('online', t, field)
  end

  -- Whether the index has an address among those of a user.
  local function is_listed(listed, field)
    if not listed then return false end
    if listed == CROWD then return call('ZSCORE', presence_crowds, field) end
    local _, address = place_of(field)
    return listed == address or find('|' .. listed .. '|', '|' .. address .. '|', 1, true)
  end

  -- The places of the proven entries that are not in the index of addresses, and how many those are.
  local function unlisted()
    local places, count = {}, 0
    local listed = lookup('HMGET', presence_addresses, proven_users, 1, #proven_users)
    for i = 1, #proven_users do
      if not is_listed(listed[i], proven[2 * i - 1]) then places[i], count = true, count + 1 end
    end
    return places, count
  end

  -- Some of the proven entries have come: the index knows which. If it contradicts, because others removed a part of the
  -- state, each of the others may have ended before, too.
  local function find_come(count)
    local places, known = {}, count
    if count < #proven_users then places, known = unlisted() end
    for i = 1, #proven_users do
      local field, value = proven[2 * i - 1], proven[2 * i]
      if count == #proven_users or places[i] then
        come(field, value)
      elseif known ~= count and has_ended(field, version(value, LAST_SEEN)) then
        call('HDEL', presence, field)
      end
    end
  end

  -- Entries that are proven to be the newest are written unread, several at a time. The reply says how many came.
  function write_proven()
    if #proven == 0 then return end
    local count = call('HSET', presence, unpack(proven))
    if count > 0 then find_come(count) end
    proven, proven_users = {}, {}
  end

  function prove(user, field, value)
    local n = #proven_users + 1
    proven_users[n], proven[2 * n - 1], proven[2 * n] = user, field, value
    if n == TOGETHER then write_proven() end
  end
end

-- Users last seen in the same second; the first of them with a presence entry of that second each. Nothing stored for
-- a user is newer than the activity, so if that is older, the presence entry is older too.
local function merge_activity(seconds, user_at, users, entry_at, entries, value_at)
  local expiry = format('%d000', seconds + activity_ttl)
  local is_kept = not is_late(tonumber(expiry), users)
  local is_in_time = seconds * 1000 + presence_ttl > now
  local outdone = {} -- many were last seen in the same few seconds: what was found of one holds for all
  for i = 0, users - 1 do
    local old, is_newer = nil, false
    if is_kept then
      local key = activity_of .. args[user_at + i]
      old = try('SET', key, seconds, 'PXAT', expiry, 'GET')
      if old then
        is_newer = outdone[old]
        if not is_newer and old ~= seconds then
          is_newer = settle_activity(old, key, seconds, is_in_time)
          outdone[old] = is_newer
        end
      end
    end
    if i < entries then
      local field, value = args[entry_at + i], ARGV[value_at + i]
      if is_newer then prove(args[user_at + i], field, value) else doubt(field, value, is_kept and not old) end
    end
  end
end

local function merge_seen()
  for _ = 1, section() do
    local key, expires, count, groups = take(4)
    local group_at, user_at = at, at + groups * 3
    local entry_at = user_at + count
    if key ~= '' then merge_minute(key, expires, user_at, entry_at - 1) end
    for _ = 1, groups do
      local seconds, users, entries = args[group_at], args[group_at + 1], args[group_at + 2]
      local value_at = long(entries)
      if seconds ~= '' then merge_activity(seconds, user_at, users, entry_at, entries, value_at) end
      group_at, user_at, entry_at = group_at + 3, user_at + users, entry_at + entries
    end
    at = entry_at
  end
  write_proven()
end

local function merge_present()
  for _ = 1, section() do
    doubt(take(1), ARGV[long(1)], false)
  end
  local stored, gone = lookup('HMGET', presence, doubtful, 1, #doubtful), late_until(presence_ttl)
  local writes, appeared, n = {}, {}, 0
  for i, field in ipairs(doubtful) do
    local value, old = doubtful_values[i], stored[i]
    local t, old_t = sub(value, LAST_SEEN, LAST_SEEN + 12), old and version(old, LAST_SEEN)
    if old and without_activity[i] and old_t > t then distrust_activity(old_t) end
    local wins
    if old then
      wins = t > old_t or t == old_t and greater_bytes(value, old)
    else
      wins = not has_ended(field, t)
    end
    if t <= gone then
      late = late + 1
    elseif wins then
      writes[n + 1], writes[n + 2] = field, value
      n = n + 2
      if not old then appeared[#appeared + 1] = i end
    end
  end
  with_all('HSET', presence, writes)
  for _, i in ipairs(appeared) do
    presence_change('online', version(doubtful_values[i], LAST_SEEN), doubtful[i])
  end
end

-- The presence fields of a user, from the index.
local function fields_of(user)
  local stored, name = call('HGET', presence_addresses, user), escape(user) .. '|'
  if stored == CROWD then return crowd(user, looks_left) end
  local fields = {}
  for address in string.gmatch(stored and stored .. '|' or '', '([^|]*)|') do fields[#fields + 1] = name .. address end
  return fields
end

local function end_present(field, t)
  local old = call('HGET', presence, field)
  if not old or version(old, LAST_SEEN) > t then return end
  call('HDEL', presence, field)
  presence_change('offline', t, field)
end

-- The ending is kept for as long as an older value may arrive; a newer value exists beside it.
local function end_presence()
  local gone = late_until(presence_ttl)
  for _ = 1, section() do
    local name, t = take(2)
    if t <= gone then
      late = late + 1
    else
      call('ZADD', presence_ended, 'GT', t, name)
      if place_of(name) then
        end_present(name, t)
      elseif looks_left > 0 then
        local fields = fields_of(unescape(name))
        looks_left = looks_left - #fields
        for _, field in ipairs(fields) do end_present(field, t) end
      end
    end
  end
end

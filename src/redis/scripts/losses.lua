-- Losses: entries that will never be applied, by a sum that has to come out. Of all entries that were ever
-- added, each is settled (applied or written off), pending, undelivered, or lost. The server gives the other
-- numbers at one instant, so whatever took an entry away, by whichever way, shows as a greater rest.
--
-- After the settings of common.lua: 11 look or claim, then
--   look   12 the last id that the caller saw. Returns { rewinds, added, last id, first id or '', entries,
--          1 if the seen id is there, entries lost since the last look, 1 if they were deleted, after which id }
--   claim  12 the number of a rewind. Returns 1 for the first who claims it, who has it to tell.

local function number(field)
  return tonumber(call('HGET', janitor, field) or 0)
end

local function digits(count)
  return string.format('%.0f', count)
end

-- The server's own count of what is undelivered is wrong after entries were deleted. Two cases are sure: all
-- was delivered, or nothing of what is there.
local function undelivered(own, first, last, entries)
  local delivered = own['last-delivered-id']
  if not first or not id_less(delivered, last) then return 0 end
  if id_less(delivered, first) then return entries end
end

-- Whether the missing entries were deleted, as opposed to dropped from what is pending. At the last look all up
-- to `since` was finished, or `since` was the first that was not.
local function were_deleted(info, first, since, was_idle)
  local deleted, trimmed = info['max-deleted-entry-id'], not first or id_less(since, first)
  if not was_idle then return trimmed or not id_less(deleted, since) end
  return id_less(since, deleted) or trimmed and info.length < info['entries-added'] - number('counted')
end

-- Another stream took the place of the one that was looked at last, while the state stayed: the sum goes on.
local function follow(added)
  local before = number('added')
  if added < before then
    if call('HEXISTS', janitor, 'lost') == 1 then call('HSET', janitor, 'lost', digits(number('lost') - before)) end
    call('HINCRBY', janitor, 'rewinds', 1)
  end
  call('HSET', janitor, 'added', digits(added))
end

-- Draws up the sum where it can be; returns how many entries are missing since the last time, and whether they
-- were deleted. A sum that shrinks is no loss: a group that began anew is given entries a second time.
local function draw_up(info, own, first, open)
  local rest = info['entries-added'] - number('settled') - own.pending - open
  local lost, since = tonumber(call('HGET', janitor, 'lost')), call('HGET', janitor, 'unfinished')
  local missing = lost and math.max(rest - lost, 0) or 0
  local deleted = missing > 0 and were_deleted(info, first, since, call('HGET', janitor, 'idle') == '1')
  local oldest = oldest_unfinished(own)
  call('HSET', janitor, 'lost', digits(rest), 'counted', digits(info['entries-added']), 'idle', oldest and 0 or 1,
    'unfinished', oldest or info['last-generated-id'])
  return missing, deleted
end

local function look()
  local info = { ['entries-added'] = 0, length = 0, ['last-generated-id'] = '0-0' }
  if call('EXISTS', stream) == 1 then info = members(call('XINFO', 'STREAM', stream)) end
  local first = info['first-entry'] and info['first-entry'][1]
  local last = info['last-entry'] and info['last-entry'][1]
  local since = call('HGET', janitor, 'unfinished') or ''
  follow(info['entries-added'])
  local own, missing, deleted = own_group(), 0, false
  local open = own and undelivered(own, first, last, info.length)
  if open then missing, deleted = draw_up(info, own, first, open) end
  local is_there = #call('XRANGE', stream, ARGV[12], ARGV[12]) > 0
  return { number('rewinds'), digits(info['entries-added']), info['last-generated-id'], first or '', info.length,
    is_there and 1 or 0, digits(missing), deleted and 1 or 0, since }
end

local function claim()
  if number('rewinds') >= tonumber(ARGV[12]) then return 0 end
  call('HSET', janitor, 'rewinds', ARGV[12])
  return 1
end

local refused = wrong_shared_key()
if refused then return refused end
return ({ look = look, claim = claim })[ARGV[11]]()

-- Losses: entries that will never be applied, found by a balance. Of all entries that were ever added, each is
-- settled (applied or written off), behind the cursor, or lost. The server gives the other numbers at one instant, so
-- every entry that was removed increases the remainder.
--
-- After the settings of common.lua: 3 look or claim, then
--   look   4 the last id that the caller saw. Returns { rewinds, added, last id, first id or '', entries,
--          1 if the seen id is there, entries lost since the last look, after which id }
--   claim  4 the number of a rewind. Returns 1 for the first caller, who reports it.

local function number(field)
  return tonumber(call('HGET', janitor, field) or 0)
end

local function digits(count)
  return format('%d', count)
end

-- The number of entries behind the cursor, if it is certain: there are none, or none of those in the stream was read.
local function behind(cursor, first, last, entries)
  if not first or not id_less(cursor, last) then return 0 end
  if id_less(cursor, first) then return entries end
end

-- If another stream took the place of the previous one while the state stayed, the balance continues.
local function follow(added)
  local before = number('added')
  if added < before then
    if call('HEXISTS', janitor, 'lost') == 1 then call('HSET', janitor, 'lost', digits(number('lost') - before)) end
    call('HINCRBY', janitor, 'rewinds', 1)
  end
  call('HSET', janitor, 'added', digits(added))
end

-- Computes the balance if possible; returns how many entries were lost since the last time. A remainder that shrinks
-- is not a loss: a cursor that began again passes entries a second time.
local function draw_up(info, cursor, open)
  local rest = info['entries-added'] - settled - open
  local lost = tonumber(call('HGET', janitor, 'lost'))
  call('HSET', janitor, 'lost', digits(rest), 'unfinished', first_after(cursor) or info['last-generated-id'])
  return lost and math.max(rest - lost, 0) or 0
end

local function look()
  local info = { ['entries-added'] = 0, length = 0, ['last-generated-id'] = '0-0' }
  if call('EXISTS', stream) == 1 then info = members(call('XINFO', 'STREAM', stream)) end
  local first = info['first-entry'] and info['first-entry'][1]
  local last = info['last-entry'] and info['last-entry'][1]
  local since = call('HGET', janitor, 'unfinished') or ''
  follow(info['entries-added'])
  local cursor, missing = call('HGET', meta, 'cursor'), 0
  local open = cursor and behind(cursor, first, last, info.length)
  if open then missing = draw_up(info, cursor, open) end
  local is_there = #call('XRANGE', stream, ARGV[4], ARGV[4]) > 0
  return { number('rewinds'), digits(info['entries-added']), info['last-generated-id'], first or '', info.length,
    is_there and 1 or 0, digits(missing), since }
end

local function claim()
  if number('rewinds') >= tonumber(ARGV[4]) then return 0 end
  call('HSET', janitor, 'rewinds', ARGV[4])
  return 1
end

local function run()
  return wrong_shared_key() or ({ look = look, claim = claim })[ARGV[3]]()
end

-- Position: whether the stream is still the one that the cursor belongs to, and how many entries are behind it.

local function stream_info()
  if call('EXISTS', stream) == 0 then return { length = 0, ['last-generated-id'] = '0-0', ['entries-added'] = 0 } end
  return members(call('XINFO', 'STREAM', stream))
end

-- Whether ids were set back below the cursor (XSETID). The server allows that only after the entries from there on
-- were deleted.
local function was_set_back(info, cursor)
  local deleted = info['max-deleted-entry-id']
  return id_less(info['last-generated-id'], cursor) and deleted and not id_less(deleted, cursor)
end

-- The position of the cursor in a stream whose ids were set back: before as many of the last entries as were not
-- read.
local function before_unread(info)
  local read = tonumber(call('HGET', janitor, 'read') or -1)
  local unread = read >= 0 and info['entries-added'] - read or info.length
  if unread <= 0 then return info['last-generated-id'] end
  if unread > CHUNK then return '0-0' end
  local last = call('XREVRANGE', stream, '+', '-', 'COUNT', unread + 1)
  return last[unread + 1] and last[unread + 1][1] or '0-0'
end

-- A stream that was deleted and begun again has smaller figures than recorded, or it lost the group and everything
-- that the cursor knows.
local function is_other_stream(info, own, cursor)
  local seen = call('HMGET', meta, 'last_id', 'added')
  local last = info['last-generated-id']
  local is_smaller = seen[1] and (id_less(last, seen[1]) or info['entries-added'] < tonumber(seen[2]))
  if not is_smaller and not id_less(last, cursor) and (own or cursor == '0-0') then return false end
  return #call('XRANGE', stream, cursor, cursor) == 0 and not was_set_back(info, cursor)
end

local function taken_from(info)
  return format('%d', info['entries-added'] - info.length)
end

-- The number of entries up to the cursor that were ever added, so that the server computes the right lag. It is
-- certain if none or all of the entries in the stream are behind the cursor, or if nobody removed entries ahead of
-- the cursor since the last look. -1 if it cannot be known.
local function count_read(info, cursor)
  local first = info['first-entry'] and info['first-entry'][1]
  local last = info['last-entry'] and info['last-entry'][1]
  if not last or not id_less(cursor, last) then return info['entries-added'] end
  if id_less(cursor, first) then return info['entries-added'] - info.length end
  local seen, deleted = call('HMGET', janitor, 'read', 'taken', 'deleted', 'looked'), info['max-deleted-entry-id']
  if not seen[4] then return -1 end
  local may_be_ahead = id_less(seen[4], first) or deleted and deleted ~= seen[3] and id_less(seen[4], deleted)
  if seen[2] ~= taken_from(info) and may_be_ahead then return -1 end
  return tonumber(seen[1]) or -1
end

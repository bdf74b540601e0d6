-- Queries about the stream and the groups that read it.

local GREATEST_ID = '18446744073709551615-18446744073709551615'

local function members(row)
  local info = {}
  for i = 1, #row, 2 do info[row[i]] = row[i + 1] end
  return info
end

local function groups()
  if call('EXISTS', stream) == 0 then return {} end
  local list = {}
  for i, row in ipairs(call('XINFO', 'GROUPS', stream)) do list[i] = members(row) end
  return list
end

local function own_group()
  for _, info in ipairs(groups()) do
    if info.name == group then return info end
  end
end

-- The first entry after an id.
local function first_after(id)
  if id == GREATEST_ID then return nil end
  local entry = call('XRANGE', stream, '(' .. id, '+', 'COUNT', 1)[1]
  return entry and entry[1]
end

-- The oldest entry that another group has not finished: its first pending one, or its first undelivered one.
local function oldest_unfinished(info)
  if info.pending > 0 then return call('XPENDING', stream, info.name)[2] end
  return first_after(info['last-delivered-id'])
end

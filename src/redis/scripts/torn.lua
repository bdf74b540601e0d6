-- Torn: the joined users are stored in two structures that exist only together. If others removed one of them, the
-- number of a user's connections is unknown: all users leave, and are back with their next event.

-- Removes up to `limit` of what is left of the two, in a call of its own; returns whether there was any, and whether
-- there is more.
local function mend_documents(limit)
  if absent[docs_joined] == absent[docs_connections] then return false, false end

  local function put_out(member)
    local part = parts(member)
    local doc, user = part[1], part[2]
    local key = document_of .. doc .. ':users'
    need_document_rights(doc)
    if is_type(key, 'set') and call('SREM', key, user) == 1 then document_change('document_left', now, user, doc) end
  end

  if absent[docs_connections] then
    local members = call('ZRANGE', docs_joined, 0, limit - 1)
    for _, member in ipairs(members) do
      put_out(member)
      call('ZREM', docs_joined, member)
    end
    repaired('joined', docs_connections, #members)
    return true, call('EXISTS', docs_joined) == 1
  end

  local reply = call('HSCAN', docs_connections, call('HGET', janitor, 'cursor:torn') or '0', 'COUNT', limit)
  for i = 1, #reply[2], 2 do
    put_out(reply[2][i])
    call('HDEL', docs_connections, reply[2][i])
  end
  if #reply[2] > 0 then repaired('joined', docs_joined, #reply[2] / 2) end
  local more = call('EXISTS', docs_connections) == 1
  if more then call('HSET', janitor, 'cursor:torn', reply[1]) else call('HDEL', janitor, 'cursor:torn') end
  return true, more
end

-- Merge: connections to documents.

local checked_docs

local function begin_documents()
  checked_docs = {}
end

local function is_document(doc)
  if checked_docs[doc] == nil then
    checked_docs[doc] = true
    for suffix, kind in pairs({ [':users'] = 'set', [':count'] = 'string' }) do
      local key = document_of .. doc .. suffix
      if not is_type(key, kind) then
        mark_wrong(key)
        checked_docs[doc] = false
      end
    end
  end
  return checked_docs[doc]
end

-- All joins come before all leaves, so a user who only changes connections never counts as gone.
local function merge_joined()
  local count = section()
  if count > 0 then need_document_rights(args[at], true) end
  for _ = 1, count do
    local doc, user, connection, t = take(4)
    local member = escape(doc) .. '|' .. escape(user) .. '|' .. escape(connection)
    if is_document(doc) and not is_late(t + document_ttl) then
      local left = tonumber(call('ZSCORE', docs_left, member) or 0)
      local joined = call('ZSCORE', docs_joined, member)
      if tonumber(t) > left then
        if left > 0 then call('ZREM', docs_left, member) end
        if joined then
          call('ZADD', docs_joined, 'GT', t, member)
        else
          join_connection(doc, user, member, t)
        end
      end
    end
  end
end

local function merge_left()
  local count = section()
  if count > 0 then need_document_rights(args[at]) end
  for _ = 1, count do
    local doc, user, connection, t = take(4)
    local member = escape(doc) .. '|' .. escape(user) .. '|' .. escape(connection)
    if is_document(doc) and not is_late(t + document_ttl) then
      local joined = call('ZSCORE', docs_joined, member)
      if not joined or tonumber(joined) <= tonumber(t) then
        call('ZADD', docs_left, 'GT', t, member)
        drop_connection(doc, user, member, t)
      end
    end
  end
end

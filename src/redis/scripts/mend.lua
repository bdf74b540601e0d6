-- Mend: repairs single members of the state, for the owner of the partition, who found them wrong at this cursor.
-- What appears and disappears is recorded like any other change.
--
-- After the settings of common.lua: 3 owner, 4 term, 5 fence, 6 the cursor at which they were found wrong. Then
-- deeds, each its name, the number of its words, and the words:
--   unseen key user | forget key | expire key ms | unset hash field | unscore zset member
--   score zset member score | holder token user t | token token | absent field | session sid | data sid
--   entry sid value | unjoin doc user member | rejoin member t | joined doc user n | recount doc
-- Returns the number of deeds.

local deeds = {}

function deeds.unseen(key, user)
  if is_type(key, 'set') then call('SREM', key, user) end
end

function deeds.forget(key)
  if is_type(key, 'string') then call('UNLINK', key) end
end

function deeds.expire(key, ms) call('PEXPIREAT', key, ms) end
function deeds.unset(key, field) call('HDEL', key, field) end
function deeds.unscore(key, member) call('ZREM', key, member) end

function deeds.score(key, member, score)
  local kind = is_type(key, 'zset')
  if kind then call('ZADD', key, score, member) end
end

function deeds.holder(token, user, t)
  call('HSET', login, token, user)
  change('login', t, 'user', user, 'token', token)
end

function deeds.token(token) drop_token(token, now) end

function deeds.absent(field)
  if call('HDEL', presence, field) == 1 then presence_change('offline', now, field) end
end

function deeds.session(sid)
  local old = call('HGET', sessions, sid)
  if not old then return end
  call('HDEL', sessions, sid)
  change('session_ended', now, 'user', user_of(old), 'sid', sid)
end

function deeds.data(sid)
  call('HDEL', session_versions, sid)
  deeds.forget(session_data_of .. sid)
end

function deeds.entry(sid, value) call('HSET', sessions, sid, value) end

function deeds.unjoin(doc, user, member)
  need_document_rights(doc)
  drop_connection(doc, user, member, now)
end

function deeds.rejoin(member, t) call('ZADD', docs_joined, t, member) end

function deeds.recount(doc)
  local records = touched_docs[doc] or {}
  records.at = math.max(records.at or 0, now)
  touched_docs[doc] = records
end

-- The number of a user's connections to a document.
function deeds.joined(doc, user, count)
  local key, pair = document_of .. doc .. ':users', escape(doc) .. '|' .. escape(user)
  if not is_type(key, 'set') then return end
  need_document_rights(doc, count ~= '0')
  if count == '0' then
    call('HDEL', docs_connections, pair)
    if call('SREM', key, user) == 1 then document_change('document_left', now, user, doc) end
  else
    call('HSET', docs_connections, pair, count)
    if call('SADD', key, user) == 1 then document_change('document_joined', now, user, doc) end
  end
  deeds.recount(doc)
end

local function run()
  local stranger = refuse_stranger(ARGV[3], ARGV[4], ARGV[5], ARGV[6])
  if stranger then return stranger end
  local refused = wrong_shared_key() or wrong_seq()
  if refused then return refused end
  local at, done = 7, 0
  while ARGV[at] do
    local first = at + 2
    at = first + ARGV[at + 1]
    deeds[ARGV[first - 2]](unpack(ARGV, first, at - 1))
    done = done + 1
  end
  count_documents()
  write_changes()
  index_addresses()
  return done
end

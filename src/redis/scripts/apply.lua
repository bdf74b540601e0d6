-- Apply: merges a folded batch into the state, records what changed, acknowledges last. One atomic call.
--
-- After the settings of common.lua, ARGV[11] names the entry that is tried alone ('' usually). Then
-- sections in a fixed order, each a count followed by that many rows; what stands before a semicolon is a
-- column of its own, so that it can be passed to a command as it is:
--   seen      a minute each: key ('' if none is kept), expiry ms, n, groups; groups of seconds ('' if that is
--             not kept), users, entries; n users by group; presence entries by group: field, value
--   present   field, value: last writer wins | ended: field, or a user as fields begin with it, t
--   tokens    tokens; rows of user, score, 2n, n × (score, item) | ended: token, entry ms, t
--   ttls      sid, t, seconds: lifetimes of their own
--   touched   sids; values | data: sids; rows of t, data | ended: sid, entry ms, t
--   joined    doc, user, connection, t | left: the same
--   ids       acknowledged | items: item, n, n ids | packed: id, n, n × (item, count)
-- Returns  { acknowledged, late, changes dropped, letters, letters dropped, { kind of change, count, … } }
--   or     { 'WRONGTYPE', key … }: all other keys are merged, nothing is acknowledged.

-- ---- letters are read first: whether an entry is still pending is asked before anything is written

local pending = {}
local function deliveries(id)
  if pending[id] == nil then
    local found = call('XPENDING', stream, group, id, id, 1)[1]
    pending[id] = found and found[4] or false
  end
  return pending[id]
end

local function write_letters(letters)
  local written = 0
  for _, letter in ipairs(letters) do
    local id, reason, detail, index, fields = unpack(letter)
    if deliveries(id) then
      call('XADD', dead, '*', 'entry_id', id, 'reason', reason, 'detail', detail, 'deliveries', deliveries(id),
        'index', index, 'stream', stream, unpack(fields))
      written = written + 1
    end
  end
  if written == 0 then return 0, 0 end
  return written, call('XTRIM', dead, 'MAXLEN', dead_cap)
end

local function read_letters()
  local letters = {}
  for i = 1, section() do
    local id, reason, detail, index, count = take(5)
    letters[i] = { id, reason, detail, index, { take(count * 2) } }
    deliveries(id)
  end
  return letters
end

-- ---- acknowledging: nothing after it can fail, and only counts follow it: the ranking, what is settled

local function acknowledge_ids()
  local count, acknowledged = section(), 0
  local last = at + count - 1
  for first = at, last, CHUNK do
    acknowledged = acknowledged + call('XACK', stream, group, unpack(ARGV, first, math.min(first + CHUNK - 1, last)))
  end
  at = last + 1
  return acknowledged
end

-- Entries that are one view of the same item: how many were mine is how many views to count.
local function acknowledge_items()
  local acknowledged = 0
  for _ = 1, section() do
    local item, count = take(2)
    local mine, last = 0, at + count - 1
    for first = at, last, CHUNK do
      mine = mine + call('XACK', stream, group, unpack(ARGV, first, math.min(first + CHUNK - 1, last)))
    end
    at = last + 1
    if mine > 0 then call('ZINCRBY', viewed, mine, item) end
    acknowledged = acknowledged + mine
  end
  return acknowledged
end

local function acknowledge_packed()
  local acknowledged = 0
  for _ = 1, section() do
    local id, count = take(2)
    local mine = call('XACK', stream, group, id)
    for i = at, at + count * 2 - 1, 2 do
      if mine == 1 then call('ZINCRBY', viewed, ARGV[i + 1], ARGV[i]) end
    end
    at = at + count * 2
    acknowledged = acknowledged + mine
  end
  return acknowledged
end

-- ---- the call

if call('HGET', meta, 'epoch') ~= ARGV[1] then
  return redis.error_reply('STALEEPOCH the group was created anew since this batch was read')
end
-- Three rights are asked for beforehand: what needs them comes when the state is written already, or the
-- entries are acknowledged.
local function missing_right()
  local may = redis.acl_check_cmd
  if not (may('XADD', changes, '*', 'kind', '') and may('ZINCRBY', viewed, 1, '') and may('HINCRBY', janitor, '', 1)) then
    return redis.error_reply('NOPERM XADD to ' .. changes .. ', ZINCRBY of ' .. viewed .. ' and HINCRBY of '
      .. janitor .. ' are needed')
  end
end

-- Users that a call puts out of documents at most, where others took half of who is joined.
local MEND = 500

local refused = wrong_shared_key() or wrong_seq() or missing_right()
if refused then return refused end
if mend_documents(MEND) then
  count_documents()
  write_changes()
  return redis.error_reply('TORN half of who is joined was taken: all leave their documents first')
end

local letters = read_letters()

-- Should a merge fail in spite of all, the changes of those that were done are recorded all the same: a
-- change is noted after its write. Nothing is acknowledged then.
local merged, fault = pcall(function()
  merge_seen()
  merge_present()
  end_presence()
  merge_tokens()
  end_tokens()
  read_ttls()
  merge_touched()
  merge_data()
  end_sessions()
  merge_joined()
  merge_left()
end)
count_documents()
local changes_dropped, kinds = write_changes()
index_addresses() -- what it fails to write a janitor finds
if not merged then
  -- pcall() hands out the text of a command's error, which begins with its code.
  local text = type(fault) == 'table' and fault.err or tostring(fault)
  return redis.error_reply(find(text, '^%u+ ') and text or 'ERR the script failed: ' .. text)
end
if #wrong > 0 then return { 'WRONGTYPE', unpack(wrong, 1, math.min(#wrong, CHUNK)) } end
local written, letters_dropped = write_letters(letters)
if ARGV[11] ~= '' then call('HDEL', suspects, ARGV[11]) end
local acknowledged = settle(acknowledge_ids() + acknowledge_items() + acknowledge_packed())
return { acknowledged, late, changes_dropped, written, letters_dropped, kinds }

-- Apply: merges a folded batch into the state, records what changed, and moves the cursor last. One atomic call.
--
-- After the settings of common.lua: 3 owner, 4 term, 5 fence, 6 the cursor that the batch follows, 7 where it
-- goes: the batch's last entry, 8 how many entries that are; then as MessagePack values 9 how many arguments with rows
-- follow, and the number of rows of each section below; from 10 on the rows. Counts are numbers, all else is text. What
-- stands before a semicolon is a column of its own, so that it can be passed to a command as it is. Values in *stars*
-- may be long, and are the last arguments, in the same order:
--   seen      a minute each: key ('' if none is kept), expiry ms, n, groups; groups of seconds ('' if that is
--             not kept), users, entries; n users by group; presence entries by group: field, *value*
--   present   field, *value*: last writer wins | ended: field, or a user as fields begin with it, t
--   tokens    tokens; rows of user, score, 2n, n × (score, item) | ended: token, entry ms, t
--   ttls      sid, t, seconds: lifetimes of their own
--   touched   sids; *values* | data: sids; where there are any: 1 if they are tokens, else 0; rows of t, *data*, of a
--             token also *the stored value of the same time that it wins over*, '' if none is known
--             | ended: sid, entry ms, t
--   joined    doc, user, connection, t | left: the same
--   letters   entry id, reason, detail, index, n, n × *(name, value)*
--   viewed    item, views
-- Returns  { late, changes dropped, letters, letters dropped, { kind of change, count, … } }
--   or     { 'WRONGTYPE', key … }: all other keys are merged, the cursor stays.
--   or     { 'TIED', sid … }: the same; the worker must compare the data of these sessions, which has the same time.

-- ---- the tail: what is not idempotent is done in the call that moves the cursor, where nothing can fail

local function write_letters()
  local count = section()
  for _ = 1, count do
    local id, reason, detail, index, pairs = take(5)
    local first = long(pairs * 2)
    call('XADD', dead, '*', 'entry_id', id, 'reason', reason, 'detail', detail, 'deliveries', 1, 'index', index,
      'stream', stream, unpack(ARGV, first, long_at - 1))
  end
  if count == 0 then return 0, 0 end
  return count, call('XTRIM', dead, 'MAXLEN', dead_cap)
end

local function count_views()
  for _ = 1, section() do
    local item, count = take(2)
    call('ZINCRBY', viewed, count, item)
  end
end

-- ---- the call

-- Rights that would be needed only after the state is written.
local function missing_right()
  local may = redis.acl_check_cmd
  local fine = may('XADD', changes, '*', 'kind', '') and may('ZINCRBY', viewed, '1', '') and may('XADD', dead, '*', '', '')
    and may('XTRIM', dead, 'MAXLEN', '1') and may('HSET', janitor, '', '')
    and may('XGROUP', 'SETID', stream, group, '0', 'ENTRIESREAD', '0')
  if not fine then
    return redis.error_reply('NOPERM XADD to ' .. changes .. ' and ' .. dead .. ', ZINCRBY of ' .. viewed .. ', HSET of '
      .. janitor .. ' and XGROUP SETID of ' .. stream .. ' are needed')
  end
end

-- How many users a call removes from documents at most, if others removed half of the joined connections.
local MEND = 500

-- Nothing is written without the group, or for a batch of another stream than this one. The cursor's entry identifies
-- the stream; without it the batch's last entry does. An entry that was deleted after it was read has its effect, as if
-- it had been deleted just after. Returns the number of entries read, if that is known better than before.
local function refuse_stream(from, to)
  local in_group = try('XPENDING', stream, group)
  if in_group.err then return in_group end
  if from ~= '0-0' and is_there(from) then return nil end
  if to ~= from and not is_there(to) then
    return redis.error_reply('NOTOWNER the entry ' .. to .. ' is not in the stream any more; the batch is read again')
  end
  return refuse_other_stream(from)
end

local function merge()
  merge_seen()
  merge_present()
  end_presence()
  merge_tokens()
  end_tokens()
  read_ttls()
  merge_touched()
  merge_data()
  move_expiries()
  end_sessions()
  merge_joined()
  merge_left()
end

local function run()
  local from, to = ARGV[6], ARGV[7]
  local stranger, distrusted = refuse_stranger(ARGV[3], ARGV[4], ARGV[5], from)
  if stranger then return stranger end
  unpack_sections()
  local refused = wrong_shared_key() or wrong_seq() or missing_right()
  if refused then return refused end
  local other, read = refuse_stream(from, to)
  if other then return other end
  if mend_documents(MEND) then
    count_documents()
    write_changes()
    return redis.error_reply('TORN half of who is joined was taken: all leave their documents first')
  end

  begin_merge()
  begin_presence(distrusted)
  begin_sessions()
  begin_documents()
  -- If a merge still fails, the changes of those that were done are still recorded, since a change is noted
  -- after its write. The cursor then stays.
  local merged, fault = pcall(merge)
  count_documents()
  local changes_dropped, kinds = write_changes()
  index_addresses() -- what it fails to write a janitor finds
  if not merged then
    -- pcall() returns the text of a command's error, which begins with its code.
    local text = type(fault) == 'table' and fault.err or tostring(fault)
    return redis.error_reply(find(text, '^%u+ ') and text or 'ERR the script failed: ' .. text)
  end
  if #wrong > 0 then return { 'WRONGTYPE', unpack(wrong, 1, math.min(#wrong, CHUNK)) } end
  if #tied > 0 then return { 'TIED', unpack(tied, 1, math.min(#tied, CHUNK)) } end
  local written, letters_dropped = write_letters()
  count_views()
  move_cursor(to, tonumber(ARGV[8]), read)
  return { late, changes_dropped, written, letters_dropped, kinds }
end

#!lua
-- Repartition: pauses a layout, moves members that belong elsewhere, and switches to another layout. All keys are on
-- one server. Each call is atomic and can be repeated at any time.
--
-- ARGV     1 what, then
--   pause    2 the move `from:to`, 3 source, 4 a random text. Nobody applies or sweeps there any more. Returns the move
--            that is recorded there; nothing if the deployment does not have that many partitions
--   move     2 the move, 3 source, 4 kind, 5 name, then rows of three: member, target, the document where the kind has
--            one. Source and target are what their keys begin with. Returns how many members there were
--   letters  2 the move, 3 source, 4 target, 5 how many. Returns how many it moved
--   switch   2 the move, 3 any source, 4 what is forwarded from before, 5 a random text, 6 n, n × (setting, value), then
--            bases: n, n new ones; n, n that stay; n, n that end. Returns targets of notifiers in turn with how many
--            changes were not sent to them
-- The last three return nothing, and do nothing, if the source is no longer paused for the move: another run was faster.
local call = redis.call
local byte, match, max, min = string.byte, string.match, math.max, math.min

-- `<` on strings follows the locale.
local function greater(a, b)
  for i = 1, min(#a, #b) do
    local x, y = byte(a, i), byte(b, i)
    if x ~= y then return x > y end
  end
  return #a > #b
end

local function pause(meta, move, fresh)
  local stands, partitions = unpack(call('HMGET', meta, 'moving', 'partitions'))
  if partitions and partitions ~= match(move, '^%d+') then return false end
  if stands then return stands end
  call('HSET', meta, 'moving', move, 'epoch', fresh, 'fence', fresh, 'owner', '', 'heir', '')
  call('HDEL', meta, 'ask', 'named')
  return move
end

-- ---- moving: if both places have a value, the merge rules decide

local function move_field(from, to, member)
  local value = call('HGET', from, member)
  if not value then return 0 end
  local there = call('HGET', to, member)
  if not there or greater(value, there) then call('HSET', to, member, value) end
  return call('HDEL', from, member)
end

local function move_score(from, to, member)
  local score = call('ZSCORE', from, member)
  if not score then return 0 end
  call('ZADD', to, 'GT', score, member)
  return call('ZREM', from, member)
end

local function move_key(from, to)
  if call('EXISTS', from) == 1 and call('RENAMENX', from, to) == 0 then return false end
  return true
end

local movers = {}

function movers.field(from, to, name, member) return move_field(from .. name, to .. name, member) end
function movers.score(from, to, name, member) return move_score(from .. name, to .. name, member) end

-- An ending that may concern any partition.
function movers.copy(from, to, name, member)
  local score = call('ZSCORE', from .. name, member)
  if score then call('ZADD', to .. name, 'GT', score, member) end
  return score and 1 or 0
end

function movers.count(from, to, name, member)
  local score = call('ZSCORE', from .. name, member)
  if not score then return 0 end
  call('ZINCRBY', to .. name, score, member)
  return call('ZREM', from .. name, member)
end

-- A member of a set that expires.
function movers.member(from, to, name, member)
  if call('SREM', from .. name, member) == 0 then return 0 end
  call('SADD', to .. name, member)
  return 1
end

-- A set with a key of its own, as a whole.
function movers.set(from, to, name, member)
  local source, target = from .. name .. member, to .. name .. member
  if call('EXISTS', source) == 0 then return 0 end
  if not move_key(source, target) then
    call('SUNIONSTORE', target, target, source)
    call('UNLINK', source)
  end
  return 1
end

-- A text with an expiry: of two with the same length the greater one stays.
function movers.text(from, to, name, member)
  local source, target = from .. name .. member, to .. name .. member
  local value, there = call('GET', source), call('GET', target)
  if not value then return 0 end
  if not there or greater(value, there) then call('RENAME', source, target) else call('UNLINK', source) end
  return 1
end

-- A token: its holder by the latest use, its score, its viewed items.
function movers.token(from, to, _, token)
  local user, there = call('HGET', from .. 'login:', token), call('HGET', to .. 'login:', token)
  if not user then return 0 end
  local score = tonumber(call('ZSCORE', from .. 'recent:', token) or 0)
  local other = tonumber(call('ZSCORE', to .. 'recent:', token) or 0)
  if not there or score > other or score == other and greater(user, there) then call('HSET', to .. 'login:', token, user) end
  call('HDEL', from .. 'login:', token)
  move_score(from .. 'recent:', to .. 'recent:', token)
  local source, target = from .. 'viewed:' .. token, to .. 'viewed:' .. token
  if not move_key(source, target) then
    call('ZUNIONSTORE', target, 2, target, source, 'AGGREGATE', 'MAX')
    call('UNLINK', source)
  end
  return 1
end

-- Session data with its version.
function movers.data(from, to, name, sid)
  move_key(from .. 'session:' .. sid, to .. 'session:' .. sid)
  return move_field(from .. name, to .. name, sid)
end

-- A connection to a document, and the document's users with the first of them.
function movers.joined(from, to, name, member, doc)
  for _, what in ipairs({ ':users', ':count' }) do
    move_key(from .. 'sessions:doc:' .. doc .. what, to .. 'sessions:doc:' .. doc .. what)
  end
  return move_score(from .. name, to .. name, member)
end

local function move_members(from, kind, name)
  local moved, targets = 0, {}
  -- The expiry is absolute and a function of the minute, so it is the same in all partitions. It follows the last
  -- member.
  local expires = kind == 'member' and call('PEXPIRETIME', from .. name)
  for i = 6, #ARGV, 3 do
    local to = ARGV[i + 1]
    moved = moved + movers[kind](from, to, name, ARGV[i], ARGV[i + 2])
    targets[to] = true
  end
  for to in pairs(targets) do
    if expires and expires > 0 then call('PEXPIREAT', to .. name, expires) end
  end
  return moved
end

local function move_letters(from, to, limit)
  from, to = from .. 'rollcall:dead', to .. 'rollcall:dead'
  local letters = call('XRANGE', from, '-', '+', 'COUNT', limit)
  for _, letter in ipairs(letters) do
    call('XADD', to, '*', unpack(letter[2]))
    call('XDEL', from, letter[1])
  end
  return #letters
end

-- ---- switching

local at

local function list()
  local n, found = tonumber(ARGV[at]), {}
  for i = 1, n do found[i] = ARGV[at + i] end
  at = at + n + 1
  return found
end

local function settle(meta, partitions, fresh, distrusted)
  call('HSET', meta, 'partitions', partitions, 'epoch', fresh, 'fence', fresh, 'owner', '', 'heir', '')
  call('HDEL', meta, 'moving', 'ask', 'named', 'deaths')
  if distrusted > tonumber(call('HGET', meta, 'activity_distrusted_until') or 0) then
    call('HSET', meta, 'activity_distrusted_until', string.format('%d', distrusted))
  end
end

-- The targets of a partition's notifiers: name → the number of the last change that was sent. Beside a position, `epoch
-- number id`, may be the borders of a batch.
local function positions(base)
  local found, places = {}, call('HGETALL', base .. 'rollcall:notifier')
  for i = 1, #places, 2 do found[places[i]] = tonumber(match(places[i + 1], '^%S+ (%d+) %d+%-%d+$')) end
  return found
end

-- The number before the first change of a new partition. If an earlier layout had this partition, its changes are
-- removed and one number is left out: readers from that time then get a gap instead of silently missing what followed.
local function number_before(base)
  local changes = base .. 'rollcall:changes'
  call('UNLINK', changes, changes .. ':erased')
  if call('EXISTS', changes .. ':seq') == 0 then return 0 end
  return call('INCR', changes .. ':seq')
end

local OF_PROCESSES =
  { 'workers', 'janitor:lease', 'janitor:survey', 'notifier', 'tokens:ended', 'blocked', 'changes:erased' }

local function switch(partitions, forwarded, fresh)
  local settings = {}
  at = 7 + 2 * ARGV[6]
  for i = 7, at - 1 do settings[#settings + 1] = ARGV[i] end
  local new, stay, go = list(), list(), list()
  local distrusted, unsent = 0, {}
  for _, bases in ipairs({ stay, go }) do
    for _, base in ipairs(bases) do
      local meta = base .. 'rollcall:meta'
      distrusted = max(distrusted, tonumber(call('HGET', meta, 'activity_distrusted_until') or 0))
      local last = bases == go and tonumber(call('GET', base .. 'rollcall:changes:seq') or 0) or 0
      for target, sent in pairs(positions(base)) do
        unsent[target] = (unsent[target] or 0) + max(last - sent, 0)
      end
    end
  end
  for _, bases in ipairs({ new, stay }) do
    for _, base in ipairs(bases) do
      local meta = base .. 'rollcall:meta'
      call('HSET', meta, 'forwarded', forwarded, unpack(settings))
      settle(meta, partitions, fresh, distrusted)
    end
  end
  for _, base in ipairs(new) do
    -- No change from now on is missed.
    local place = string.format('%s %d 0-0', fresh, number_before(base))
    for target in pairs(unsent) do call('HSET', base .. 'rollcall:notifier', target, place) end
  end
  for _, base in ipairs(go) do
    local meta = base .. 'rollcall:meta'
    if call('EXISTS', meta) == 1 then settle(meta, partitions, fresh, 0) end
    for _, name in ipairs(OF_PROCESSES) do call('UNLINK', base .. 'rollcall:' .. name) end
  end
  local reply = {}
  for target, count in pairs(unsent) do
    if count > 0 then reply[#reply + 1], reply[#reply + 2] = target, count end
  end
  return reply
end

local what, move, base = ARGV[1], ARGV[2], ARGV[3]
if what == 'pause' then return pause(base .. 'rollcall:meta', move, ARGV[4]) end
if call('HGET', base .. 'rollcall:meta', 'moving') ~= move then return false end
if what == 'move' then return move_members(base, ARGV[4], ARGV[5]) end
if what == 'letters' then return move_letters(base, ARGV[4], ARGV[5]) end
return switch(match(move, '%d+$'), ARGV[4], ARGV[5])

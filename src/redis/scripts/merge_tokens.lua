-- Merge: tokens and what they viewed.

-- Merges `count` arguments, scores and items in turn.
local function merge_items(token, count)
  local key, last, added = viewed .. token, at + count - 1, 0
  for first = at, last, CHUNK do
    local reply = try('ZADD', key, 'GT', unpack(args, first, math.min(first + CHUNK - 1, last)))
    if is_wrong(reply) then return mark_wrong(key) end
    added = added + reply
  end
  if added > 0 then call('ZREMRANGEBYRANK', key, 0, -viewed_cap - 1) end
  persist(key)
end

-- A token belongs to the user who used it last; at the same time the greater bytes win.
local function use_token(token, user, score, holder)
  local is_newest = call('ZADD', recent, 'GT', 'CH', score, token) == 1
  local is_holder = is_newest or not holder
    or (greater_bytes(user, holder) and tonumber(call('ZSCORE', recent, token)) == tonumber(score))
  if is_holder and call('HSET', login, token, user) == 1 then
    change('login', sub(score, 1, 10) .. sub(score, 12), 'user', user, 'token', token)
  end
end

local function merge_tokens()
  local count, tokens = column()
  local ended = lookup('ZMSCORE', tokens_ended, args, tokens, count)
  local holders = lookup('HMGET', login, args, tokens, count)
  local kept = {} -- score and token where the holder stays the same, whichever use is the latest
  for i = 1, count do
    local token, user, score, items = args[tokens + i - 1], take(3)
    if not ended[i] then
      if holders[i] == user then
        local n = #kept
        kept[n + 1], kept[n + 2] = score, token
      else
        use_token(token, user, score, holders[i])
      end
      if items > 0 then merge_items(token, items) end
    end
    at = at + items
  end
  chunks(#kept, function(first, last) call('ZADD', recent, 'GT', unpack(kept, first, last)) end)
end

local function end_tokens()
  for _ = 1, section() do
    local token, entry_ms, t = take(3)
    call('ZADD', tokens_ended, 'GT', entry_ms, token)
    drop_token(token, t)
  end
end

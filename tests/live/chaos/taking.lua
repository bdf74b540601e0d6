-- Removes a key, and in the same call records what the checks need of it: the traces which show that entries were
-- applied, and the dead letters.
--
-- KEYS  1 the key, 2 its name if it is renamed, 3 taken: names of keys, 4 traces, 5 letters, 6 docs_joined, 7 presence
-- ARGV  1 DEL or RENAME, 2 the name to note, 3 1 if the key holds the dead letters
-- Returns 1 if it was there.

local key, aside, taken, traces, letters, joined, presence = unpack(KEYS)
local call = redis.call

local function note(members)
  for first = 1, #members, 5000 do
    call('SADD', traces, unpack(members, first, math.min(first + 4999, #members)))
  end
end

if call('EXISTS', key) == 0 then return 0 end
if ARGV[3] == '1' then
  -- Letters are moved only once, since they are too large to be copied by a script.
  if call('EXISTS', letters) == 1 then return 0 end
  call('RENAME', key, letters)
else
  note(call('ZRANGE', joined, 0, -1))
  note(call('HKEYS', presence))
  if ARGV[1] == 'DEL' then call('DEL', key) else call('RENAME', key, aside) end
end
call('SADD', taken, ARGV[2])
return 1

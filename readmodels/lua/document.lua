-- Keeps documents: one hash each, and optionally a place in a ranking of the bucket.
--
-- KEYS     every key that may be touched, each once; all of one bucket. The first two: the bucket's changed
--          rows by stamp, and the deleted ones among them (see stamp.lua)
-- ARGV[1]  seconds for which a deletion is remembered
-- ARGV[2]  msgpack: a list of changes, each a list of
--            1 document   index of its hash in KEYS
--            2 gone       index of its deletion marker
--            3 ranking    index of the sorted set, 0 if the view has none
--            4 version    of the change; '' only for a deletion that knows none
--            5 reset      1: forget first whatever stands there, of any version
--            6 member     in the ranking, and the row's id
--            7 score      in the ranking; '' takes it out
--            8 fields     {name, value, name, value, ...}; empty deletes the document
--
-- An older or equal version changes nothing, so a repeated call changes nothing. Everything is read (and
-- so checked to be of its type) before anything is written.
local ttl, changes = ARGV[1], cmsgpack.unpack(ARGV[2])

local wanted, checked, rows, deleted = {}, {}, {}, {}
for _, change in ipairs(changes) do
  local document, gone, ranking = KEYS[change[1]], KEYS[change[2]], KEYS[change[3]]
  local stored = redis.call('HGET', document, 'version')
  local version = tonumber(change[4])
  local deletes = #change[8] == 0
  if ranking and not checked[ranking] then
    redis.call('ZCARD', ranking)
    checked[ranking] = true
  end
  local newer = true
  if change[5] == 0 then
    if stored then
      -- A deletion at the version that stands is meant for it.
      newer = tonumber(stored) < version or (deletes and tonumber(stored) == version)
    else
      newer = tonumber(redis.call('GET', gone) or '0') < version
    end
  end
  if newer then
    wanted[#wanted + 1] = { change, stored, deletes }
    if stored or not deletes then
      rows[#rows + 1] = change[6]
    end
    if stored and deletes then
      deleted[#deleted + 1] = change[6]
    end
  end
end
local at = #rows > 0 and next_stamp(KEYS[1], KEYS[2])

for _, item in ipairs(wanted) do
  local change, stored, deletes = item[1], item[2], item[3]
  local document, gone, ranking = KEYS[change[1]], KEYS[change[2]], KEYS[change[3]]
  if stored then
    redis.call('DEL', document) -- also fields that the new document does not have
  end
  if not deletes then
    redis.call('HSET', document, unpack(change[8]))
  elseif change[4] ~= '' then
    redis.call('SET', gone, change[4], 'EX', ttl)
  end
  if change[5] == 1 and not (deletes and change[4] ~= '') then
    redis.call('DEL', gone)
  end
  if ranking then
    if change[7] == '' then
      redis.call('ZREM', ranking, change[6])
    else
      redis.call('ZADD', ranking, change[7], change[6])
    end
  end
end
if at then
  stamp(KEYS[1], KEYS[2], at, rows, deleted, ttl)
end
return #wanted

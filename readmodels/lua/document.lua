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
-- Returns  how many of them were news.
--
-- An older or equal version changes nothing, so a repeated call changes nothing. Everything is read (and
-- so checked to be of its type; a marker of another type counts as none) before anything is written.
local ttl, changes = ARGV[1], cmsgpack.unpack(ARGV[2])
local call = redis.call

-- Read. This is done for every record there is, so loops count instead of calling an iterator.
local stands, missing = {}, {}
for number = 1, #changes do
  local change = changes[number]
  local stored = call('HGET', KEYS[change[1]], 'version')
  stands[number] = stored
  if not stored then
    missing[#missing + 1] = number
  end
end
local markers = markers_of(changes, missing)

local news, checked, rows, deleted = {}, {}, {}, {}
for number = 1, #changes do
  local change, stored = changes[number], stands[number]
  local ranking, deletes = change[3], #change[8] == 0
  if ranking > 0 and not checked[ranking] then
    call('ZCARD', KEYS[ranking])
    checked[ranking] = true
  end
  if change[5] == 1 or is_newer(change[4], stored, markers[number], deletes) then
    news[#news + 1] = number
    if stored or not deletes then
      rows[#rows + 1] = change[6]
    end
    if stored and deletes then
      deleted[#deleted + 1] = change[6]
    end
  end
end
local at = #rows > 0 and next_stamp(KEYS[1], KEYS[2])

-- Write.
for i = 1, #news do
  local change, stored = changes[news[i]], stands[news[i]]
  local document, ranking, fields = KEYS[change[1]], change[3], change[8]
  local deletes = #fields == 0
  if not deletes then
    call('HSET', document, unpack(fields))
    if stored and 2 * call('HLEN', document) > #fields then -- fields that it does not have any more
      call('DEL', document)
      call('HSET', document, unpack(fields))
    end
  else
    if stored then
      call('DEL', document)
    end
    if change[4] ~= '' then
      call('SET', KEYS[change[2]], change[4], 'EX', ttl)
    end
  end
  if change[5] == 1 and not (deletes and change[4] ~= '') then
    call('DEL', KEYS[change[2]])
  end
  if ranking > 0 then
    if change[7] == '' then
      remove(ranking, change[6])
    else
      add(ranking, change[7], change[6])
    end
  end
end
write_sorted()
if at then
  stamp(KEYS[1], KEYS[2], at, rows, deleted, ttl)
end
return #news

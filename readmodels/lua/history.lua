-- Keeps where the events of streams are: 8 bytes an event, in order of version (eventstore/index.py).
--
-- KEYS     the sorted set of what was put aside, then the streams, each once
-- ARGV[1]  how many places of what was put aside are kept
-- ARGV[2]  msgpack: a list of events, each a list of
--            1 stream   index of its string in KEYS
--            2 version  from 1
--            3 entry    what is kept of it, as a number above 0 that a double holds exactly
--            4 missing  how many records of the partition are gone, so that versions may be missing
--            5 place    member of the sorted set, and its score; text, since a double does not hold it
-- Returns  how many events were put aside.
--
-- An event is the next one of its stream, or one that is known already; of two that claim a version, the first
-- one counts. Anything else is put aside: a version that cannot be would take memory for all below it.
local call = redis.call
local kept, events = tonumber(ARGV[1]), cmsgpack.unpack(ARGV[2])
local NONE = string.rep('\0', 8)
local aside = 0
call('ZCARD', KEYS[1])

for number = 1, #events do
  local event = events[number]
  local key, version, entry = KEYS[event[1]], event[2], struct.pack('>i8', event[3])
  local known = math.floor(call('STRLEN', key) / 8)
  local begin = (version - 1) * 8
  local fits = version > known and version <= known + 1 + event[4]
  if version <= known then
    local stands = call('GETRANGE', key, begin, begin + 7)
    fits = stands == NONE or stands == entry
  end
  if fits then
    call('SETRANGE', key, begin, entry)
  else
    aside = aside + 1
    call('ZADD', KEYS[1], event[5], event[5])
  end
end
if aside > 0 then
  call('ZREMRANGEBYRANK', KEYS[1], 0, -kept - 1)
end
return aside

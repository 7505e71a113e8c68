-- Finds and keeps whose an order is, which is where everything else of it is written.
--
-- KEYS     every key that may be touched, each once; all of one bucket
-- ARGV[1]  seconds for which a deletion is remembered
-- ARGV[2]  msgpack: a list of changes, each a list of
--            1 place    index of the string that says who owns the order
--            2 gone     index of the order's deletion marker
--            3 version  of the change; '' only for a deletion that knows none
--            4 reset    1: forget first whatever stands there, of any version
--            5 owner    <user id>/<currency>; '' for a deletion
--            6 former   '' or the owner who has given the order up
-- Returns  a flat list, only of the changes that need something: number of the change (from 1) and the
--          owner who has to give the order up first; or number and '' of one that came too late.
--
-- The place is written before the order and removed after it, so an order never stands where it cannot
-- be found again, whatever happens in between. One read and few writes for all changes together: the
-- calls are what costs.
local ttl, changes = ARGV[1], cmsgpack.unpack(ARGV[2])

local stands = redis.call('MGET', unpack(KEYS))
local answer, wanted = {}, {}
for number, change in ipairs(changes) do
  local owner = stands[change[1]]
  local is_news = not owner and (tonumber(stands[change[2]] or '0') < (tonumber(change[3]) or 0))
  if owner and owner ~= change[5] and owner ~= change[6] then
    answer[#answer + 1] = number
    answer[#answer + 1] = owner
  elseif change[4] == 1 or is_news or (owner and owner ~= change[5]) then
    wanted[#wanted + 1] = change
  elseif not owner and change[5] ~= '' then
    answer[#answer + 1] = number
    answer[#answer + 1] = ''
  end
end

local places, removed = {}, {}
for _, change in ipairs(wanted) do
  if change[5] ~= '' then
    places[#places + 1] = KEYS[change[1]]
    places[#places + 1] = change[5]
  else
    removed[#removed + 1] = KEYS[change[1]]
  end
  if change[5] == '' and change[3] ~= '' then
    redis.call('SET', KEYS[change[2]], change[3], 'EX', ttl)
  elseif change[4] == 1 then
    removed[#removed + 1] = KEYS[change[2]]
  end
end
if #places > 0 then
  redis.call('MSET', unpack(places))
end
if #removed > 0 then
  redis.call('DEL', unpack(removed))
end
return answer

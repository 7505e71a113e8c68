-- Keeps orders and, in the same call, what they add up to for their users.
--
-- KEYS     every key that may be touched, each once; all of one bucket (the users'). The first two: the
--          bucket's changed rows by stamp, and the deleted ones among them (see stamp.lua)
-- ARGV[1]  seconds for which a deletion is remembered
-- ARGV[2]  msgpack: a list of changes, each a list of
--             1 order      index of its hash in KEYS
--             2 gone       index of its deletion marker
--             3 user       index of the hash with the user's sums
--             4 list       index of the user's orders by time
--             5 top        index of the users by number of orders
--             6 top spent  index of the users by amount spent in this currency
--             7 version    of the change; '' only for a deletion that knows none
--             8 reset      1: forget first whatever stands there, of any version
--             9 user id
--            10 member     of the list, '' for a deletion
--            11 status     '' for a deletion
--            12 currency
--            13 spent      what of the order counts as spent, decimal
--            14 fields     of the order: {name, value, ...}; empty deletes it
--            15 row        <user id>/<order id>; the user's sums change with it, and have no stamp of their own
-- Returns  the numbers (from 1) of the changes that are older than the order that stands, and changed nothing.
--
-- What the order contributed before stands in its own hash, so the sums move by new - old, here, where both
-- are known; an older or equal version changes nothing. First everything is read, and so checked to be of
-- its type, and all sums are computed; then everything is written. Amounts are decimal text throughout: a
-- user's sum may exceed what a double, Lua's only number, holds exactly (and 2^63 too).
local ttl, changes = ARGV[1], cmsgpack.unpack(ARGV[2])
local call, format = redis.call, string.format

local LOW_DIGITS, LOW = 15, 1e15

local function split(text)
  local cut = #text - LOW_DIGITS
  if cut <= 0 then
    return 0, assert(tonumber(text), 'not a sum')
  end
  return assert(tonumber(string.sub(text, 1, cut)), 'not a sum'), tonumber(string.sub(text, cut + 1))
end

local function move(sum, minus, plus)
  local sh, sl = split(sum)
  local mh, ml = split(minus)
  local ph, pl = split(plus)
  local high, low = sh - mh + ph, sl - ml + pl
  while low < 0 do
    high, low = high - 1, low + LOW
  end
  while low >= LOW do
    high, low = high + 1, low - LOW
  end
  if high < 0 then
    return '0' -- somebody else wrote here; a rebuild puts it right
  elseif high == 0 then
    return format('%.0f', low)
  end
  return format('%.0f%015.0f', high, low)
end

-- The sum after several moves: amounts is {minus, plus, minus, plus, ...}. What fits a double stays one until
-- the end, because making text of numbers is what costs here.
local function move_all(sum, amounts)
  local low = #sum <= LOW_DIGITS and assert(tonumber(sum), 'not a sum')
  for i = 1, #amounts, 2 do
    local minus, plus = amounts[i], amounts[i + 1]
    local moved = low and #minus <= LOW_DIGITS and #plus <= LOW_DIGITS
      and low - tonumber(minus) + tonumber(plus)
    if moved and moved >= 0 and moved < LOW then
      low = moved
    else
      sum = move(low and format('%.0f', low) or sum, minus, plus)
      low = #sum <= LOW_DIGITS and tonumber(sum)
    end
  end
  return low and format('%.0f', low) or sum
end

local count_texts = {} -- users of a call have much the same counts

local function count_text(number)
  local text = count_texts[number]
  if not text then
    text = format('%.0f', number)
    count_texts[number] = text
  end
  return text
end

-- Read: which changes are news, and what each user's sums are. This is done for every record there is, so
-- tables are made with the room they will need, and loops count instead of calling an iterator.
local news, late, rows, deleted = {}, {}, {}, {}
local users, user_list = {}, {}
local checked = {}

local function check_ranking(index)
  if not checked[index] then
    call('ZCARD', KEYS[index])
    checked[index] = true
  end
end

-- Of a user: the fields that move, in the order in which they are met, the same everywhere; by how much each
-- moves, a number or for an amount the list for `move_all` (later: its new value); the rankings by amounts as
-- {key, field, ...}, both as indices; and, once known, what to set.
local function touch(change)
  local user = users[change[3]]
  if not user then
    user = {
      change = change, size = 0, tops = {}, orders = false, set = false,
      fields = { false, false, false, false }, moves = { false, false, false, false },
    }
    users[change[3]] = user
    user_list[#user_list + 1] = user
    check_ranking(change[5])
  end
  return user
end

local function index_of(user, field)
  local fields = user.fields
  for i = 1, user.size do
    if fields[i] == field then
      return i
    end
  end
  local size = user.size + 1
  user.size = size
  fields[size], user.moves[size] = field, false
  return size
end

local function count(user, field, by)
  local index = index_of(user, field)
  user.moves[index] = (user.moves[index] or 0) + by
  return index
end

local function amount(user, change, minus, plus)
  local index = index_of(user, 'spent:' .. change[12])
  local list = user.moves[index]
  if list then
    list[#list + 1] = minus
    list[#list + 1] = plus
  else
    user.moves[index] = { minus, plus }
    user.tops[#user.tops + 1] = change[6]
    user.tops[#user.tops + 1] = index
    check_ranking(change[6])
  end
end

local documents, missing = {}, {}
for number = 1, #changes do
  local change = changes[number]
  local stored = call('HMGET', KEYS[change[1]], 'version', 'status', 'spent', 'listed')
  documents[number] = stored
  if not stored[1] then
    missing[#missing + 1] = number
  end
end
local markers = markers_of(changes, missing)

for number = 1, #changes do
  local change, stored = changes[number], documents[number]
  local known, status, deletes = stored[1], change[11], #change[14] == 0
  if change[8] == 1 or is_newer(change[7], known, markers[number], deletes) then
    news[#news + 1] = number
    if known or not deletes then
      rows[#rows + 1] = change[15]
    end
    if known and deletes then
      deleted[#deleted + 1] = change[15]
    end
    local user = touch(change)
    if stored[4] ~= change[10] then
      check_ranking(change[4])
    end
    if stored[2] ~= status then
      if known then
        count(user, 'status:' .. stored[2], -1)
      else
        user.orders = count(user, 'orders', 1)
      end
      if deletes then
        user.orders = count(user, 'orders', -1)
      else
        count(user, 'status:' .. status, 1)
      end
    end
    local before = stored[3] or '0'
    if before ~= change[13] then
      amount(user, change, before, change[13])
    end
  elseif known then
    late[#late + 1] = number
  end
end

for number = 1, #user_list do
  local user = user_list[number]
  local fields, moves = user.fields, user.moves
  if user.size > 0 then
    local sums = call('HMGET', KEYS[user.change[3]], unpack(fields, 1, user.size))
    local set, size = { false, false, false, false, false, false, false, false }, 0
    for i = 1, user.size do
      local before, by = sums[i], moves[i]
      local sum
      if type(by) == 'table' then
        sum = move_all(before or '0', by)
      else
        sum = count_text(assert(tonumber(before or '0'), 'not a count') + by)
      end
      moves[i] = sum
      if sum == '0' then
        if before then
          user.drop = user.drop or {}
          user.drop[#user.drop + 1] = fields[i]
        end
      elseif sum ~= before then
        set[size + 1], set[size + 2] = fields[i], sum
        size = size + 2
      end
    end
    user.set, user.size = set, size
  end
end

local at = #rows > 0 and next_stamp(KEYS[1], KEYS[2])

-- Write.
local function rank(key, sum, member)
  if sum == '0' then
    remove(key, member)
  else
    add(key, sum, member)
  end
end

for number = 1, #user_list do
  local user = user_list[number]
  local change, moves, tops = user.change, user.moves, user.tops
  if user.set and user.size > 0 then
    call('HSET', KEYS[change[3]], unpack(user.set, 1, user.size))
  end
  if user.drop then
    call('HDEL', KEYS[change[3]], unpack(user.drop))
  end
  if user.orders then
    rank(change[5], moves[user.orders], change[9])
  end
  for i = 1, #tops, 2 do
    rank(tops[i], moves[tops[i + 1]], change[9])
  end
end

for i = 1, #news do
  local change, stored = changes[news[i]], documents[news[i]]
  local fields, member = change[14], stored[4]
  local deletes = #fields == 0
  if member ~= change[10] then
    if member then
      remove(change[4], member)
    end
    if not deletes then
      add(change[4], '0', change[10])
    end
  end
  if deletes then
    call('DEL', KEYS[change[1]])
    if change[7] ~= '' then
      call('SET', KEYS[change[2]], change[7], 'EX', ttl)
    end
  else
    call('HSET', KEYS[change[1]], unpack(fields))
  end
  if change[8] == 1 and not (deletes and change[7] ~= '') then
    call('DEL', KEYS[change[2]])
  end
end
write_sorted()
if at then
  stamp(KEYS[1], KEYS[2], at, rows, deleted, ttl)
end
return late

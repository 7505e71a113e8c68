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

local LOW_DIGITS, LOW = 15, 1e15

local function split(text)
  local cut = #text - LOW_DIGITS
  if cut <= 0 then
    return 0, assert(tonumber(text), 'not a sum')
  end
  return assert(tonumber(string.sub(text, 1, cut)), 'not a sum'), tonumber(string.sub(text, cut + 1))
end

local function move(sum, minus, plus)
  if #sum <= LOW_DIGITS and #minus <= LOW_DIGITS and #plus <= LOW_DIGITS then
    local low = assert(tonumber(sum), 'not a sum') - tonumber(minus) + tonumber(plus)
    if low >= 0 and low < LOW then
      return string.format('%.0f', low)
    end
  end
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
    return string.format('%.0f', low)
  end
  return string.format('%.0f%015.0f', high, low)
end

-- Read: which changes are news, and what each user's sums are.
local news, late, users, order_of_users = {}, {}, {}, {}
local rows, deleted = {}, {}

local checked = {}

local function check_ranking(index)
  if not checked[index] then
    redis.call('ZCARD', KEYS[index])
    checked[index] = true
  end
end

-- A user's fields are listed in the order in which they are met, the same everywhere.
local function touch(change)
  local user = users[change[3]]
  if not user then
    user = { change = change, fields = {}, counts = {}, amounts = {}, tops = {} }
    users[change[3]] = user
    order_of_users[#order_of_users + 1] = user
    check_ranking(change[5])
  end
  return user
end

local function count(user, field, by)
  local known = user.counts[field]
  if not known then
    user.fields[#user.fields + 1] = field
  end
  user.counts[field] = (known or 0) + by
end

local function amount(user, change, minus, plus)
  if minus == plus then
    return
  end
  local field = 'spent:' .. change[12]
  local list = user.amounts[field]
  if not list then
    list = {}
    user.amounts[field] = list
    user.fields[#user.fields + 1] = field
    user.tops[#user.tops + 1] = { change[6], field }
    check_ranking(change[6])
  end
  list[#list + 1] = minus
  list[#list + 1] = plus
end

local documents, unknown = {}, {}
for number, change in ipairs(changes) do
  local stored = redis.call('HMGET', KEYS[change[1]], 'version', 'status', 'spent', 'listed')
  documents[number] = stored
  if not stored[1] then
    unknown[#unknown + 1] = KEYS[change[2]]
  end
end
local markers = #unknown > 0 and redis.call('MGET', unpack(unknown)) or {}

local next_marker = 0
for number, change in ipairs(changes) do
  local stored = documents[number]
  local version, deletes = tonumber(change[7]), #change[14] == 0
  local newer = true
  local gone
  if not stored[1] then
    next_marker = next_marker + 1
    gone = markers[next_marker]
  end
  if change[8] == 0 then
    if stored[1] then
      newer = tonumber(stored[1]) < version or (deletes and tonumber(stored[1]) == version)
    else
      newer = tonumber(gone or '0') < version
    end
  end
  if not newer then
    if stored[1] then
      late[#late + 1] = number
    end
  else
    news[#news + 1] = { change, stored, deletes }
    if stored[1] or not deletes then
      rows[#rows + 1] = change[15]
    end
    if stored[1] and deletes then
      deleted[#deleted + 1] = change[15]
    end
    local user = touch(change)
    if stored[4] ~= change[10] then
      check_ranking(change[4])
    end
    if stored[2] ~= change[11] then
      if stored[1] then
        count(user, 'status:' .. stored[2], -1)
      else
        count(user, 'orders', 1)
      end
      if not deletes then
        count(user, 'status:' .. change[11], 1)
      else
        count(user, 'orders', -1)
      end
    end
    amount(user, change, stored[3] or '0', change[13])
  end
end

for _, user in ipairs(order_of_users) do
  user.set, user.drop, user.now = {}, {}, {}
  if #user.fields > 0 then
    local sums = redis.call('HMGET', KEYS[user.change[3]], unpack(user.fields))
    for i, field in ipairs(user.fields) do
      local sum = sums[i] or '0'
      local amounts = user.amounts[field]
      if amounts then
        for k = 1, #amounts, 2 do
          sum = move(sum, amounts[k], amounts[k + 1])
        end
      else
        sum = string.format('%.0f', assert(tonumber(sum), 'not a count') + user.counts[field])
      end
      user.now[field] = sum
      if sum == '0' then
        if sums[i] then
          user.drop[#user.drop + 1] = field
        end
      elseif sum ~= sums[i] then
        user.set[#user.set + 1] = field
        user.set[#user.set + 1] = sum
      end
    end
  end
end

local at = #rows > 0 and next_stamp(KEYS[1], KEYS[2])

-- Write. What goes to the same key goes in one call: the calls are what costs.
local bulk, order_of_bulk = {}, {}

local function add(command, key, ...)
  local name = command .. key
  local call = bulk[name]
  if not call then
    call = { command, KEYS[key] }
    bulk[name] = call
    order_of_bulk[#order_of_bulk + 1] = call
  end
  for _, argument in ipairs({ ... }) do
    call[#call + 1] = argument
  end
end

local function rank(key, sum, member)
  if sum == '0' then
    add('ZREM', key, member)
  else
    add('ZADD', key, sum, member)
  end
end

for _, user in ipairs(order_of_users) do
  local change = user.change
  if #user.set > 0 then
    redis.call('HSET', KEYS[change[3]], unpack(user.set))
  end
  if #user.drop > 0 then
    redis.call('HDEL', KEYS[change[3]], unpack(user.drop))
  end
  if user.now['orders'] then
    rank(change[5], user.now['orders'], change[9])
  end
  for _, top in ipairs(user.tops) do
    rank(top[1], user.now[top[2]], change[9])
  end
end

for _, item in ipairs(news) do
  local change, stored, deletes = item[1], item[2], item[3]
  local member = stored[4]
  if member ~= change[10] then
    if member then
      add('ZREM', change[4], member)
    end
    if not deletes then
      add('ZADD', change[4], '0', change[10])
    end
  end
  if deletes then
    redis.call('DEL', KEYS[change[1]])
    if change[7] ~= '' then
      redis.call('SET', KEYS[change[2]], change[7], 'EX', ttl)
    end
  else
    redis.call('HSET', KEYS[change[1]], unpack(change[14]))
  end
  if change[8] == 1 and not (deletes and change[7] ~= '') then
    redis.call('DEL', KEYS[change[2]])
  end
end
for _, call in ipairs(order_of_bulk) do
  redis.call(unpack(call))
end
if at then
  stamp(KEYS[1], KEYS[2], at, rows, deleted, ttl)
end
return late

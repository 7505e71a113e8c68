-- Put before the scripts that write to sorted sets: what goes to the same one goes in one call, since the
-- calls are what costs. `add` and `remove` take an index in KEYS; nothing is written before `write_sorted`.
local added, removed, sorted_calls = {}, {}, {}

local function add(key, score, member)
  local command = added[key]
  if command then
    command[#command + 1] = score
    command[#command + 1] = member
  else
    command = { 'ZADD', KEYS[key], score, member }
    added[key], sorted_calls[#sorted_calls + 1] = command, command
  end
end

local function remove(key, member)
  local command = removed[key]
  if command then
    command[#command + 1] = member
  else
    command = { 'ZREM', KEYS[key], member }
    removed[key], sorted_calls[#sorted_calls + 1] = command, command
  end
end

local function write_sorted()
  for i = 1, #sorted_calls do
    redis.call(unpack(sorted_calls[i]))
  end
end


-- Put before the scripts that write rows: says which rows of a bucket changed, and in which order.
--
-- All rows of a call have one stamp, since they change at one moment: Redis's time in microseconds, but
-- always above the bucket's last stamp, whatever the clock does. A double holds it exactly until 2255.
local STAMP_DELETIONS = 2 -- of old deletions at most so many are dropped for each new one

local function next_stamp(changed, removed)
  redis.call('ZCARD', removed) -- checked to be of its type, as everything is before anything is written
  local now = redis.call('TIME')
  local at = now[1] * 1000000 + now[2]
  local last = tonumber(redis.call('ZREVRANGE', changed, 0, 0, 'WITHSCORES')[2] or '0')
  return string.format('%.0f', at > last and at or last + 1)
end

-- `rows`: the ids of the rows that changed; `gone`: those among them that stand no more. A deletion is
-- told for `ttl` seconds. The member '' of `removed` says up to which stamp deletions have been dropped.
local function stamp(changed, removed, at, rows, gone, ttl)
  local call = { 'ZADD', changed }
  for i = 1, #rows do
    call[2 * i + 1], call[2 * i + 2] = at, rows[i]
  end
  redis.call(unpack(call))
  if #gone == 0 then
    return
  end
  local before = string.format('%.0f', at - ttl * 1000000)
  local old = redis.call('ZRANGEBYSCORE', removed, '-inf', before, 'WITHSCORES',
    'LIMIT', 0, STAMP_DELETIONS * #gone + 1)
  local horizon
  for i = 1, #old, 2 do
    local row, since = old[i], old[i + 1]
    if row ~= '' then
      if redis.call('ZSCORE', changed, row) == since then -- else it stands again, or was deleted again
        redis.call('ZREM', changed, row)
      end
      redis.call('ZREM', removed, row)
      horizon = since
    end
  end
  if horizon then
    redis.call('ZADD', removed, horizon, '')
  end
  for _, row in ipairs(gone) do
    redis.call('ZADD', removed, at, row)
  end
end


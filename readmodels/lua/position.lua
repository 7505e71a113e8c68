-- Moves a view's position over a batch that is in, if nothing is missing before it.
--
-- KEYS[1]  positions of one generation of a view
-- ARGV     field (topic:partition), first offset of the batch, next offset after it
-- Returns  the position afterwards; one below `next` means that the move was refused: this Redis does not
--          have what lies before the batch (flushed, restored from an older state). -1: it has nothing.
--
-- Repeating it changes nothing, and a worker that is behind cannot take a position back.
local position = tonumber(redis.call('HGET', KEYS[1], ARGV[1]) or '-1')
local first, after = tonumber(ARGV[2]), tonumber(ARGV[3])
if position < first or position >= after then
  return position
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
return after

-- Makes other generations live, all views at once, if nobody else has changed them since.
--
-- KEYS[1]  the hash of generations
-- ARGV     view, expected generation ('' : none stands there), new generation, what to remember as the
--          previous one ('' : nothing); repeated
-- Returns  1, or 0 when one of them was not as expected: then nothing is changed.
for i = 1, #ARGV, 4 do
  if (redis.call('HGET', KEYS[1], ARGV[i]) or '') ~= ARGV[i + 1] then
    return 0
  end
end
for i = 1, #ARGV, 4 do
  redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 2])
  if ARGV[i + 3] == '' then
    redis.call('HDEL', KEYS[1], ARGV[i] .. ':previous')
  else
    redis.call('HSET', KEYS[1], ARGV[i] .. ':previous', ARGV[i + 3])
  end
end
return 1

-- Makes new generations live, all views at once, if nobody else has changed them since.
--
-- KEYS[1]  the hash of live generations
-- ARGV     view, expected generation ('' : none stands there), new generation; repeated
-- Returns  1, or 0 when one of them was not as expected: then nothing is changed.
for i = 1, #ARGV, 3 do
  if (redis.call('HGET', KEYS[1], ARGV[i]) or '') ~= ARGV[i + 1] then
    return 0
  end
end
for i = 1, #ARGV, 3 do
  redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 2])
end
return 1

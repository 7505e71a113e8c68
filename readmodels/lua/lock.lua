-- Holds on to a lock, or lets go of it, if it is still the caller's.
--
-- KEYS[1]  the lock
-- ARGV     the caller's token, milliseconds to hold it from now on (0: let go)
-- Returns  1 if it was the caller's.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end
if ARGV[2] == '0' then
  redis.call('DEL', KEYS[1])
else
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
return 1

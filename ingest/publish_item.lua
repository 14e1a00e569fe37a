-- Puts an item's vector of one epoch beside that of the epoch before.
-- KEYS[1] the item. ARGV: 1 (unused, see redis.h), 2 vector, 3 epoch.
local stored = redis.call('HMGET', KEYS[1], 'v', 'epoch', 'epoch_prev')
local vector, epoch = ARGV[2], ARGV[3]
if stored[2] == epoch or not stored[1] or not stored[2] then
  redis.call('HSET', KEYS[1], 'v', vector, 'epoch', epoch)
elseif stored[3] == epoch then
  redis.call('HSET', KEYS[1], 'v_prev', vector)
elseif tonumber(epoch) + 1 == tonumber(stored[2]) then -- was refused, and comes again behind the newer one
  redis.call('HSET', KEYS[1], 'v_prev', vector, 'epoch_prev', epoch)
else
  redis.call('HSET', KEYS[1], 'v', vector, 'epoch', epoch, 'v_prev', stored[1], 'epoch_prev', stored[2])
end
return 1

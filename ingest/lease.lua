-- The lease that says which of several daemons is active. One that has run out keeps its fence.
-- KEYS[1] a hash: owner, fence, expires_ms (by the clock of this server). ARGV: 1 see redis.h, 2 who asks, 3 '1': it
-- has held the lease since it last asked, 4 a fence that was given out before, 5 how long it will hold, milliseconds.
-- Answers {fence, milliseconds left}; fence 0: another one holds it, or (ARGV[3]) it is lost.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local held = redis.call('HMGET', KEYS[1], 'owner', 'fence', 'expires_ms')
local fence, expires = tonumber(held[2] or 0), tonumber(held[3] or 0)
if held[1] ~= ARGV[2] then
  if ARGV[3] == '1' or expires > now then
    return {0, math.max(0, expires - now)}
  end
  fence = math.max(fence, tonumber(ARGV[4])) + 1
end
redis.call('HSET', KEYS[1], 'owner', ARGV[2], 'fence', fence, 'expires_ms', now + ARGV[5])
return {fence, tonumber(ARGV[5])}

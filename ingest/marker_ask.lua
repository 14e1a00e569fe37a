-- What a new connection is asked (daemon/loop_marker.c): is the marker where it was left? If not, it becomes 'lost'
-- before anything else is sent there: then no start trusts the sequences.
-- KEYS[1] the marker. ARGV: 1 '1': the first connection, which has left nothing, 2 and 3 what it may hold ('': nothing).
-- Answers what it held.
local held = redis.call('GET', KEYS[1]) or ''
if ARGV[1] ~= '1' and held ~= ARGV[2] and held ~= ARGV[3] then
  redis.call('SET', KEYS[1], 'lost')
end
return held

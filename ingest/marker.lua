-- Moves the marker that says how far the sequences are (daemon/loop_marker.c), unless it is not where it was left.
-- KEYS[1] the marker. ARGV: 1 see redis.h, 2 what it was left with ('': nothing), 3 what it gets.
-- Answers 1; 0: it held neither of the two, and holds 'lost' now: no start trusts the sequences.
local held = redis.call('GET', KEYS[1]) or ''
if held ~= ARGV[2] and held ~= ARGV[3] then
  redis.call('SET', KEYS[1], 'lost')
  return 0
end
if held ~= ARGV[3] then
  redis.call('SET', KEYS[1], ARGV[3])
end
return 1

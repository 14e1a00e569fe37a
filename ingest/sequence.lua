-- Applies one event to the sequence of one user. The layout and the rules are in sequence.h.
-- KEYS[1] the sequence. ARGV: 1 "1" if no earlier command is unanswered (redis.h), 2 partition (4 bytes), 3 position (8),
-- 4 position + 1 (8), 5 event time (6), 6 item id, 7 event hash (8, or none), 8 keep, 9 seconds to live (0: for ever),
-- 10 durable position (8), 11 partition and position of the event of this user that was sent before, if unanswered (12).
-- Answers {0 new | 1 replay | 2 duplicate, the sequence}.
local byte, sub, char, find = string.byte, string.sub, string.char, string.find
local unpack = struct.unpack
local ENTRIES_MAX = 1024

local partition, position, following = ARGV[2], ARGV[3], ARGV[4]
local hash, keep, ttl, durable = ARGV[7], tonumber(ARGV[8]), ARGV[9], ARGV[10]

-- Positions are compared in halves: Lua's numbers are doubles, and its < on strings follows the locale of the server.
local function below(a1, a2, b1, b2)
  return a1 < b1 or (a1 == b1 and a2 < b2)
end
local high, low = unpack('>I4I4', position)
local durable_high, durable_low = unpack('>I4I4', durable)

local function refuse(what)
  return redis.error_reply('SEQUENCE ' .. what)
end

local blob = redis.call('GET', KEYS[1]) or struct.pack('>BBI2I4', 1, 0, 0, 8)
if byte(blob, 1) ~= 1 then
  return refuse('the stored sequence has version ' .. (byte(blob, 1) or 'none') .. ', this program knows 1')
end
if #blob < 8 then
  return refuse('the stored sequence is damaged: its header is cut')
end
local _, slots, entries, size = unpack('>BBI2I4', blob)
local body = 9 + 12 * slots -- where the entries begin
if size ~= #blob or body > size + 1 then
  return refuse('the stored sequence is damaged: it has ' .. #blob .. ' bytes, its header says ' .. size)
end

-- Slot of a partition in the header, from 0, and the halves of the next position there.
local function slot_of(wanted)
  for i = 0, slots - 1 do
    local at = 9 + 12 * i
    if sub(blob, at, at + 3) == wanted then
      return i, unpack('>I4I4', blob, at + 4)
    end
  end
end

local after = ARGV[11]
if ARGV[1] == '0' and after ~= '' then
  local after_high, after_low = unpack('>I4I4', after, 5)
  local there, next_high, next_low = slot_of(sub(after, 1, 4))
  if not there or not below(after_high, after_low, next_high, next_low) then
    return redis.error_reply('TRYAGAIN the event before this one has not been applied')
  end
end

-- Steps over the entry at `at`: place behind it, slot, halves of its position, whether it has an event hash.
local function step(at)
  if at + 17 > size then
    return nil
  end
  local flags, slot, entry_high, entry_low = unpack('>BBI4I4', blob, at)
  local length_at = at + (flags == 1 and 24 or 16)
  local length = byte(blob, length_at)
  if not length or flags > 1 or slot >= slots or length_at + length > size then
    return nil
  end
  return length_at + length + 1, slot, entry_high, entry_low, flags == 1
end
local DAMAGED = 'the stored sequence is damaged: an entry breaks the layout'

-- Number of the newest entry, of the first `count`, that has the hash; 0 if none. nil: damaged.
local function last_with_hash(count)
  local at, found = body, 0
  if not find(blob, hash, body, true) then
    return 0
  end
  for i = 1, count do
    local behind, _, _, _, hashed = step(at)
    if not behind then
      return nil
    end
    if hashed and sub(blob, at + 16, at + 23) == hash then
      found = i
    end
    at = behind
  end
  return found
end

local slot, next_high, next_low = slot_of(partition)

if slot and below(high, low, next_high, next_low) then -- a replay
  if ttl ~= '0' then
    redis.call('EXPIRE', KEYS[1], ttl)
  end
  local at, before, present = body, 0, false -- entries before its place
  while before < entries do
    local behind, slot_there, entry_high, entry_low = step(at)
    if not behind then
      return refuse(DAMAGED)
    end
    if slot_there == slot and not below(entry_high, entry_low, high, low) then
      present = entry_high == high and entry_low == low
      break
    end
    at, before = behind, before + 1
  end
  local outcome = 1
  if hash ~= '' and not present then
    local found = last_with_hash(before)
    if not found then
      return refuse(DAMAGED)
    end
    if found > 0 and found > before - keep then
      outcome = 2
    end
  end
  return {outcome, blob}
end

-- New in its partition. First whether it is a duplicate, as that looks at the sequence before it.
local outcome = 0
if hash ~= '' then
  local found = last_with_hash(entries)
  if not found then
    return refuse(DAMAGED)
  end
  if found > 0 and found > entries - keep then
    outcome = 2
  end
end

local first = body -- the oldest entry that stays
local header = sub(blob, 9, body - 1)
if slot then
  header = sub(header, 1, 12 * slot + 4) .. following .. sub(header, 12 * slot + 13)
elseif slots < 255 then
  slot, slots = slots, slots + 1
  header = header .. partition .. following
else -- a slot without entries gives way; the oldest entries go until there is one
  local uses, at = {}, body
  for _ = 1, entries do
    local behind, slot_there = step(at)
    if not behind then
      return refuse(DAMAGED)
    end
    uses[slot_there] = (uses[slot_there] or 0) + 1
    at = behind
  end
  for i = 0, slots - 1 do
    if not uses[i] then
      slot = i
      break
    end
  end
  while not slot do
    local behind, slot_there = step(first)
    first, entries = behind, entries - 1
    uses[slot_there] = uses[slot_there] - 1
    if uses[slot_there] == 0 then
      slot = slot_there
    end
  end
  header = sub(header, 1, 12 * slot) .. partition .. following .. sub(header, 12 * slot + 13)
end

local entry = ''
if outcome == 0 then
  entry = char(hash ~= '' and 1 or 0, slot) .. position .. ARGV[5] .. hash .. char(#ARGV[6]) .. ARGV[6]
  -- Looking for what may go costs a walk, so only every eighth time.
  if entries >= keep and (entries % 8 == 0 or entries >= ENTRIES_MAX) then
    local old = entries -- before the first that may be replayed
    if next_high and below(durable_high, durable_low, next_high, next_low) then
      local at = first
      old = 0
      while old < entries do
        local behind, slot_there, entry_high, entry_low = step(at)
        if not behind then
          return refuse(DAMAGED)
        end
        if slot_there == slot and not below(entry_high, entry_low, durable_high, durable_low) then
          break
        end
        at, old = behind, old + 1
      end
    end
    if old == entries and below(high, low, durable_high, durable_low) then
      old = old + 1 -- the event itself
    end
    local drop = math.max(old - keep, entries + 1 - ENTRIES_MAX)
    for _ = 1, drop do
      first = step(first)
      if not first then
        return refuse(DAMAGED)
      end
      entries = entries - 1
    end
  end
  entries = entries + 1
end

local kept = sub(blob, first)
blob = struct.pack('>BBI2I4', 1, slots, entries, 8 + #header + #kept + #entry) .. header .. kept .. entry
if ttl ~= '0' then
  redis.call('SET', KEYS[1], blob, 'EX', ttl)
else
  redis.call('SET', KEYS[1], blob)
end
return {outcome, blob}

-- Whose turn it is to forecast the waits of a queue: one process at a time, once per tick; the others get what it said last.
-- KEYS[1] headway:{wait:Q}:frame    KEYS[2] headway:{wait:Q}:calibration
-- ARGV[1] who asks   ARGV[2] tick_ms   ARGV[3] hold_ms: who had the last turn keeps it unless silent for this long
-- Returns {'mine', calibration or ''}, {'theirs', frame or ''}, or {'early', frame or ''}: it is the asker's again when the tick is over
-- A frame that nobody renews goes after ten seconds.
local FRAME_MS = '10000'
local t = redis.call('TIME')
local at = tonumber(t[1]) * 1000 + math.floor(tonumber(t[2]) / 1000)
local last = redis.call('HMGET', KEYS[1], 'holder', 'begun', 'frame')
local age = at - tonumber(last[2] or '0')
-- A clock that was set back must not stop the turns.
if age >= 0 and (age < tonumber(ARGV[2]) or (last[1] ~= ARGV[1] and age < tonumber(ARGV[3]))) then
  return { last[1] == ARGV[1] and 'early' or 'theirs', last[3] or '' }
end
redis.call('HSET', KEYS[1], 'holder', ARGV[1], 'begun', string.format('%d', at))
redis.call('PEXPIRE', KEYS[1], FRAME_MS)
return { 'mine', redis.call('GET', KEYS[2]) or '' }

-- include: event group progress
-- Writes the whole progress of a running job: what is not named is cleared. Renews the lease.
-- KEYS[1] headway:{p}:job:J
-- ARGV[1] verb   ARGV[2] fence   ARGV[3] write number (each write under a fence has a higher one)   ARGV[4] lease_ms
-- ARGV[5] phase   ARGV[6] percent and ARGV[7] phase_percent, in tenths   ARGV[8…] optional name, value pairs
-- Returns {'ok', seq, '1' if clamped else '0', cancel JSON or ''} or {'lost'}; HEADWAY error for a value that breaks a rule
local key, fence = KEYS[1], ARGV[2]
local base, job = split_job_key(key)
local h = redis.call('HMGET', key, 'fence', 'write_no', 'seq', 'phase', 'percent', 'phase_percent', 'stage', 'attempt', 'queue',
  'cancel', 'traceparent')
if h[1] ~= fence then return { 'lost' } end
if not string.match(ARGV[3], '^%d+$') then return refuse('write number: an integer is needed') end
-- Before the first write there is no number.
if tonumber(ARGV[3]) <= tonumber(h[2] or '0') then return { 'ok', h[3], '0', h[10] or '' } end

local phase = ARGV[5]
local wrong = phase_error(h[4], phase)
if wrong then return refuse(wrong) end
local percent, phase_percent = tenths(ARGV[6], PERCENT_MAX), tenths(ARGV[7], 1000)
if not percent or not phase_percent then return refuse('percent: tenths from 0 to 1000 are needed') end

local s = { phase = phase, attempt = h[8], cancel = h[10] or nil, traceparent = h[11] or nil, seq = h[3] }
for i = 8, #ARGV, 2 do
  local value, mistake = checked(ARGV[i], ARGV[i + 1])
  if mistake then return refuse(mistake) end
  s[ARGV[i]] = value
end
local old = { phase = h[4], percent = h[5], phase_percent = h[6], stage = h[7], queue = h[9], cancel = h[10] or nil }
return write_progress(key, base, job, ARGV[1], old, s, percent, phase_percent, ARGV[3], ARGV[4])

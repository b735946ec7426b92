-- include: event line group ends
-- A running job failed: the next attempt after a full-jitter back-off, or FAILED.
-- KEYS[1] headway:{p}:job:J    KEYS[2] headway:{wake}:Q (standalone and Sentinel only)
-- ARGV[1] verb   ARGV[2] fence   ARGV[3] error JSON object   ARGV[4] '1' = a retry may help
-- ARGV[5] random number 0…999999 for the jitter   ARGV[6] stages JSON object or ''
-- Returns {'retry', attempt, delay_ms}, {'dead'} or {'lost'}; repeated with the same fence it answers as before
local BACKOFF_MS = 5000
local BACKOFF_MAX_MS = 300000

local key, fence = KEYS[1], ARGV[2]
local base, job = split_job_key(key)
local s = read_hash(key)
if s.fence ~= fence then
  if s.last_fence == fence and s.last_outcome then
    local attempt, delay = string.match(s.last_outcome, '^retry (%d+) (%d+)$')
    if attempt then return { 'retry', attempt, delay } end
    if s.last_outcome == 'FAILED' then return { 'dead' } end
  end
  return { 'lost' }
end
touch(key)
local at = now_ms()
if s.cancel then
  -- A job whose cancel was asked for does not start again, however its worker came to stop.
  end_job(key, base, job, ARGV[1], s, 'CANCELLED', at, '', 'FAILED', ARGV[6])
  return { 'dead' }
end
redis.call('HSET', key, 'error', ARGV[3])
local attempt = tonumber(s.attempt)
if ARGV[4] == '1' and attempt < tonumber(s.max_attempts) then
  local bound = math.min(BACKOFF_MS * 2 ^ (attempt - 1), BACKOFF_MAX_MS)
  local delay = math.max(1, math.floor(bound * tonumber(ARGV[5]) / 1000000))
  requeue(key, base, job, ARGV[1], s, at, delay, true, ',"error":' .. ARGV[3],
    'retry ' .. int(attempt + 1) .. ' ' .. int(delay))
  return { 'retry', int(attempt + 1), int(delay) }
end
end_job(key, base, job, ARGV[1], s, 'FAILED', at, ',"error":' .. ARGV[3], 'FAILED', ARGV[6])
return { 'dead' }

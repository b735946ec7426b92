-- include: event line group ends
-- A worker that shuts down hands a job back: head of its band, and no attempt of its budget is used.
-- KEYS[1] headway:{p}:job:J    KEYS[2] headway:{wake}:Q (standalone and Sentinel only)
-- ARGV[1] verb   ARGV[2] fence
-- Returns {'ok'} (also when repeated) or {'lost'}
local key, fence = KEYS[1], ARGV[2]
local base, job = split_job_key(key)
local s = read_hash(key)
if s.fence ~= fence then
  if s.last_fence == fence and s.last_outcome == 'released' then return { 'ok' } end
  return { 'lost' }
end
if s.queue == HELD then return refuse('a progress-only job cannot be handed back: finish or fail it') end
touch(key)
local at = now_ms()
if s.cancel then
  end_job(key, base, job, ARGV[1], s, 'CANCELLED', at, '', 'released', '')
  return { 'ok' }
end
-- Percent must not fall within an attempt: where progress was shown the next claim is a new attempt, with one more allowed.
local shown = s.phase ~= 'QUEUED' or s.percent ~= '0.0'
if shown then s.max_attempts = int(tonumber(s.max_attempts) + 1) end
requeue(key, base, job, ARGV[1], s, at, 0, shown, '', 'released')
return { 'ok' }

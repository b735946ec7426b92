-- include: event line group ends
-- Ends a running job well, or acknowledges its cancel.
-- KEYS[1] headway:{p}:job:J    KEYS[2] headway:{wake}:Q (standalone and Sentinel only)
-- ARGV[1] verb   ARGV[2] fence   ARGV[3] COMPLETE or CANCELLED   ARGV[4] result JSON object or ''   ARGV[5] stages JSON object or ''
-- Returns {'ok'} (also when this fence ended it so before) or {'lost'}
local key, fence, phase = KEYS[1], ARGV[2], ARGV[3]
local base, job = split_job_key(key)
local s = read_hash(key)
if s.fence ~= fence then
  if s.last_fence == fence and s.last_outcome == phase then return { 'ok' } end
  return { 'lost' }
end
touch(key)
local result = phase == 'COMPLETE' and ARGV[4] ~= '' and ARGV[4] or nil
end_job(key, base, job, ARGV[1], s, phase, now_ms(), result and ',"result":' .. result or '', phase, ARGV[5], result)
return { 'ok' }

-- include: event ends
-- Cancels a waiting job at once; asks the worker of a running one.
-- KEYS[1] headway:{p}:job:J
-- ARGV[1] verb   ARGV[2] who   ARGV[3] why or ''   ARGV[4] grace_ms until reap forces it   ARGV[5] prefix of the workers' hint channels
-- Returns {'absent'}, {'ended', phase}, {'cancelled'} or {'requested', '1' if this call was the first else '0'}
local key = KEYS[1]
local base, job = split_job_key(key)
local s = read_hash(key)
if not s.phase then return { 'absent' } end
if TERMINAL[s.phase] then return { 'ended', s.phase } end
touch(key)
local at = now_ms()
local first = not s.cancel
if first then
  s.cancel = '{"by":' .. quoted(ARGV[2]) .. (ARGV[3] ~= '' and ',"reason":' .. quoted(ARGV[3]) or '') .. ',"at":' .. int(at) .. '}'
  redis.call('HSET', key, 'cancel', s.cancel)
end
if not s.fence then
  end_job(key, base, job, ARGV[1], s, 'CANCELLED', at, '', 'CANCELLED', '')
  return { 'cancelled' }
end
if first then
  redis.call('ZADD', queue_base(base, s.queue) .. 'deadlines', at + tonumber(ARGV[4]), job)
  emit(key, base, job, ARGV[1], 'progress', s, at, nil)
end
-- Only a hint: every heartbeat and progress reply carries the flag too.
if ARGV[1] ~= '' then redis.call('PUBLISH', ARGV[5] .. s.worker, job) end
return { 'requested', first and '1' or '0' }

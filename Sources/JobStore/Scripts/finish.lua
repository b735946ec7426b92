-- include: event line group ends claiming
-- Ends a running job well, or acknowledges its cancel; and gives its worker the next one, where it asks for that.
-- KEYS[1] headway:{p}:job:J    KEYS[2] headway:{wake}:Q (standalone and Sentinel only)
-- ARGV[1] verb   ARGV[2] fence   ARGV[3] COMPLETE or CANCELLED   ARGV[4] result JSON object or ''   ARGV[5] stages JSON object or ''
-- ARGV[6] nonce of its claim; '' or nothing where it came along with an end
-- ARGV[7…] nothing, or the next job is asked for, from the same partition: queue, worker, lease_ms, epoch, labels… as claim takes them
-- Returns {'ok'} (also when this fence ended it so before), followed by the answer of claim where one was asked for, or {'lost'}
-- The job remembers which came along with its end: a repetition answers the same while that one is held, and never takes another: it
-- may be heard by nobody.
local key, fence, phase, queue = KEYS[1], ARGV[2], ARGV[3], ARGV[7]
local base, job = split_job_key(key)
local s = read_running(key)
local at, now = now_ms()
local q = queue and queue_base(base, queue)
local set = q and read_line(q)
local again, taken
if s.fence == fence then
  -- Its first write needs no memory (see touch in ends.lua): its claim is forgotten, the job leaves its places.
  local result = phase == 'COMPLETE' and ARGV[4] ~= '' and ARGV[4] or nil
  if ARGV[6] and ARGV[6] ~= '' then redis.call('DEL', base .. 'claim:' .. ARGV[6]) end
  s.now = now
  end_job(key, base, job, ARGV[1], s, phase, at, result and ',"result":' .. result or '', phase, ARGV[5], result,
    set and not set[3] and s.queue == queue)
else
  local last = redis.call('HMGET', key, 'last_fence', 'last_outcome', 'next')
  if last[1] ~= fence or last[2] ~= phase then return { 'lost' } end
  again = q and (last[3] and same_claim(base, q, last[3], at, tonumber(ARGV[9])) or { 'empty', '0' })
end
if not q then return { 'ok' } end
local answer = again
if not again then
  answer, taken = claim_next(base, at, now, ARGV[1], queue, ARGV[8], tonumber(ARGV[9]), ARGV[10], 11, set, s)
  if taken then redis.call('HSET', key, 'next', taken) end
end
table.insert(answer, 1, 'ok')
return answer

-- include: event line group ends claiming
-- Ends a running job well, or acknowledges its cancel; and gives its worker the next one, where it asks for that.
-- KEYS[1] headway:{p}:job:J    KEYS[2] headway:{wake}:Q (standalone and Sentinel only)
-- ARGV[1] verb   ARGV[2] fence   ARGV[3] COMPLETE or CANCELLED   ARGV[4] result JSON object or ''   ARGV[5] stages JSON object or ''
-- ARGV[6] nonce of its claim; '' or nothing where it came along with an end
-- ARGV[7…] nothing, or the next job is asked for, from the same partition: queue, worker, lease_ms, random, labels… as claim takes them
-- Returns {'ok'} (also when this fence ended it so before), followed by the answer of claim where one was asked for, or {'lost'}
-- The job remembers which came along with its end: a repetition answers the same while that one is held, and never takes another: it
-- may be heard by nobody.
local key, fence, phase, queue = KEYS[1], ARGV[2], ARGV[3], ARGV[7]
local base, job = split_job_key(key)
local s = read_running(key)
local at, now = now_ms()
local q = queue and queue_base(base, queue)
local set = q and read_line(q)
local answer, taken
if s.fence == fence then
  s.now = now
  local result = phase == 'COMPLETE' and ARGV[4] ~= '' and ARGV[4] or nil
  local extra = result and ',"result":' .. result or ''
  -- The first write needs no memory (see touch in ends.lua): its claim is forgotten, the job leaves its places.
  if ARGV[6] and ARGV[6] ~= '' then redis.call('DEL', base .. 'claim:' .. ARGV[6]) end
  if set and not set[3] and s.queue == queue then
    -- Where no tenant's limit has to see the place free, the claim comes before the latch and does with its own writes what is left in
    -- `s.freed` (the tenant that runs one less) and `s.ended` (the counter that is to go up).
    local before = s.percent
    forget_places(base, job, s)
    s.freed, s.ended = tenant_of(s.owner), string.lower(phase)
    answer, taken = claim_next(base, at, now, ARGV[1], queue, ARGV[8], tonumber(ARGV[9]), ARGV[10], 11, set, s)
    latch(key, base, job, ARGV[1], s, phase, at, extra, phase, ARGV[5], result, taken)
    if group_of(job) then tell_group(base, ARGV[1], job, s, s.ended, before, at) end
  else
    end_job(key, base, job, ARGV[1], s, phase, at, extra, phase, ARGV[5], result)
    if set then
      answer, taken = claim_next(base, at, now, ARGV[1], queue, ARGV[8], tonumber(ARGV[9]), ARGV[10], 11, set, s)
      if taken then redis.call('HSET', key, 'next', taken) end
    end
  end
else
  local last = redis.call('HMGET', key, 'last_fence', 'last_outcome', 'next')
  if last[1] ~= fence or last[2] ~= phase then return { 'lost' } end
  answer = q and (last[3] and same_claim(base, q, last[3], at, tonumber(ARGV[9])) or { 'empty', '0' })
end
if not answer then return { 'ok' } end
table.insert(answer, 1, 'ok')
return answer

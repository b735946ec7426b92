-- include: event line group ends claiming
-- Ends a running job well, or acknowledges its cancel; and gives its worker the next one, where it asks for that.
-- KEYS[1] headway:{p}:job:J    KEYS[2] headway:{wake}:Q (standalone and Sentinel only)
-- ARGV[1] verb   ARGV[2] fence   ARGV[3] COMPLETE or CANCELLED   ARGV[4] result JSON object or ''   ARGV[5] stages JSON object or ''
-- ARGV[6] nonce of its claim or ''   ARGV[7…] nothing, or what claim takes from its ARGV[2] on: the next job comes from the same partition
-- Returns {'ok'} (also when this fence ended it so before), followed by the answer of claim where one was asked for, or {'lost'}
local key, fence, phase = KEYS[1], ARGV[2], ARGV[3]
local base, job = split_job_key(key)
local s = read_running(key)
local at, now = now_ms()
if s.fence == fence then
  -- Its first write needs no memory (see touch in ends.lua): its claim is forgotten, the job leaves its places.
  local result = phase == 'COMPLETE' and ARGV[4] ~= '' and ARGV[4] or nil
  if ARGV[6] and ARGV[6] ~= '' then redis.call('DEL', base .. 'claim:' .. ARGV[6]) end
  end_job(key, base, job, ARGV[1], s, phase, at, result and ',"result":' .. result or '', phase, ARGV[5], result)
elseif s.last_fence ~= fence or s.last_outcome ~= phase then
  return { 'lost' }
end
if not ARGV[7] then return { 'ok' } end
local answer = claim_next(base, at, now, ARGV[1], ARGV[7], ARGV[8], ARGV[9], tonumber(ARGV[10]), ARGV[11], 12)
table.insert(answer, 1, 'ok')
return answer

-- include: event group
-- Creates a progress-only job: no queue and no worker, its producer reports under a lease of its own. The same nonce from the same
-- owner returns the same token, so a lost reply costs nothing.
-- KEYS[1] headway:{p}:job:J
-- ARGV[1] verb   ARGV[2] fence: the write token to use, 128 random bits   ARGV[3] nonce   ARGV[4] lease_ms
-- ARGV[5…] field, value pairs of the hash
-- Returns {'new' | 'exists', fence, seq} or {'conflict'}
local FIELDS = {
  pipeline = true, owner = true, params = true, max_runtime_ms = true, ttl_ms = true, class = true, cold = true, plan = true,
  traceparent = true, worker = true,
}
local AUDIT_RUNNING_MS = 10 * 60 * 1000

local key = KEYS[1]
local base, job = split_job_key(key)
local s = {}
for i = 5, #ARGV, 2 do
  if not FIELDS[ARGV[i]] then return refuse('unknown field ' .. ARGV[i]) end
  s[ARGV[i]] = ARGV[i + 1]
end
if group_of(job) then return refuse('id: ~ is reserved for the children of a group') end
local old = redis.call('HMGET', key, 'owner', 'nonce', 'fence', 'seq')
if old[1] then
  if old[1] == s.owner and old[2] == ARGV[3] and old[3] then return { 'exists', old[3], old[4] } end
  return { 'conflict' }
end

local at = now_ms()
local lease = tonumber(ARGV[4])
s.v, s.id, s.queue, s.priority, s.phase, s.percent, s.phase_percent = '1', job, HELD, '5', 'QUEUED', '0.0', '0.0'
s.attempt, s.max_attempts, s.write_no, s.seq, s.fence, s.nonce = '1', '1', '0', '1', ARGV[2], ARGV[3]
s.created_at, s.updated_at, s.claimed_at, s.started_at = int(at), int(at), int(at), int(at)
s.body = event_json(job, '1', 'phase', s, s.created_at, nil)
local flat = {}
for name, value in pairs(s) do
  flat[#flat + 1] = name
  flat[#flat + 1] = value
end
redis.call('HSET', key, unpack(flat))
redis.call('PEXPIRE', key, KEEP_MS)
local q = base .. 'queue:' .. HELD .. ':'
redis.call('ZADD', q .. 'leases', at + lease, job)
local deadline = at + AUDIT_RUNNING_MS
if s.max_runtime_ms then deadline = math.min(deadline, at + tonumber(s.max_runtime_ms) + lease) end
redis.call('ZADD', q .. 'deadlines', deadline, job)
redis.call('HINCRBY', q .. 'meta', 'submitted', 1)
publish(ARGV[1], base, job, 1, 'm', '0', false, s.body)
return { 'new', ARGV[2], '1' }

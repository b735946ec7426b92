-- include: event ends
-- Creates a job, or answers that it exists.
-- KEYS[1] headway:{p}:job:J    KEYS[2] headway:{wake}:Q (standalone and Sentinel only)
-- ARGV[1] verb (PUBLISH, SPUBLISH or '')   ARGV[2] '1' = remember the id for 24 h (idempotency key)
-- ARGV[3] band 0…9 (0 is first)   ARGV[4] delay_ms   ARGV[5] expires_at or '' (24 h)   ARGV[6…] field, value pairs of the hash
-- Returns {'new' | 'exists' | 'conflict' | 'gone' | 'full', seq, body, phase, owner}
local FIELDS = {
  queue = true, pipeline = true, owner = true, priority = true, params = true, max_attempts = true, max_runtime_ms = true, ttl_ms = true,
  class = true, cold = true, plan = true, traceparent = true, retry_of = true,
}
local WAIT_MS = 24 * 3600 * 1000
local IDEMPOTENCY_MS = 24 * 3600 * 1000

local key = KEYS[1]
local base, job = split_job_key(key)
local verb, wake = ARGV[1], KEYS[2] or ''
local s = {}
for i = 6, #ARGV, 2 do
  if not FIELDS[ARGV[i]] then return refuse('unknown field ' .. ARGV[i]) end
  s[ARGV[i]] = ARGV[i + 1]
end

local old = redis.call('HMGET', key, 'owner', 'queue', 'pipeline', 'params', 'seq', 'body', 'phase')
if old[1] then
  -- The same submit again (a retry after a lost reply) is answered with the job; anything else is a conflict.
  if old[1] == s.owner and old[2] == s.queue and old[3] == s.pipeline and old[4] == s.params then
    return { 'exists', old[5], old[6], old[7], old[1] }
  end
  return { 'conflict' }
end
local idem = base .. 'idem:' .. job
local digest = redis.sha1hex(s.owner .. '\n' .. s.queue .. '\n' .. s.pipeline .. '\n' .. s.params)
if ARGV[2] == '1' then
  local known = redis.call('GET', idem)
  if known then return { known == digest and 'gone' or 'conflict' } end
end

local q = queue_base(base, s.queue)
local limit = redis.call('HGET', q .. 'meta', 'max_depth')
if limit and redis.call('ZCARD', q .. 'ready') + redis.call('ZCARD', q .. 'delayed') >= tonumber(limit) then return { 'full', limit } end

local at = now_ms()
local delay = tonumber(ARGV[4])
local expires = ARGV[5] ~= '' and tonumber(ARGV[5]) or at + delay + WAIT_MS
s.score = int(tonumber(ARGV[3]) * 2 ^ 40 + redis.call('HINCRBY', q .. 'meta', 'tag', 1))
s.v, s.id, s.phase, s.percent, s.phase_percent, s.attempt = '1', job, 'QUEUED', '0.0', '0.0', '1'
s.created_at, s.expires_at = int(at), int(expires)

local flat = {}
for name, value in pairs(s) do
  flat[#flat + 1] = name
  flat[#flat + 1] = value
end
redis.call('HSET', key, unpack(flat))
redis.call('PEXPIRE', key, math.max(KEEP_MS, expires - at + KEEP_MS))
if ARGV[2] == '1' then redis.call('SET', idem, digest, 'PX', IDEMPOTENCY_MS) end
redis.call('ZADD', q .. 'deadlines', waiting_deadline(s, at), job)
if delay > 0 then
  redis.call('ZADD', q .. 'delayed', at + delay, job)
else
  redis.call('ZADD', q .. 'ready', s.score, job)
end
-- A delayed job wakes a worker too, so that it learns of an earlier due date.
push_wake(wake, base)
redis.call('HINCRBY', q .. 'meta', 'submitted', 1)

local seq = 1
local body = event_json(job, seq, 'phase', s, at, nil)
redis.call('HSET', key, 'seq', '1', 'body', body, 'updated_at', int(at))
publish(verb, base, job, seq, 'm', 'QUEUED', false, body)
return { 'new', '1', body, 'QUEUED', s.owner }

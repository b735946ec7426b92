-- include: event line group
-- Creates a job, a group of jobs or a child of a group, or answers that it exists.
-- KEYS[1] headway:{p}:job:J, for a child without a number of its own the group's    KEYS[2] headway:{wake}:Q (standalone and Sentinel only)
-- ARGV[1] verb (PUBLISH, SPUBLISH or '')   ARGV[2] '1' = remember the id for 24 h (idempotency key); 'child' = take the next free
-- number of the group   ARGV[3] band 0…9 (0 is first)   ARGV[4] delay_ms   ARGV[5] expires_at or '' (24 h)
-- ARGV[6…] field, value pairs of the hash; `children` = how many a group will have
-- Returns {'new' | 'exists', seq, body, phase, owner, id}, {'conflict'}, {'gone'}, {'full', limit}, {'tenant_full', limit}, {'draining'},
-- {'no_group'}, {'group_full', limit} or {'group_ended'}
local FIELDS = {
  queue = true, pipeline = true, owner = true, priority = true, params = true, max_attempts = true, max_runtime_ms = true, ttl_ms = true,
  class = true, cold = true, plan = true, traceparent = true, retry_of = true, prefer = true, children = true,
}
local WAIT_MS = 24 * 3600 * 1000
local IDEMPOTENCY_MS = '86400000'
local AUDIT_WAITING_MS = 60 * 60 * 1000

local key = KEYS[1]
local base, job = split_job_key(key)
local verb = ARGV[1]
local s = {}
for i = 6, #ARGV, 2 do
  if not FIELDS[ARGV[i]] then return refuse('unknown field ' .. ARGV[i]) end
  s[ARGV[i]] = ARGV[i + 1]
end
local expected = s.children
s.children = nil

-- The group of a child, and its number where it has none yet.
local group = ARGV[2] == 'child' and job or group_of(job)
local g
if group then
  local parent = redis.call('HMGET', base .. 'job:' .. group, 'owner', 'phase', 'cancel')
  g = read_hash(base .. 'group:' .. group)
  if parent[1] ~= s.owner or not g.expected then return { 'no_group' } end
  local made, most = tonumber(g.made or '0'), tonumber(g.expected)
  if ARGV[2] == 'child' or redis.call('EXISTS', key) == 0 then
    if TERMINAL[parent[2]] or parent[3] then return { 'group_ended' } end
    if made >= most or tonumber(string.match(job, '~(%d+)$') or '0') > most then return { 'group_full', g.expected } end
  end
  if ARGV[2] == 'child' then
    -- Children may have come with numbers of their own choice: the next free one, round and round.
    local number = made
    repeat
      number = number % most + 1
      job = group .. '~' .. int(number)
      key = base .. 'job:' .. job
    until redis.call('EXISTS', key) == 0
  end
end

if redis.call('EXISTS', key) == 1 then
  local old = redis.call('HMGET', key, 'owner', 'queue', 'pipeline', 'params', 'seq', 'body', 'phase')
  -- The same submit again (a retry after a lost reply) is answered with the job; anything else is a conflict.
  if old[1] == s.owner and old[2] == s.queue and old[3] == s.pipeline and old[4] == s.params then
    return { 'exists', old[5], old[6], old[7], old[1], job }
  end
  return { 'conflict' }
end
local idem = base .. 'idem:' .. job
local digest
if ARGV[2] == '1' then
  digest = redis.sha1hex(s.owner .. '\n' .. s.queue .. '\n' .. s.pipeline .. '\n' .. s.params)
  local known = redis.call('GET', idem)
  if known then return { known == digest and 'gone' or 'conflict' } end
end

local q, tenant = queue_base(base, s.queue), tenant_of(s.owner)
local set = redis.call('HMGET', q .. 'meta', 'draining', 'max_depth', 'parked', 'limits', 'weight:' .. tenant, 'max_queued:' .. tenant,
  'tenant_max_queued', 'clock' .. ARGV[3])
if set[1] then return { 'draining' } end
if set[2] and redis.call('ZCARD', q .. 'ready') + redis.call('ZCARD', q .. 'delayed') + tonumber(set[3] or '0') >= tonumber(set[2]) then
  return { 'full', set[2] }
end
local tenant_limit = tonumber(set[6] or set[7] or '')
if tenant_limit and tonumber(redis.call('HGET', q .. 'tenant:' .. tenant, 'queued') or '0') >= tenant_limit then
  return { 'tenant_full', int(tenant_limit) }
end

local at = now_ms()
local delay = tonumber(ARGV[4])
local expires = ARGV[5] ~= '' and tonumber(ARGV[5]) or at + delay + WAIT_MS
local waits = s.queue ~= HELD
s.v, s.id, s.phase, s.percent, s.phase_percent, s.attempt = '1', job, 'QUEUED', '0.0', '0.0', '1'
s.created_at, s.updated_at, s.expires_at, s.seq = int(at), int(at), int(expires), '1'
if expected then s.children = children_json({ expected = expected }) end
local t, t_key, t_field = nil, q .. 'tenant:' .. tenant, 't' .. ARGV[3]
if waits then
  t = redis.call('HMGET', t_key, 'queued', t_field)
  if delay == 0 then s.score, t[3] = tagged(tonumber(ARGV[3]), t[2], set[8], set[5]) end
end
local body = event_json(job, 1, 'phase', s, at, nil)
s.body = body

local flat, n = {}, 0
for name, value in pairs(s) do
  flat[n + 1], flat[n + 2] = name, value
  n = n + 2
end
redis.call('HSET', key, unpack(flat))
redis.call('PEXPIRE', key, int(math.max(0, expires - at) + tonumber(KEEP_MS)))
if digest then redis.call('SET', idem, digest, 'PX', IDEMPOTENCY_MS) end
redis.call('ZADD', q .. 'deadlines', int(math.min(expires, at + AUDIT_WAITING_MS)), job)
if waits then
  local queued = int(tonumber(t[1] or '0') + 1)
  if t[3] then
    redis.call('HSET', t_key, 'queued', queued, t_field, t[3])
  else
    redis.call('HSET', t_key, 'queued', queued)
  end
  -- Its TTL runs from its first job on; reap renews it.
  if not t[2] then
    know(q, tenant)
    redis.call('PEXPIRE', t_key, TENANT_TTL_MS)
  end
  if delay > 0 then
    redis.call('ZADD', q .. 'delayed', int(at + delay), job)
    -- So that an idle worker learns of the due date.
    push_wake(base, s.queue)
  else
    enter(base, s.queue, job, s.score, tenant, set[4])
  end
end
redis.call('HINCRBY', q .. 'meta', 'submitted', 1)
publish(verb, base, job, 1, 'm', 'QUEUED', false, body)

if expected then
  redis.call('HSET', base .. 'group:' .. job, 'expected', expected)
  redis.call('PEXPIRE', base .. 'group:' .. job, KEEP_MS)
elseif g then
  redis.call('HINCRBY', base .. 'group:' .. group, 'made', 1)
  redis.call('HINCRBY', base .. 'group:' .. group, 'waiting', 1)
  g = read_hash(base .. 'group:' .. group)
  write_group(base, verb, group, g, at)
end
return { 'new', '1', body, 'QUEUED', s.owner, job }

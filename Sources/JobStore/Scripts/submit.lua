-- include: event line group
-- Creates a job, a group of jobs or a child of a group, or answers that it exists.
-- KEYS[1] headway:{p}:job:J, for a child without a number of its own the group's    KEYS[2] headway:{wake}:Q (standalone and Sentinel only)
-- ARGV[1] verb (PUBLISH, SPUBLISH or '')   ARGV[2] '1' = remember the id for 24 h (idempotency key); 'child' = take the next free
-- number of the group   ARGV[3] band 0…9 (0 is first)   ARGV[4] delay_ms   ARGV[5] expires_at or '' (24 h)
-- ARGV[6] queue   ARGV[7] pipeline   ARGV[8] owner   ARGV[9] priority   ARGV[10] params   ARGV[11] max_attempts   ARGV[12] ttl_ms
-- ARGV[13…] further field, value pairs of the hash; `children` = how many a group will have
-- Returns {'new', id, body}, {'exists', id, body, seq, phase, owner}, {'conflict'}, {'gone'}, {'full', limit}, {'tenant_full', limit}, {'draining'},
-- {'no_group'}, {'group_full', limit} or {'group_ended'}
local WAIT_MS = 24 * 3600 * 1000
-- That and what is kept of every job (KEEP_MS in event.lua).
local LIFE_MS = '691200000'
local IDEMPOTENCY_MS = '86400000'
local AUDIT_WAITING_MS = 60 * 60 * 1000

local key = KEYS[1]
local base, job = split_job_key(key)
local verb, queue, owner = ARGV[1], ARGV[6], ARGV[8]
-- What the event shows, and what only some jobs have.
local s, more, expected = { phase = 'QUEUED', percent = '0.0', phase_percent = '0.0', attempt = '1' }, nil, nil
if ARGV[13] then
  local FIELDS = {
    max_runtime_ms = true, class = true, cold = true, plan = true, traceparent = true, retry_of = true, prefer = true, children = true,
  }
  more = {}
  for i = 13, #ARGV, 2 do
    if not FIELDS[ARGV[i]] then return refuse('unknown field ' .. ARGV[i]) end
    if ARGV[i] == 'children' then
      expected = ARGV[i + 1]
    else
      more[#more + 1], more[#more + 2] = ARGV[i], ARGV[i + 1]
      if ARGV[i] == 'traceparent' then s.traceparent = ARGV[i + 1] end
    end
  end
end

-- The group of a child, and its number where it has none yet.
local group = ARGV[2] == 'child' and job or group_of(job)
local g
if group then
  local parent = redis.call('HMGET', base .. 'job:' .. group, 'owner', 'phase', 'cancel')
  g = read_hash(base .. 'group:' .. group)
  if parent[1] ~= owner or not g.expected then return { 'no_group' } end
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
  if old[1] == owner and old[2] == queue and old[3] == ARGV[7] and old[4] == ARGV[10] then
    return { 'exists', job, old[6], old[5], old[7], old[1] }
  end
  return { 'conflict' }
end
local idem = base .. 'idem:' .. job
local digest
if ARGV[2] == '1' then
  digest = redis.sha1hex(owner .. '\n' .. queue .. '\n' .. ARGV[7] .. '\n' .. ARGV[10])
  local known = redis.call('GET', idem)
  if known then return { known == digest and 'gone' or 'conflict' } end
end

local q, tenant = queue_base(base, queue), tenant_of(owner)
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

local at, now = now_ms()
local delay = ARGV[4] ~= '0' and tonumber(ARGV[4]) or 0
local expires = ARGV[5] ~= '' and tonumber(ARGV[5]) or at + delay + WAIT_MS
if expected then
  s.children = children_json({ expected = expected })
  more[#more + 1], more[#more + 2] = 'children', s.children
end
local waits, t_key, t_field, t, score, tag = queue ~= HELD, q .. 'tenant:' .. tenant, 't' .. ARGV[3], nil, nil, nil
if waits then
  t = redis.call('HMGET', t_key, 'queued', t_field)
  if delay == 0 then score, tag = tagged(tonumber(ARGV[3]), t[2], set[8], set[5]) end
end
local body = event_json(job, '1', 'phase', s, now, nil)
redis.call('HSET', key, 'v', '1', 'id', job, 'queue', queue, 'pipeline', ARGV[7], 'owner', owner, 'priority', ARGV[9], 'params', ARGV[10],
  'max_attempts', ARGV[11], 'ttl_ms', ARGV[12], 'phase', 'QUEUED', 'percent', '0.0', 'phase_percent', '0.0', 'attempt', '1',
  'created_at', now, 'updated_at', now, 'expires_at', int(expires), 'seq', '1', 'body', body, score and 'score' or 'v', score or '1',
  more and 'v' or 'plain', '1')
if more then redis.call('HSET', key, unpack(more)) end
redis.call('PEXPIRE', key, expires - at == WAIT_MS and LIFE_MS or int(math.max(0, expires - at) + tonumber(KEEP_MS)))
if digest then redis.call('SET', idem, digest, 'PX', IDEMPOTENCY_MS) end
redis.call('ZADD', q .. 'deadlines', int(math.min(expires, at + AUDIT_WAITING_MS)), job)
if waits then
  local queued = int((t[1] or 0) + 1)
  if tag then
    redis.call('HSET', t_key, 'queued', queued, t_field, tag)
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
    push_wake(base, queue)
  else
    enter(base, queue, job, score, tenant, set[4])
  end
end
redis.call('HINCRBY', q .. 'meta', 'submitted', '1')
publish(verb, base, job, 1, 'm', '0', false, body)

if expected then
  redis.call('HSET', base .. 'group:' .. job, 'expected', expected)
  redis.call('PEXPIRE', base .. 'group:' .. job, KEEP_MS)
elseif g then
  redis.call('HINCRBY', base .. 'group:' .. group, 'made', 1)
  redis.call('HINCRBY', base .. 'group:' .. group, 'waiting', 1)
  g = read_hash(base .. 'group:' .. group)
  write_group(base, verb, group, g, at)
end
return { 'new', job, body }

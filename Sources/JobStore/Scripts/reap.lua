-- include: event line group ends
-- Ends what ran out of time and hands on what lost its worker. Any live process runs it about once a second.
-- KEYS[1] headway:{p}:queue:Q:meta    KEYS[2] headway:{wake}:Q (standalone and Sentinel only)
-- ARGV[1] verb   ARGV[2] queue   ARGV[3] at least this many ms since the last run, else nothing is done
-- Returns {'skipped'} or {'ok', requeued, ended}
local BATCH = 100
local DEAD_COUNT_MAX = 10000
-- Leases and tenants that one count looks at.
local RECOUNT_MAX = 5000
-- How long a worker has, after max_runtime_ms, to end its job itself.
local RUNTIME_GRACE_MS = 30000

local verb, queue = ARGV[1], ARGV[2]
local base = string.match(KEYS[1], '^(.-{[^}]*}:)')
local q = queue_base(base, queue)
local at = now_ms()
local last = redis.call('HGET', KEYS[1], 'reaped_at')
if last and at - tonumber(last) < tonumber(ARGV[3]) then return { 'skipped' } end
-- First a write that needs no memory: see touch in ends.lua.
redis.call('ZREMRANGEBYSCORE', q .. 'dead', '-inf', at - DEAD_TTL_MS)
redis.call('HSET', KEYS[1], 'reaped_at', int(at))

local requeued, ended = look(base, queue, verb, at, int(at))

local function fail_job(key, job, s, code, message)
  local error = '{"code":"' .. code .. '","message":"' .. message .. '","recoverable":false}'
  redis.call('HSET', key, 'error', error)
  end_job(key, base, job, verb, s, 'FAILED', at, ',"error":' .. error, 'FAILED', '')
  ended = ended + 1
end

local function check_running(key, job, s)
  local cancel_at = s.cancel and tonumber(string.match(s.cancel, '"at":(%d+)}$'))
  local claimed = tonumber(s.claimed_at)
  if cancel_at then
    -- Its time to acknowledge is over: that was the deadline this entry stood for.
    s.cancel = string.gsub(s.cancel, '}$', ',"forced":true}')
    end_job(key, base, job, verb, s, 'CANCELLED', at, '', 'CANCELLED', '')
    ended = ended + 1
  elseif s.max_runtime_ms and claimed + tonumber(s.max_runtime_ms) + RUNTIME_GRACE_MS <= at then
    fail_job(key, job, s, 'timeout', 'it ran longer than max_runtime_ms')
  elseif not redis.call('ZSCORE', q .. 'leases', job) then
    if lose_worker(key, base, job, verb, s, at) == 'requeued' then requeued = requeued + 1 else ended = ended + 1 end
  else
    redis.call('PEXPIRE', key, KEEP_MS)
    local next_look = at + AUDIT_RUNNING_MS
    if s.max_runtime_ms then
      next_look = math.min(next_look, claimed + tonumber(s.max_runtime_ms) + RUNTIME_GRACE_MS)
    end
    redis.call('ZADD', q .. 'deadlines', next_look, job)
  end
end

local function check_waiting(key, job, s)
  if not s.started_at and tonumber(s.expires_at) <= at then
    fail_job(key, job, s, 'expired', 'no worker was free before expires_at')
    return
  end
  local tenant = tenant_of(s.owner)
  if not redis.call('ZSCORE', q .. 'ready', job) and not redis.call('ZSCORE', q .. 'delayed', job)
    and not redis.call('ZSCORE', q .. 'parked:' .. tenant, job) then
    local score = s.score or next_score(q, tenant, 9 - tonumber(s.priority), nil)
    redis.call('HSET', key, 'score', score)
    enter(base, queue, job, score, tenant)
  end
  redis.call('PEXPIRE', key, KEEP_MS)
  redis.call('ZADD', q .. 'deadlines', s.started_at and at + AUDIT_WAITING_MS or waiting_deadline(s, at), job)
end

-- A group that waits for children who never came, or whose last end it missed.
local function check_group(key, job, s)
  local gkey = base .. 'group:' .. job
  local g = read_hash(gkey)
  local gone = tonumber(g.complete or '0') + tonumber(g.failed or '0') + tonumber(g.cancelled or '0')
  local living = tonumber(g.waiting or '0') + tonumber(g.running or '0')
  if g.expected and gone >= tonumber(g.expected) then
    end_group(base, verb, job, s, g, at)
    ended = ended + 1
  elseif living == 0 and tonumber(s.expires_at) <= at then
    fail_job(key, job, s, 'expired', 'its other children were never submitted')
  else
    redis.call('PEXPIRE', key, KEEP_MS)
    redis.call('PEXPIRE', gkey, KEEP_MS)
    redis.call('ZADD', q .. 'deadlines', at + AUDIT_RUNNING_MS, job)
  end
end

-- The tenants' running jobs, counted anew from the leases: after a job's hash was lost nobody knows whose place became free.
local function recount()
  local running = {}
  for _, job in ipairs(redis.call('ZRANGE', q .. 'leases', 0, RECOUNT_MAX - 1)) do
    local owner = redis.call('HGET', base .. 'job:' .. job, 'owner')
    if owner then running[tenant_of(owner)] = (running[tenant_of(owner)] or 0) + 1 end
  end
  for _, tenant in ipairs(redis.call('SRANDMEMBER', q .. 'tenants', RECOUNT_MAX)) do
    if redis.call('EXISTS', q .. 'tenant:' .. tenant) == 1 then
      redis.call('HSET', q .. 'tenant:' .. tenant, 'running', int(running[tenant] or 0))
    end
  end
  redis.call('HDEL', KEYS[1], 'recount')
end

-- A few tenants each time: forgotten when nothing of theirs is here, and their parked jobs let in where a place is free.
local function look_after_tenants()
  redis.call('PEXPIRE', q .. 'tenants', TENANT_TTL_MS)
  for _, tenant in ipairs(redis.call('SRANDMEMBER', q .. 'tenants', 10)) do
    local parked = redis.call('ZCARD', q .. 'parked:' .. tenant)
    if parked > 0 then
      redis.call('PEXPIRE', q .. 'parked:' .. tenant, KEEP_MS)
      redis.call('PEXPIRE', q .. 'tenant:' .. tenant, TENANT_TTL_MS)
      local limit = running_limit(q, tenant)
      local free = limit and limit - running_count(q, tenant) or BATCH
      if free > 0 then unpark(base, queue, tenant, math.min(free, BATCH)) end
    else
      local counts = redis.call('HMGET', q .. 'tenant:' .. tenant, 'queued', 'running')
      if not counts[1] and not counts[2] then
        redis.call('SREM', q .. 'tenants', tenant)
      elseif tonumber(counts[1] or '0') + tonumber(counts[2] or '0') > 0 then
        redis.call('PEXPIRE', q .. 'tenant:' .. tenant, TENANT_TTL_MS)
      end
    end
  end
end

for _, job in ipairs(redis.call('ZRANGEBYSCORE', q .. 'deadlines', '-inf', at, 'LIMIT', 0, BATCH)) do
  local key = base .. 'job:' .. job
  local s = read_hash(key)
  if not s.phase or is_terminal(s.phase) then
    redis.call('ZREM', q .. 'deadlines', job)
    redis.call('ZREM', q .. 'ready', job)
    redis.call('ZREM', q .. 'delayed', job)
    if redis.call('ZREM', q .. 'leases', job) == 1 or not s.phase then redis.call('HSET', KEYS[1], 'recount', '1') end
  elseif s.children then
    check_group(key, job, s)
  elseif s.fence then
    check_running(key, job, s)
  else
    check_waiting(key, job, s)
  end
end

local extra = redis.call('ZCARD', q .. 'dead') - DEAD_COUNT_MAX
if extra > 0 then redis.call('ZREMRANGEBYRANK', q .. 'dead', 0, extra - 1) end
if redis.call('HGET', KEYS[1], 'recount') then recount() end
look_after_tenants()
-- A worker that took the token and died before its claim must not leave the line asleep.
if redis.call('ZCARD', q .. 'ready') > 0 then push_wake(base, queue) end
return { 'ok', int(requeued), int(ended) }

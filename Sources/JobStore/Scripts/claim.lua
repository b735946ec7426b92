-- include: event ends
-- Gives the first eligible job of a queue to a worker.
-- KEYS[1] headway:{p}:queue:Q:ready    KEYS[2] headway:{wake}:Q (standalone and Sentinel only)
-- ARGV[1] verb   ARGV[2] queue   ARGV[3] worker   ARGV[4] nonce   ARGV[5] lease_ms   ARGV[6] epoch: random hex, used when none is set
-- Returns {'job', id, fence, attempt, max_attempts, pipeline, owner, params, class, cold, plan, max_runtime_ms, traceparent, created_at}
--         ('' for what is absent), {'empty', next_due_ms or ''} or {'paused'}
-- The same nonce returns the same claim, so a lost reply costs nothing.
local NONCE_MS = 120000
local SKIP_MAX = 100

local queue, worker, nonce, lease = ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5])
local verb, wake = ARGV[1], KEYS[2] or ''
local base = string.match(KEYS[1], '^(.-{[^}]*}:)')
local q = queue_base(base, queue)
local at = now_ms()

local function answer(job, s)
  return {
    'job', job, s.fence, s.attempt, s.max_attempts, s.pipeline, s.owner, s.params, s.class or '', s.cold or '', s.plan or '',
    s.max_runtime_ms or '', s.traceparent or '', s.created_at,
  }
end

local claimed = redis.call('GET', base .. 'claim:' .. nonce)
if claimed then
  local job, fence = string.match(claimed, '^(%S+) (%S+)$')
  local s = read_hash(base .. 'job:' .. job)
  if s.fence == fence then
    redis.call('ZADD', q .. 'leases', at + lease, job)
    return answer(job, s)
  end
end

if redis.call('HGET', q .. 'meta', 'paused') then return { 'paused' } end
promote_due(base, queue, at)
reclaim_expired(base, queue, verb, '', at)

for _ = 1, SKIP_MAX do
  local popped = redis.call('ZPOPMIN', q .. 'ready')
  local job = popped[1]
  if not job then break end
  local key = base .. 'job:' .. job
  local s = read_hash(key)
  if not s.phase or s.phase ~= 'QUEUED' or s.fence then
    -- Its hash is gone or it runs already: the entry was a leftover.
    if not s.phase then redis.call('ZREM', q .. 'deadlines', job) end
  elseif not s.started_at and tonumber(s.expires_at) <= at then
    local error = '{"code":"expired","message":"no worker was free before expires_at","recoverable":false}'
    redis.call('HSET', key, 'error', error)
    end_job(key, base, job, verb, s, 'FAILED', at, ',"error":' .. error, 'FAILED', '')
  else
    local epoch = redis.call('HGET', q .. 'meta', 'fence_epoch')
    if not epoch then
      epoch = ARGV[6]
      redis.call('HSET', q .. 'meta', 'fence_epoch', epoch)
    end
    s.fence = epoch .. ':' .. int(redis.call('HINCRBY', q .. 'meta', 'fence', 1))
    redis.call('HSET', key, 'fence', s.fence, 'worker', worker, 'write_no', '0', 'claimed_at', int(at))
    redis.call('HSETNX', key, 'started_at', int(at))
    redis.call('PEXPIRE', key, KEEP_MS)
    redis.call('ZADD', q .. 'leases', at + lease, job)
    local deadline = at + AUDIT_RUNNING_MS
    if s.max_runtime_ms then deadline = math.min(deadline, at + tonumber(s.max_runtime_ms) + lease) end
    redis.call('ZADD', q .. 'deadlines', deadline, job)
    redis.call('SET', base .. 'claim:' .. nonce, job .. ' ' .. s.fence, 'PX', NONCE_MS)
    if redis.call('ZCARD', q .. 'ready') > 0 then push_wake(wake, base) end
    return answer(job, s)
  end
end

-- When the next thing can happen here: a delayed job is due or a lease runs out.
local due = redis.call('ZRANGE', q .. 'delayed', 0, 0, 'WITHSCORES')[2]
local expiry = redis.call('ZRANGE', q .. 'leases', 0, 0, 'WITHSCORES')[2]
local nearest = math.min(tonumber(due or 'inf') or math.huge, tonumber(expiry or 'inf') or math.huge)
return { 'empty', nearest < math.huge and int(math.max(0, nearest - at)) or '' }

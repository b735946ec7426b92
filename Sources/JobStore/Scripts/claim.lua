-- include: event line group ends
-- Gives the first eligible job of a queue to a worker.
-- KEYS[1] headway:{p}:queue:Q:ready    KEYS[2] headway:{wake}:Q (standalone and Sentinel only)
-- ARGV[1] verb   ARGV[2] queue   ARGV[3] worker   ARGV[4] nonce   ARGV[5] lease_ms   ARGV[6] epoch: random hex, used when none is set
-- ARGV[7…] labels of the worker: jobs that prefer one of them come first, within bounds
-- Returns {'job', id, fence, attempt, max_attempts, pipeline, owner, params, class, cold, plan, max_runtime_ms, traceparent, created_at,
--         prefer} ('' for what is absent), {'empty', next_due_ms or ''} or {'paused'}
-- The same nonce returns the same claim, so a lost reply costs nothing.
local NONCE_MS = 120000
-- Leftovers, expired and parked jobs that one call clears away.
local SKIP_MAX = 100
-- A worker with labels looks this far for a job that prefers one of them, and passes over the same job this often at most.
local LOOK_AHEAD = 16
local PASSED_MAX = 8
-- A job waits this long for an idle worker with its label, while there is one.
local PREFER_MS = 500
-- An idle worker blocks for at most 25 s before it says so again.
local IDLE_MS = 27000

local verb, queue, worker, nonce, lease = ARGV[1], ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5])
local base = string.match(KEYS[1], '^(.-{[^}]*}:)')
local q = queue_base(base, queue)
local at = now_ms()
local labels = {}
for i = 7, #ARGV do
  labels[ARGV[i]] = true
  redis.call('ZREM', q .. 'idle:' .. ARGV[i], worker)
end

local function answer(job, s)
  return {
    'job', job, s.fence, s.attempt, s.max_attempts, s.pipeline, s.owner, s.params, s.class or '', s.cold or '', s.plan or '',
    s.max_runtime_ms or '', s.traceparent or '', s.created_at, s.prefer or '',
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

local set = redis.call('HMGET', q .. 'meta', 'paused', 'max_running', 'limits', 'fence_epoch')
if set[1] then return { 'paused' } end
promote_due(base, queue, at)
reclaim_expired(base, queue, verb, at)

-- What is first in the line and may start, with its score; clears away what must not stand there. Nil when there is none.
local function pop()
  for _ = 1, SKIP_MAX do
    local popped = redis.call('ZPOPMIN', q .. 'ready')
    local job = popped[1]
    if not job then return nil end
    local key = base .. 'job:' .. job
    local s = read_hash(key)
    if not s.phase or s.phase ~= 'QUEUED' or s.fence then
      -- Its hash is gone or it runs already: the entry was a leftover.
      if not s.phase then
        redis.call('ZREM', q .. 'deadlines', job)
        redis.call('HSET', q .. 'meta', 'recount', '1')
      end
    elseif not s.started_at and tonumber(s.expires_at) <= at then
      local error = '{"code":"expired","message":"no worker was free before expires_at","recoverable":false}'
      redis.call('HSET', key, 'error', error)
      end_job(key, base, job, verb, s, 'FAILED', at, ',"error":' .. error, 'FAILED', '')
    else
      local tenant = tenant_of(s.owner)
      local limit = set[3] and running_limit(q, tenant)
      if not limit or running_count(q, tenant) < limit then return job, s, tonumber(popped[2]) end
      park(q, tenant, job, popped[2])
    end
  end
end

local function is_free(s)
  if s.phase ~= 'QUEUED' or s.fence or (not s.started_at and tonumber(s.expires_at) <= at) then return false end
  local tenant = tenant_of(s.owner)
  local limit = set[3] and running_limit(q, tenant)
  return not limit or running_count(q, tenant) < limit
end

-- A job further back that prefers one of the worker's labels, while the first has not been passed over too often.
local function preferred(job, s, score)
  if not next(labels) or labels[s.prefer or ''] or tonumber(s.passed or '0') >= PASSED_MAX then return job, s, score end
  local ahead = redis.call('ZRANGE', q .. 'ready', 0, LOOK_AHEAD - 2, 'WITHSCORES')
  for i = 1, #ahead, 2 do
    local other, other_score = ahead[i], tonumber(ahead[i + 1])
    if math.floor(other_score / BAND) ~= math.floor(score / BAND) then break end
    local label = redis.call('HGET', base .. 'job:' .. other, 'prefer')
    if label and labels[label] then
      local t = read_hash(base .. 'job:' .. other)
      if is_free(t) then
        redis.call('ZREM', q .. 'ready', other)
        redis.call('ZADD', q .. 'ready', int(score), job)
        redis.call('HINCRBY', base .. 'job:' .. job, 'passed', 1)
        return other, t, other_score
      end
    end
  end
  return job, s, score
end

-- True when an idle worker with the job's label shall have it: it was just queued, and that worker is woken.
local function is_kept_for_another(s)
  if not s.prefer or labels[s.prefer] or at - tonumber(s.updated_at) >= PREFER_MS then return false end
  local idle = q .. 'idle:' .. s.prefer
  redis.call('ZREMRANGEBYSCORE', idle, '-inf', at)
  return redis.call('ZCARD', idle) > 0
end

local kept, kept_due = {}, nil
local function put_back()
  for i = 1, #kept, 3 do
    redis.call('ZADD', q .. 'ready', int(kept[i + 1]), kept[i])
    push_wake(base, queue, kept[i + 2])
  end
end

local function take(job, s, score)
  local key = base .. 'job:' .. job
  local epoch = set[4]
  if not epoch then
    epoch = ARGV[6]
    redis.call('HSET', q .. 'meta', 'fence_epoch', epoch)
  end
  s.fence = epoch .. ':' .. int(redis.call('HINCRBY', q .. 'meta', 'fence', 1))
  local started = s.started_at or int(at)
  redis.call('HSET', key, 'fence', s.fence, 'worker', worker, 'write_no', '0', 'claimed_at', int(at), 'started_at', started)
  redis.call('PEXPIRE', key, KEEP_MS)
  redis.call('ZADD', q .. 'leases', at + lease, job)
  local deadline = at + AUDIT_RUNNING_MS
  if s.max_runtime_ms then deadline = math.min(deadline, at + tonumber(s.max_runtime_ms) + lease) end
  redis.call('ZADD', q .. 'deadlines', deadline, job)
  redis.call('SET', base .. 'claim:' .. nonce, job .. ' ' .. s.fence, 'PX', NONCE_MS)
  count(q, tenant_of(s.owner), -1, 1)
  local band = math.floor(score / BAND)
  local clock, tag = 'clock' .. int(band), score - band * BAND
  if tag > tonumber(redis.call('HGET', q .. 'meta', clock) or '0') then redis.call('HSET', q .. 'meta', clock, int(tag)) end
  group_changed(base, verb, job, 'waiting', 'running', 0, 0, at)
end

if not set[2] or redis.call('ZCARD', q .. 'leases') < tonumber(set[2]) then
  for _ = 1, LOOK_AHEAD do
    local job, s, score = pop()
    if not job then break end
    job, s, score = preferred(job, s, score)
    if not is_kept_for_another(s) then
      put_back()
      take(job, s, score)
      -- Also for a job that is kept: who alone may have known when its time comes is busy from now on.
      if redis.call('ZCARD', q .. 'ready') > 0 then push_wake(base, queue) end
      return answer(job, s)
    end
    local left = PREFER_MS - (at - tonumber(s.updated_at))
    kept_due = math.min(kept_due or left, left)
    kept[#kept + 1], kept[#kept + 2], kept[#kept + 3] = job, score, s.prefer
  end
  put_back()
  for label in pairs(labels) do
    redis.call('ZADD', q .. 'idle:' .. label, at + IDLE_MS, worker)
    redis.call('PEXPIRE', q .. 'idle:' .. label, IDLE_MS)
  end
end

-- When the next thing can happen here: a delayed job is due, a lease runs out, a kept job is free for everyone, reap has work.
local due = redis.call('ZRANGE', q .. 'delayed', 0, 0, 'WITHSCORES')[2]
local expiry = redis.call('ZRANGE', q .. 'leases', 0, 0, 'WITHSCORES')[2]
local look = redis.call('ZRANGE', q .. 'deadlines', 0, 0, 'WITHSCORES')[2]
local nearest = at + (kept_due or math.huge)
for _, time in ipairs({ due or 'inf', expiry or 'inf', look or 'inf' }) do nearest = math.min(nearest, tonumber(time) or math.huge) end
return { 'empty', nearest < math.huge and int(math.max(0, nearest - at)) or '' }

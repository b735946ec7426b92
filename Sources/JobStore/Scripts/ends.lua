-- ends.lua: how a job leaves a worker or the line. Included after event.lua by the scripts that end or requeue jobs.

-- Dead letters are kept 7 days and 10 000 per queue, both bounds enforced by reap.
local DEAD_TTL_MS = 7 * 24 * 3600 * 1000
local ENDED_MAX = 10000
-- Every live job is looked at by reap this often at the latest: a running one, a waiting one.
local AUDIT_RUNNING_MS = 10 * 60 * 1000
local AUDIT_WAITING_MS = 60 * 60 * 1000

local PROGRESS_FIELDS = {
  'percent_per_s', 'stage', 'stage_percent', 'step', 'steps', 'item', 'items', 'message', 'eta_ms', 'eta_low_ms', 'eta_high_ms',
  'stalled', 'estimating',
}

-- The first write of every script that must go through on a full Redis. Redis refuses a script at its first write that may use
-- memory, and lets the rest pass once something was written: PEXPIRE needs none, so ends and heartbeats are never refused halfway.
local function touch(key)
  redis.call('PEXPIRE', key, KEEP_MS)
end

local function queue_base(base, queue)
  return base .. 'queue:' .. queue .. ':'
end

-- Wakes one worker blocked on the queue. `wake` is '' where the list lies in another slot: the client pushes it then.
local function push_wake(wake, base)
  if wake == '' then return end
  local tag = string.match(base, '{([^}]*)}')
  if not redis.call('LPOS', wake, tag) then redis.call('RPUSH', wake, tag) end
end

local function forget_places(base, queue, job)
  local q = queue_base(base, queue)
  redis.call('ZREM', q .. 'ready', job)
  redis.call('ZREM', q .. 'delayed', job)
  redis.call('ZREM', q .. 'leases', job)
  redis.call('ZREM', q .. 'deadlines', job)
end

-- Latches a terminal phase. `s` is the whole hash. extra: ready JSON members. outcome: what a repeated call answers.
-- stages: JSON object of milliseconds or ''.
local function end_job(key, base, job, verb, s, phase, at, extra, outcome, stages)
  forget_places(base, s.queue, job)
  for _, name in ipairs({ 'percent_per_s', 'eta_ms', 'eta_low_ms', 'eta_high_ms', 'stalled', 'estimating' }) do s[name] = nil end
  s.phase = phase
  if phase == 'COMPLETE' then
    s.percent, s.phase_percent = '100.0', '100.0'
    if s.stage then s.stage_percent = '100.0' end
    -- The last report came before the end: a finished job does not stand at step 38 of 40.
    s.step, s.item, s.message = s.steps, s.items, nil
  end
  local duration = at - tonumber(s.started_at or s.created_at)
  if stages ~= '' then extra = extra .. ',"stages":' .. stages end
  extra = extra .. ',"duration_ms":' .. int(duration)
  redis.call('HDEL', key, 'percent_per_s', 'eta_ms', 'eta_low_ms', 'eta_high_ms', 'stalled', 'estimating', 'fence')
  redis.call('HSET', key, 'phase', phase, 'percent', s.percent, 'phase_percent', s.phase_percent, 'finished_at', int(at),
    'last_fence', s.fence or '', 'last_outcome', outcome)
  if s.stage_percent then redis.call('HSET', key, 'stage_percent', s.stage_percent) end
  if phase == 'COMPLETE' then
    redis.call('HDEL', key, 'message', s.step and '' or 'step', s.item and '' or 'item')
    if s.step then redis.call('HSET', key, 'step', s.step) end
    if s.item then redis.call('HSET', key, 'item', s.item) end
  end
  local kind = string.lower(phase)
  local seq, body = emit(key, base, job, verb, kind, s, at, extra)
  local ttl = tonumber(s.ttl_ms)
  if phase == 'FAILED' then
    ttl = math.max(ttl, DEAD_TTL_MS)
    redis.call('ZADD', queue_base(base, s.queue) .. 'dead', at, job)
    redis.call('PEXPIRE', queue_base(base, s.queue) .. 'dead', DEAD_TTL_MS)
  end
  redis.call('XADD', base .. 'ended', 'MAXLEN', '~', ENDED_MAX, '*', 'job', job, 'queue', s.queue, 'pipeline', s.pipeline,
    'owner', s.owner, 'phase', phase, 'created_at', s.created_at, 'body', body)
  redis.call('PEXPIRE', key, ttl)
  redis.call('PEXPIRE', base .. 'milestones:' .. job, ttl)
  redis.call('PEXPIRE', base .. 'log:' .. job, ttl)
  redis.call('PEXPIRE', base .. 'preview:' .. job, ttl)
  redis.call('HINCRBY', queue_base(base, s.queue) .. 'meta', kind, 1)
  return seq
end

local function waiting_deadline(s, at)
  return math.min(tonumber(s.expires_at), at + AUDIT_WAITING_MS)
end

-- Puts a job back in the line. bump: its next claim is a new attempt (percent starts again).
-- extra: ready JSON members for the event ('' or ',"error":{…}').
local function requeue(key, base, job, verb, wake, s, at, delay, bump, extra, outcome)
  local q = queue_base(base, s.queue)
  redis.call('ZREM', q .. 'leases', job)
  if delay > 0 then
    redis.call('ZADD', q .. 'delayed', at + delay, job)
  else
    redis.call('ZADD', q .. 'ready', s.score, job)
  end
  -- A job that has started once is not ended by expires_at: that is a bound on waiting for the first start.
  redis.call('ZADD', q .. 'deadlines', at + AUDIT_WAITING_MS, job)
  redis.call('HDEL', key, 'fence', 'worker', 'write_no', unpack(PROGRESS_FIELDS))
  for _, name in ipairs(PROGRESS_FIELDS) do s[name] = nil end
  s.phase, s.percent, s.phase_percent = 'QUEUED', '0.0', '0.0'
  if bump then s.attempt = int(tonumber(s.attempt) + 1) end
  redis.call('HSET', key, 'phase', 'QUEUED', 'percent', '0.0', 'phase_percent', '0.0', 'attempt', s.attempt,
    'max_attempts', s.max_attempts, 'last_fence', s.fence or '', 'last_outcome', outcome)
  redis.call('PEXPIRE', key, KEEP_MS)
  emit(key, base, job, verb, 'phase', s, at, extra)
  push_wake(wake, base)
end

-- The lease of a running job is gone: a cancel that was asked for takes effect, else the next attempt, else FAILED.
-- Returns 'requeued' or 'ended'.
local function lose_worker(key, base, job, verb, wake, s, at)
  if s.cancel then
    end_job(key, base, job, verb, s, 'CANCELLED', at, '', 'CANCELLED', '')
    return 'ended'
  end
  local error = '{"code":"worker_lost","message":"the worker stopped answering","recoverable":true}'
  if tonumber(s.attempt) < tonumber(s.max_attempts) then
    requeue(key, base, job, verb, wake, s, at, 0, true, ',"error":' .. error, 'lost')
    return 'requeued'
  end
  redis.call('HSET', key, 'error', error)
  end_job(key, base, job, verb, s, 'FAILED', at, ',"error":' .. error, 'FAILED', '')
  return 'ended'
end

-- Moves delayed jobs that are due into the line, at most 100. Returns how many.
local function promote_due(base, queue, at)
  local q = queue_base(base, queue)
  local due = redis.call('ZRANGEBYSCORE', q .. 'delayed', '-inf', at, 'LIMIT', 0, 100)
  for _, job in ipairs(due) do
    redis.call('ZREM', q .. 'delayed', job)
    local score = redis.call('HGET', base .. 'job:' .. job, 'score')
    if score then redis.call('ZADD', q .. 'ready', score, job) end
  end
  return #due
end

-- Takes expired leases from their owners, at most 100. Returns requeued, ended.
local function reclaim_expired(base, queue, verb, wake, at)
  local q = queue_base(base, queue)
  local requeued, ended = 0, 0
  for _, job in ipairs(redis.call('ZRANGEBYSCORE', q .. 'leases', '-inf', at, 'LIMIT', 0, 100)) do
    local key = base .. 'job:' .. job
    local s = read_hash(key)
    if not s.phase or TERMINAL[s.phase] or not s.fence then
      redis.call('ZREM', q .. 'leases', job)
    elseif lose_worker(key, base, job, verb, wake, s, at) == 'requeued' then
      requeued = requeued + 1
    else
      ended = ended + 1
    end
  end
  return requeued, ended
end

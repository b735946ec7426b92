-- ends.lua: how a job leaves a worker or the line. Included after event.lua, line.lua and group.lua by the scripts that end or
-- requeue jobs.

-- Dead letters are kept 7 days and 10 000 per queue, both bounds enforced by reap.
local DEAD_TTL_MS = 7 * 24 * 3600 * 1000
local ENDED_MAX = '10000'
-- Every live job is looked at by reap this often at the latest: a running one, a waiting one.
local AUDIT_RUNNING_MS = 10 * 60 * 1000
local AUDIT_WAITING_MS = 60 * 60 * 1000

-- The first write of every script that must go through on a full Redis. Redis refuses a script at its first write that may use
-- memory, and lets the rest pass once something was written: PEXPIRE needs none, so ends and heartbeats are never refused halfway.
local function touch(key)
  redis.call('PEXPIRE', key, KEEP_MS)
end

-- What the end of a running job needs of it, without its params and plan, which may be large. With seq 1 nothing has been told since
-- the submit, no progress, no cancel and no earlier attempt: then that is all.
local function read_running(key)
  local h = redis.call('HMGET', key, 'fence', 'seq', 'queue', 'owner', 'pipeline', 'created_at', 'started_at', 'ttl_ms', 'traceparent', 'body')
  local s = {
    fence = h[1] or nil, seq = h[2], queue = h[3], owner = h[4], pipeline = h[5], created_at = h[6], started_at = h[7] or nil,
    ttl_ms = h[8], traceparent = h[9] or nil, body = h[10], attempt = '1', percent = '0.0', phase_percent = '0.0',
  }
  if s.seq ~= '1' then
    h = redis.call('HMGET', key, 'attempt', 'cancel', 'percent', 'phase_percent', 'stage', 'stage_percent', 'step', 'steps', 'item',
      'items', 'message')
    s.attempt, s.cancel, s.percent, s.phase_percent, s.stage, s.stage_percent = h[1], h[2] or nil, h[3], h[4], h[5] or nil, h[6] or nil
    s.step, s.steps, s.item, s.items, s.message = h[7] or nil, h[8] or nil, h[9] or nil, h[10] or nil, h[11] or nil
  end
  return s
end

-- Takes a job out of wherever it stands. `s` has at least queue, owner and fence.
local function forget_places(base, job, s)
  local q = queue_base(base, s.queue)
  redis.call('ZREM', q .. 'deadlines', job)
  if s.fence then
    redis.call('ZREM', q .. 'leases', job)
  elseif s.queue ~= HELD and redis.call('ZREM', q .. 'ready', job) == 0 and redis.call('ZREM', q .. 'delayed', job) == 0
    and redis.call('ZREM', q .. 'parked:' .. tenant_of(s.owner), job) == 1 then
    redis.call('HINCRBY', q .. 'meta', 'parked', -1)
  end
end

-- Latches a terminal phase. Returns the name of the queue's counter that is to go up.
-- s: the whole hash, or at least what read_running reads; `s.now`: the time as text, where known; `s.cancel`: written as it stands there.
-- extra: ready JSON members. outcome: what a repeated call answers. stages: JSON object of milliseconds or ''. result: JSON object or nil.
-- next: what came along with the end, or nil.
local function latch(key, base, job, verb, s, phase, at, extra, outcome, stages, result, next)
  local now, kind = s.now or int(at), string.lower(phase)
  local is_complete = phase == 'COMPLETE'
  -- Nobody ever held it: it has no fence, log or preview, and nothing was told of it but that it waits.
  local never_ran = not s.fence and s.seq == '1' and not is_complete
  -- In one piece, because a table that grows is made anew; what is not there is written as the phase once more. (A job that completes
  -- has its cancel, if one was asked for, in its hash already.)
  local set = never_ran and {
    'phase', phase, 'finished_at', now, 'last_outcome', outcome, s.cancel and 'cancel' or 'phase', s.cancel or phase,
  } or {
    'phase', phase, 'finished_at', now, 'last_fence', s.fence or '', 'last_outcome', outcome, result and 'result' or 'phase', result or phase,
    next and 'next' or 'phase', next or phase, is_complete and 'percent' or 'phase', is_complete and '100.0' or phase,
    is_complete and 'phase_percent' or s.cancel and 'cancel' or 'phase', is_complete and '100.0' or s.cancel or phase,
  }
  -- What is of no use any more, and what is no news of a job that ended well: the error of an earlier attempt stays among its milestones.
  if never_ran then
    redis.call('HDEL', key, 'score', 'passed')
  elseif s.seq == '1' then
    redis.call('HDEL', key, 'fence', 'score', 'passed', 'write_no')
  elseif is_complete then
    redis.call('HDEL', key, 'fence', 'score', 'passed', 'write_no', 'percent_per_s', 'eta_ms', 'eta_low_ms', 'eta_high_ms', 'stalled',
      'estimating', 'progress_at', 'step', 'item', 'message', 'error')
  else
    redis.call('HDEL', key, 'fence', 'score', 'passed', 'write_no', 'percent_per_s', 'eta_ms', 'eta_low_ms', 'eta_high_ms', 'stalled',
      'estimating', 'progress_at')
  end
  s.phase = phase
  if s.seq ~= '1' then s.percent_per_s, s.eta_ms, s.eta_low_ms, s.eta_high_ms, s.stalled, s.estimating = nil, nil, nil, nil, nil, nil end
  if is_complete then
    s.percent, s.phase_percent = '100.0', '100.0'
    if s.seq ~= '1' then
      s.message = nil
      if s.stage then
        s.stage_percent = '100.0'
        set[#set + 1], set[#set + 2] = 'stage_percent', '100.0'
      end
      -- The last report came before the end: a finished job does not stand at step 38 of 40.
      s.step, s.item = s.steps, s.items
      if s.step then set[#set + 1], set[#set + 2] = 'step', s.step end
      if s.item then set[#set + 1], set[#set + 2] = 'item', s.item end
    end
  end
  extra = extra .. (stages ~= '' and ',"stages":' .. stages or '') .. ',"duration_ms":' .. int(at - (s.started_at or s.created_at))
  local _, body = emit(key, base, job, verb, kind, s, now, extra, set)
  local ttl = s.ttl_ms
  if phase == 'FAILED' then
    local dead = queue_base(base, s.queue) .. 'dead'
    ttl = math.max(tonumber(ttl), DEAD_TTL_MS)
    redis.call('ZADD', dead, now, job)
    redis.call('PEXPIRE', dead, DEAD_TTL_MS)
  end
  redis.call('XADD', base .. 'ended', 'MAXLEN', '~', ENDED_MAX, '*', 'job', job, 'queue', s.queue, 'pipeline', s.pipeline,
    'owner', s.owner, 'phase', phase, 'created_at', s.created_at, 'body', body)
  redis.call('PEXPIRE', key, ttl)
  redis.call('PEXPIRE', base .. 'milestones:' .. job, ttl)
  if not never_ran then
    local log, preview = base .. 'log:' .. job, base .. 'preview:' .. job
    if redis.call('EXISTS', log, preview) > 0 then
      redis.call('PEXPIRE', log, ttl)
      redis.call('PEXPIRE', preview, ttl)
    end
  end
  if s.children then redis.call('PEXPIRE', base .. 'group:' .. job, ttl) end
  return kind
end

-- The same, and counted.
local function end_at_once(key, base, job, verb, s, phase, at, extra)
  local kind = latch(key, base, job, verb, s, phase, at, extra, phase, '')
  redis.call('HINCRBY', queue_base(base, s.queue) .. 'meta', kind, '1')
end

-- Ends a group whose children have all ended.
local function end_group(base, verb, group, s, g, at)
  local key = base .. 'job:' .. group
  local failed, cancelled = tonumber(g.failed or '0'), tonumber(g.cancelled or '0')
  redis.call('DEL', base .. 'group:' .. group .. ':eta')
  forget_places(base, group, s)
  if failed == 0 and cancelled == 0 and tonumber(g.complete or '0') >= tonumber(g.planned or g.expected) then
    return end_at_once(key, base, group, verb, s, 'COMPLETE', at, '')
  end
  if failed == 0 or s.cancel then return end_at_once(key, base, group, verb, s, 'CANCELLED', at, '') end
  local error = '{"code":"children_failed","message":"' .. int(failed) .. ' of ' .. g.expected .. ' children failed","recoverable":false}'
  redis.call('HSET', key, 'error', error)
  end_at_once(key, base, group, verb, s, 'FAILED', at, ',"error":' .. error)
end

-- A child changed its state: waiting, running, complete, failed, cancelled; nil for a child that is new.
local function group_changed(base, verb, job, from, to, before, after, at)
  local group = group_of(job)
  local key = base .. 'group:' .. group
  if redis.call('EXISTS', key) == 0 then return end
  if from then redis.call('HINCRBY', key, from, -1) end
  redis.call('HINCRBY', key, to, 1)
  if after ~= before then redis.call('HINCRBY', key, 'tenths', after - before) end
  if to ~= 'running' then redis.call('ZREM', key .. ':eta', job) end
  local g = read_hash(key)
  local s, ended = write_group(base, verb, group, g, at)
  if s and ended >= tonumber(g.expected) then end_group(base, verb, group, s, g, at) end
end

-- Tells the group of a child that ended. before: its percent.
local function tell_group(base, verb, job, s, kind, before, at)
  group_changed(base, verb, job, s.fence and 'running' or 'waiting', kind, tenths_of(before), 1000, at)
end

-- Ends a job: out of its place, latched, its tenant's next one let in, its group told.
local function end_job(key, base, job, verb, s, phase, at, extra, outcome, stages, result)
  forget_places(base, job, s)
  local before = s.percent
  local kind = latch(key, base, job, verb, s, phase, at, extra, outcome, stages, result)
  local q = queue_base(base, s.queue)
  redis.call('HINCRBY', q .. 'meta', kind, '1')
  if s.queue ~= HELD then
    local tenant = tenant_of(s.owner)
    count(q, tenant, not s.fence and '-1' or nil, s.fence and '-1' or nil)
    if s.fence then free_place(base, s.queue, tenant) end
  end
  if group_of(job) then tell_group(base, verb, job, s, kind, before, at) end
end

local function waiting_deadline(s, at)
  return math.min(tonumber(s.expires_at), at + AUDIT_WAITING_MS)
end

-- Puts a running job back in the line. bump: its next claim is a new attempt (percent starts again).
-- extra: ready JSON members for the event ('' or ',"error":{…}').
local function requeue(key, base, job, verb, s, at, delay, bump, extra, outcome)
  local q, tenant, before = queue_base(base, s.queue), tenant_of(s.owner), tenths_of(s.percent)
  redis.call('ZREM', q .. 'leases', job)
  count(q, tenant, '1', '-1')
  -- A job that has started once is not ended by expires_at: that is a bound on waiting for the first start.
  redis.call('ZADD', q .. 'deadlines', at + AUDIT_WAITING_MS, job)
  local shown = {
    'percent_per_s', 'stage', 'stage_percent', 'step', 'steps', 'item', 'items', 'message', 'eta_ms', 'eta_low_ms', 'eta_high_ms',
    'stalled', 'estimating', 'progress_at',
  }
  redis.call('HDEL', key, 'fence', 'worker', 'write_no', unpack(shown))
  for _, name in ipairs(shown) do s[name] = nil end
  s.phase, s.percent, s.phase_percent = 'QUEUED', '0.0', '0.0'
  if bump then s.attempt = int(tonumber(s.attempt) + 1) end
  redis.call('HSET', key, 'phase', 'QUEUED', 'percent', '0.0', 'phase_percent', '0.0', 'attempt', s.attempt,
    'max_attempts', s.max_attempts, 'last_fence', s.fence or '', 'last_outcome', outcome)
  redis.call('PEXPIRE', key, KEEP_MS)
  emit(key, base, job, verb, 'phase', s, int(at), extra)
  if delay > 0 then
    redis.call('ZADD', q .. 'delayed', at + delay, job)
    -- So that an idle worker learns of the due date.
    push_wake(base, s.queue)
    free_place(base, s.queue, tenant)
  else
    enter(base, s.queue, job, s.score, tenant)
  end
  if group_of(job) then group_changed(base, verb, job, 'running', 'waiting', before, 0, at) end
end

-- The lease of a running job is gone: a cancel that was asked for takes effect, else the next attempt, else FAILED.
-- Returns 'requeued' or 'ended'.
local function lose_worker(key, base, job, verb, s, at)
  if s.cancel then
    end_job(key, base, job, verb, s, 'CANCELLED', at, '', 'CANCELLED', '')
    return 'ended'
  end
  local error = '{"code":"worker_lost","message":"the worker stopped answering","recoverable":true}'
  if s.queue == HELD then
    error = '{"code":"producer_lost","message":"the producer stopped reporting","recoverable":false}'
  elseif tonumber(s.attempt) < tonumber(s.max_attempts) then
    requeue(key, base, job, verb, s, at, 0, true, ',"error":' .. error, 'lost')
    return 'requeued'
  end
  redis.call('HSET', key, 'error', error)
  end_job(key, base, job, verb, s, 'FAILED', at, ',"error":' .. error, 'FAILED', '')
  return 'ended'
end

-- Takes leases that were found to have expired from their owners. Returns requeued, ended.
local function reclaim(base, queue, verb, at, expired)
  local q = queue_base(base, queue)
  local requeued, ended = 0, 0
  for _, job in ipairs(expired) do
    local key = base .. 'job:' .. job
    local s = read_hash(key)
    if not s.phase or is_terminal(s.phase) or not s.fence then
      redis.call('ZREM', q .. 'leases', job)
      -- Whose it was is not known any more: reap counts the tenants' running jobs anew.
      redis.call('HSET', q .. 'meta', 'recount', '1')
    elseif lose_worker(key, base, job, verb, s, at) == 'requeued' then
      requeued = requeued + 1
    else
      ended = ended + 1
    end
  end
  return requeued, ended
end

-- Moves what is due into the line and takes expired leases from their owners, at most 100 of each. now: the time as text. Returns
-- requeued, ended.
local function look(base, queue, verb, at, now)
  local q = queue_base(base, queue)
  local due = redis.call('ZRANGEBYSCORE', q .. 'delayed', '-inf', now, 'LIMIT', '0', '100')
  if due[1] then promote(base, queue, due) end
  local expired = redis.call('ZRANGEBYSCORE', q .. 'leases', '-inf', now, 'LIMIT', '0', '100')
  if expired[1] then return reclaim(base, queue, verb, at, expired) end
  return 0, 0
end

-- claiming.lua: how a worker gets a job. Included after event.lua, line.lua, group.lua and ends.lua.

-- A claim is remembered so long.
local NONCE_MS = '120000'
-- Leftovers, expired and parked jobs that one call clears away.
local SKIP_MAX = 100
-- A worker with labels looks this far for a job that prefers one of them, and passes over the same job this often at most.
local LOOK_AHEAD = 16
local PASSED_MAX = 8
-- A job waits this long for an idle worker with its label, while there is one.
local PREFER_MS = 500
-- An idle worker blocks for at most 25 s before it says so again.
local IDLE_MS = 27000

-- What a claim needs of a job.
local function read_waiting(key)
  local h = redis.call('HMGET', key, 'phase', 'fence', 'started_at', 'expires_at', 'owner', 'attempt', 'max_attempts', 'pipeline', 'params',
    'class', 'cold', 'plan', 'max_runtime_ms', 'traceparent', 'created_at', 'prefer', 'passed', 'updated_at')
  return {
    phase = h[1] or nil, fence = h[2] or nil, started_at = h[3] or nil, expires_at = h[4], owner = h[5], attempt = h[6],
    max_attempts = h[7], pipeline = h[8], params = h[9], class = h[10], cold = h[11], plan = h[12], max_runtime_ms = h[13] or nil,
    traceparent = h[14], created_at = h[15], prefer = h[16] or nil, passed = h[17] or nil, updated_at = h[18],
  }
end

local function claimed_job(job, s, rest)
  return {
    'job', job, s.fence, s.attempt, s.max_attempts, s.pipeline, s.owner, s.params, s.class or '', s.cold or '', s.plan or '',
    s.max_runtime_ms or '', s.traceparent or '', s.created_at, s.prefer or '', rest,
  }
end

-- True when a job may start now.
local function is_free(q, s, at, limits) -- rarely
  if s.phase ~= 'QUEUED' or s.fence or (not s.started_at and tonumber(s.expires_at) <= at) then return false end
  local tenant = tenant_of(s.owner)
  local limit = limits and running_limit(q, tenant)
  return not limit or running_count(q, tenant) < limit
end

-- Clears a job away that stands in the line and may not start: a leftover, one whose time is over, one of a tenant at its limit.
local function clear_away(base, q, verb, job, s, score, at) -- rarely
  local key = base .. 'job:' .. job
  if s.phase ~= 'QUEUED' or s.fence then
    -- Its hash is gone or it runs already.
    if not s.phase then
      redis.call('ZREM', q .. 'deadlines', job)
      redis.call('HSET', q .. 'meta', 'recount', '1')
    end
  elseif not s.started_at and tonumber(s.expires_at) <= at then
    local error = '{"code":"expired","message":"no worker was free before expires_at","recoverable":false}'
    redis.call('HSET', key, 'error', error)
    end_job(key, base, job, verb, read_hash(key), 'FAILED', at, ',"error":' .. error, 'FAILED', '')
  else
    park(q, tenant_of(s.owner), job, score)
  end
end

-- What is first in the line and may start, with its score. Nil when there is none.
local function pop(base, q, verb, at, limits)
  for _ = 1, SKIP_MAX do
    local popped = redis.call('ZPOPMIN', q .. 'ready')
    local job = popped[1]
    if not job then return nil end
    local s = read_waiting(base .. 'job:' .. job)
    if not limits and s.phase == 'QUEUED' and not s.fence and (s.started_at or tonumber(s.expires_at) > at)
      or limits and is_free(q, s, at, limits) then
      return job, s, tonumber(popped[2])
    end
    clear_away(base, q, verb, job, s, popped[2], at)
  end
end

-- A job further back that prefers one of the worker's labels, while the first has not been passed over too often.
local function preferred(base, q, labels, job, s, score, at, limits) -- rarely
  if labels[s.prefer or ''] or tonumber(s.passed or '0') >= PASSED_MAX then return job, s, score end
  local ahead = redis.call('ZRANGE', q .. 'ready', 0, LOOK_AHEAD - 2, 'WITHSCORES')
  for i = 1, #ahead, 2 do
    local other, other_score = ahead[i], tonumber(ahead[i + 1])
    if math.floor(other_score / BAND) ~= math.floor(score / BAND) then break end
    local label = redis.call('HGET', base .. 'job:' .. other, 'prefer')
    if label and labels[label] then
      local t = read_waiting(base .. 'job:' .. other)
      if is_free(q, t, at, limits) then
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
local function is_kept_for_another(q, labels, s, at) -- rarely
  if labels and labels[s.prefer] or at - tonumber(s.updated_at) >= PREFER_MS then return false end
  local idle = q .. 'idle:' .. s.prefer
  redis.call('ZREMRANGEBYSCORE', idle, '-inf', at)
  return redis.call('ZCARD', idle) > 0
end

local function put_back(base, queue, kept) -- rarely
  for i = 1, #kept, 3 do
    redis.call('ZADD', queue_base(base, queue) .. 'ready', int(kept[i + 1]), kept[i])
    push_wake(base, queue, kept[i + 2])
  end
end

-- What an idle worker is told. kept_due: in how many ms a job that is kept for another is free for everyone, or nil.
local function nothing_to_claim(q, at, kept_due) -- rarely
  -- When the next thing can happen here: a delayed job is due, a lease runs out, a kept job is free, reap has work.
  local due = redis.call('ZRANGE', q .. 'delayed', 0, 0, 'WITHSCORES')[2]
  local expiry = redis.call('ZRANGE', q .. 'leases', 0, 0, 'WITHSCORES')[2]
  local look = redis.call('ZRANGE', q .. 'deadlines', 0, 0, 'WITHSCORES')[2]
  local nearest = at + (kept_due or math.huge)
  for _, time in ipairs({ due or 'inf', expiry or 'inf', look or 'inf' }) do nearest = math.min(nearest, tonumber(time) or math.huge) end
  return { 'empty', nearest < math.huge and int(math.max(0, nearest - at)) or '' }
end

-- Gives the job to the worker. set: as read in claim_next.
local function take(base, q, verb, worker, nonce, lease, new_epoch, set, job, s, score, at, now)
  local epoch = set[4]
  if not epoch then
    epoch = new_epoch
    redis.call('HSET', q .. 'meta', 'fence_epoch', epoch)
  end
  -- The clock of the band and the counter of the fences.
  local band = math.floor(score / BAND)
  local clock, tag, time = 'clock' .. band, score - band * BAND, set[6]
  if band ~= 4 then time = redis.call('HGET', q .. 'meta', clock) end
  local number = int((set[5] or 0) + 1)
  redis.call('HSET', q .. 'meta', 'fence', number, clock, int(math.max(tag, tonumber(time or '0'))))
  s.fence = epoch .. ':' .. number
  -- Its TTL needs no renewal here: it was set by the submit or by reap, and heartbeats go on with it.
  redis.call('HSET', base .. 'job:' .. job, 'fence', s.fence, 'worker', worker, 'write_no', '0', 'claimed_at', now,
    'started_at', s.started_at or now)
  redis.call('ZADD', q .. 'leases', int(at + lease), job)
  local deadline = at + AUDIT_RUNNING_MS
  if s.max_runtime_ms then deadline = math.min(deadline, at + tonumber(s.max_runtime_ms) + lease) end
  redis.call('ZADD', q .. 'deadlines', int(deadline), job)
  redis.call('SET', base .. 'claim:' .. nonce, job .. ' ' .. s.fence, 'PX', NONCE_MS)
  count(q, tenant_of(s.owner), '-1', '1')
  if group_of(job) then group_changed(base, verb, job, 'waiting', 'running', 0, 0, at) end
end

-- The answer of claim.lua, which says what it means. label: where the worker's labels begin in ARGV.
local function claim_next(base, at, now, verb, queue, worker, nonce, lease, new_epoch, label)
  local q, labels = queue_base(base, queue), nil
  for i = label, #ARGV do
    labels = labels or {}
    labels[ARGV[i]] = true
    redis.call('ZREM', q .. 'idle:' .. ARGV[i], worker)
  end

  local claimed = redis.call('GET', base .. 'claim:' .. nonce)
  if claimed then
    local job, fence = string.match(claimed, '^(%S+) (%S+)$')
    local s = read_waiting(base .. 'job:' .. job)
    if s.fence == fence then
      redis.call('ZADD', q .. 'leases', int(at + lease), job)
      return claimed_job(job, s, 'more')
    end
  end

  -- The clock of the band that most jobs are in is read along.
  local set = redis.call('HMGET', q .. 'meta', 'paused', 'max_running', 'limits', 'fence_epoch', 'fence', 'clock4')
  if set[1] then return { 'paused' } end
  promote_due(base, queue, now)
  reclaim_expired(base, queue, verb, at, now)

  local kept, kept_due = nil, nil
  if not set[2] or redis.call('ZCARD', q .. 'leases') < tonumber(set[2]) then
    for _ = 1, LOOK_AHEAD do
      local job, s, score = pop(base, q, verb, at, set[3])
      if not job then break end
      if labels then job, s, score = preferred(base, q, labels, job, s, score, at, set[3]) end
      if not s.prefer or not is_kept_for_another(q, labels, s, at) then
        if kept then put_back(base, queue, kept) end
        take(base, q, verb, worker, nonce, lease, new_epoch, set, job, s, score, at, now)
        -- Also for a job that is kept: who alone may have known when its time comes is busy from now on.
        local left = redis.call('ZCARD', q .. 'ready')
        if left > 0 then push_wake(base, queue) end
        return claimed_job(job, s, (left > 0 or redis.call('ZCARD', q .. 'delayed') > 0) and 'more' or '')
      end
      local left = PREFER_MS - (at - tonumber(s.updated_at))
      kept, kept_due = kept or {}, math.min(kept_due or left, left)
      kept[#kept + 1], kept[#kept + 2], kept[#kept + 3] = job, score, s.prefer
    end
    if kept then put_back(base, queue, kept) end
    for i = label, #ARGV do
      redis.call('ZADD', q .. 'idle:' .. ARGV[i], int(at + IDLE_MS), worker)
      redis.call('PEXPIRE', q .. 'idle:' .. ARGV[i], IDLE_MS)
    end
  end
  return nothing_to_claim(q, at, kept_due)
end

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

-- What a claim needs of a job. With seq 1 nothing happened since the submit but perhaps a claim; and most have nothing of what comes
-- last, and say so.
local function read_waiting(key)
  local h = redis.call('HMGET', key, 'fence', 'seq', 'expires_at', 'owner', 'max_attempts', 'pipeline', 'params', 'created_at', 'plain')
  local s = {
    fence = h[1] or nil, expires_at = h[3], owner = h[4], max_attempts = h[5], pipeline = h[6], params = h[7], created_at = h[8],
    plain = h[9], phase = 'QUEUED', attempt = '1', started_at = nil,
  }
  if h[2] ~= '1' then
    h = redis.call('HMGET', key, 'phase', 'attempt', 'started_at')
    s.phase, s.attempt, s.started_at = h[1] or nil, h[2], h[3] or nil
  end
  if not s.plain then
    h = redis.call('HMGET', key, 'class', 'cold', 'plan', 'max_runtime_ms', 'traceparent', 'prefer', 'updated_at')
    s.class, s.cold, s.plan, s.max_runtime_ms, s.traceparent = h[1], h[2], h[3], h[4] or nil, h[5]
    s.prefer, s.updated_at = h[6] or nil, h[7]
  end
  return s
end

local function claimed_job(job, s, rest)
  if s.plain then return { 'job', job, s.fence, s.attempt, s.max_attempts, s.pipeline, s.owner, s.params, s.created_at, rest } end
  return {
    'job', job, s.fence, s.attempt, s.max_attempts, s.pipeline, s.owner, s.params, s.created_at, rest, s.class or '', s.cold or '',
    s.plan or '', s.max_runtime_ms or '', s.traceparent or '', s.prefer or '',
  }
end

-- The answer of a claim that was made before, while it holds; nil when it does not. claimed: 'job fence'.
local function same_claim(base, q, claimed, at, lease)
  local job, fence = string.match(claimed, '^(%S+) (%S+)$')
  local s = read_waiting(base .. 'job:' .. job)
  if s.fence ~= fence then return nil end
  redis.call('ZADD', q .. 'leases', int(at + lease), job)
  return claimed_job(job, s, 'more')
end

-- True when a job may start now.
local function is_free(q, s, at, limits)
  if s.phase ~= 'QUEUED' or s.fence or (not s.started_at and tonumber(s.expires_at) <= at) then return false end
  local tenant = tenant_of(s.owner)
  local limit = limits and running_limit(q, tenant)
  return not limit or running_count(q, tenant) < limit
end

-- Clears a job away that stands in the line and may not start: a leftover, one whose time is over, one of a tenant at its limit.
local function clear_away(base, q, verb, job, s, score, at)
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

-- What is first in the line and may start, with its score. Nil when there is none. now: the time as text, which compares as the
-- number does where both are of one length.
local function pop(base, q, verb, at, now, limits)
  for _ = 1, SKIP_MAX do
    local popped = redis.call('ZPOPMIN', q .. 'ready')
    local job = popped[1]
    if not job then return nil end
    local s = read_waiting(base .. 'job:' .. job)
    local expires = s.expires_at
    if not limits and s.phase == 'QUEUED' and not s.fence
      and (s.started_at or (#expires == #now and expires > now) or tonumber(expires) > at)
      or limits and is_free(q, s, at, limits) then
      return job, s, tonumber(popped[2])
    end
    clear_away(base, q, verb, job, s, popped[2], at)
  end
end

-- A job further back that prefers one of the worker's labels, while the first has not been passed over too often.
local function preferred(base, q, labels, job, s, score, at, limits)
  if labels[s.prefer or ''] or tonumber(redis.call('HGET', base .. 'job:' .. job, 'passed') or '0') >= PASSED_MAX then
    return job, s, score
  end
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
local function is_kept_for_another(q, labels, s, at)
  if labels and labels[s.prefer] or at - tonumber(s.updated_at) >= PREFER_MS then return false end
  local idle = q .. 'idle:' .. s.prefer
  redis.call('ZREMRANGEBYSCORE', idle, '-inf', at)
  return redis.call('ZCARD', idle) > 0
end

local function put_back(base, queue, kept)
  for i = 1, #kept, 3 do
    redis.call('ZADD', queue_base(base, queue) .. 'ready', int(kept[i + 1]), kept[i])
    push_wake(base, queue, kept[i + 2])
  end
end

-- What an idle worker is told. kept_due: in how many ms a job that is kept for another is free for everyone, or nil.
local function nothing_to_claim(q, at, kept_due)
  -- When the next thing can happen here: a delayed job is due, a lease runs out, a kept job is free, reap has work.
  local due = redis.call('ZRANGE', q .. 'delayed', 0, 0, 'WITHSCORES')[2]
  local expiry = redis.call('ZRANGE', q .. 'leases', 0, 0, 'WITHSCORES')[2]
  local look = redis.call('ZRANGE', q .. 'deadlines', 0, 0, 'WITHSCORES')[2]
  local nearest = at + (kept_due or math.huge)
  for _, time in ipairs({ due or 'inf', expiry or 'inf', look or 'inf' }) do nearest = math.min(nearest, tonumber(time) or math.huge) end
  return { 'empty', nearest < math.huge and int(math.max(0, nearest - at)) or '' }
end

-- What a claim reads of its queue first: the clock is that of the band that most jobs are in.
local function read_line(q)
  return redis.call('HMGET', q .. 'meta', 'paused', 'max_running', 'limits', 'fence', 'clock4', 'looked', 'complete')
end

-- What end_job left to the claim that follows, where that found no job.
local function settle(q, last)
  count(q, last.freed, nil, '-1')
  redis.call('HINCRBY', q .. 'meta', last.ended, '1')
end

-- Gives the job to the worker. set: as read_line has it; looked: what is to be written there; last: as for claim_next.
local function take(base, q, verb, worker, lease, random, set, looked, last, job, s, score, at, now)
  local meta = q .. 'meta'
  -- The clock of the band and the counters. What has not changed is written as the counter of the fences once more.
  local band, clock, time = 4, 'clock4', set[5]
  if score < 4 * BAND or score >= 5 * BAND then
    band = math.floor(score / BAND)
    clock = 'clock' .. band
    time = redis.call('HGET', meta, clock)
  end
  local tag, number = score - band * BAND, int((set[4] or 0) + 1)
  local is_later = not time or tag > tonumber(time)
  local ended = last and last.ended
  if ended and ended ~= 'complete' then
    redis.call('HINCRBY', meta, ended, '1')
    ended = nil
  end
  redis.call('HSET', meta, 'fence', number, is_later and clock or 'fence', is_later and int(tag) or number, 'looked', looked,
    ended or 'fence', ended and int((set[7] or 0) + 1) or number)
  -- The number alone would be given out twice by a Redis that comes back with an older state.
  s.fence = random .. ':' .. number
  -- Its TTL needs no renewal here: it was set by the submit or by reap, and heartbeats go on with it.
  redis.call('HSET', base .. 'job:' .. job, 'fence', s.fence, 'worker', worker, 'claimed_at', now, 'started_at', s.started_at or now)
  redis.call('ZADD', q .. 'leases', int(at + lease), job)
  local deadline = at + AUDIT_RUNNING_MS
  if s.max_runtime_ms then deadline = math.min(deadline, at + tonumber(s.max_runtime_ms) + lease) end
  redis.call('ZADD', q .. 'deadlines', int(deadline), job)
  local tenant = tenant_of(s.owner)
  if last and last.freed == tenant then
    count(q, tenant, '-1', nil)
  else
    if last and last.freed then count(q, last.freed, nil, '-1') end
    count(q, tenant, '-1', '1')
  end
  if group_of(job) then group_changed(base, verb, job, 'waiting', 'running', 0, 0, at) end
end

-- Gives the first eligible job to a worker. label: where the worker's labels begin in ARGV; set: as read_line has it; last: nil, or the
-- job that ends, whose worker asks. Returns what claim.lua says, and 'job fence' of the job that was given.
local function claim_next(base, at, now, verb, queue, worker, lease, random, label, set, last)
  local q, labels = queue_base(base, queue), nil
  for i = label, #ARGV do
    labels = labels or {}
    labels[ARGV[i]] = true
    redis.call('ZREM', q .. 'idle:' .. ARGV[i], worker)
  end
  if set[1] then
    if last and last.freed then settle(q, last) end
    return { 'paused' }
  end
  -- Where many are claimed, delayed jobs and expired leases are looked for once in ten milliseconds.
  local looked = string.sub(now, 1, -2)
  local may_look = set[6] ~= looked
  if may_look then look(base, queue, verb, at, now) end

  local kept, kept_due = nil, nil
  if not set[2] or redis.call('ZCARD', q .. 'leases') < tonumber(set[2]) then
    for _ = 1, LOOK_AHEAD do
      local job, s, score = pop(base, q, verb, at, now, set[3])
      if not job and not may_look then
        may_look = true
        look(base, queue, verb, at, now)
        job, s, score = pop(base, q, verb, at, now, set[3])
      end
      if not job then break end
      if labels then job, s, score = preferred(base, q, labels, job, s, score, at, set[3]) end
      if not s.prefer or not is_kept_for_another(q, labels, s, at) then
        if kept then put_back(base, queue, kept) end
        take(base, q, verb, worker, lease, random, set, looked, last, job, s, score, at, now)
        local left = redis.call('ZCARD', q .. 'ready')
        -- Who was woken has taken the token: it is put back for others. Also for a job that is kept: who alone may have known when its
        -- time comes is busy from now on.
        if left > 0 and (kept or not last) then push_wake(base, queue) end
        return claimed_job(job, s, (left > 0 or redis.call('ZCARD', q .. 'delayed') > 0) and 'more' or ''), job .. ' ' .. s.fence
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
  if last and last.freed then settle(q, last) end
  return nothing_to_claim(q, at, kept_due)
end

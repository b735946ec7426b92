-- include: event ends
-- Ends what ran out of time and hands on what lost its worker. Any live process runs it about once a second.
-- KEYS[1] headway:{p}:queue:Q:meta    KEYS[2] headway:{wake}:Q (standalone and Sentinel only)
-- ARGV[1] verb   ARGV[2] queue   ARGV[3] at least this many ms since the last run, else nothing is done
-- Returns {'skipped'} or {'ok', requeued, ended}
local BATCH = 100
local DEAD_COUNT_MAX = 10000
-- How long a worker has, after max_runtime_ms, to end its job itself.
local RUNTIME_GRACE_MS = 30000

local verb, queue, wake = ARGV[1], ARGV[2], KEYS[2] or ''
local base = string.match(KEYS[1], '^(.-{[^}]*}:)')
local q = queue_base(base, queue)
local at = now_ms()
local last = redis.call('HGET', KEYS[1], 'reaped_at')
if last and at - tonumber(last) < tonumber(ARGV[3]) then return { 'skipped' } end
-- First a write that needs no memory: see touch in ends.lua.
redis.call('ZREMRANGEBYSCORE', q .. 'dead', '-inf', at - DEAD_TTL_MS)
redis.call('HSET', KEYS[1], 'reaped_at', int(at))

promote_due(base, queue, at)
local requeued, ended = reclaim_expired(base, queue, verb, wake, at)

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
    redis.call('HSET', key, 'cancel', s.cancel)
    end_job(key, base, job, verb, s, 'CANCELLED', at, '', 'CANCELLED', '')
    ended = ended + 1
  elseif s.max_runtime_ms and claimed + tonumber(s.max_runtime_ms) + RUNTIME_GRACE_MS <= at then
    fail_job(key, job, s, 'timeout', 'it ran longer than max_runtime_ms')
  elseif not redis.call('ZSCORE', q .. 'leases', job) then
    if lose_worker(key, base, job, verb, wake, s, at) == 'requeued' then requeued = requeued + 1 else ended = ended + 1 end
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
  if not redis.call('ZSCORE', q .. 'ready', job) and not redis.call('ZSCORE', q .. 'delayed', job) then
    redis.call('ZADD', q .. 'ready', s.score, job)
  end
  redis.call('PEXPIRE', key, KEEP_MS)
  redis.call('ZADD', q .. 'deadlines', s.started_at and at + AUDIT_WAITING_MS or waiting_deadline(s, at), job)
end

for _, job in ipairs(redis.call('ZRANGEBYSCORE', q .. 'deadlines', '-inf', at, 'LIMIT', 0, BATCH)) do
  local key = base .. 'job:' .. job
  local s = read_hash(key)
  if not s.phase or TERMINAL[s.phase] then
    forget_places(base, queue, job)
  elseif s.fence then
    check_running(key, job, s)
  else
    check_waiting(key, job, s)
  end
end

local extra = redis.call('ZCARD', q .. 'dead') - DEAD_COUNT_MAX
if extra > 0 then redis.call('ZREMRANGEBYRANK', q .. 'dead', 0, extra - 1) end
-- A worker that took the token and died before its claim must not leave the line asleep.
if redis.call('ZCARD', q .. 'ready') > 0 then push_wake(wake, base) end
return { 'ok', int(requeued), int(ended) }

-- include: event line group ends
-- Looks for what should never be: a job in no place or in two, a lease without a job, counts that do not add up, keys without TTL.
-- KEYS[1] any key of the partition (jobs), the place (place) or headway:{p}:queue:Q:meta (counts)
-- KEYS[2] any headway:{wake}:Q (standalone and Sentinel only)
-- ARGV[1] '1' = repair   ARGV[2] 'jobs', 'place' or 'counts'   ARGV[3…] ids of jobs; for counts the queue
-- Returns a list of {id or tenant, finding, '1' if repaired else '0'}; for counts of a long line {{queue, 'not_counted', '0'}}
local COUNT_MAX = 20000

local fix, what = ARGV[1] == '1', ARGV[2]
local base = string.match(KEYS[1], '^(.-{[^}]*}:)')
local at = now_ms()
local findings = {}

local function found(subject, finding, repaired)
  findings[#findings + 1] = { subject, finding, repaired and '1' or '0' }
end

-- One finding, repaired by `repair` where that is wanted and known.
local function note(subject, finding, repair)
  if fix and repair then repair() end
  found(subject, finding, fix and repair ~= nil)
end

local function check_ttl(key, job, least)
  local ttl = redis.call('PTTL', key)
  if ttl == -1 then note(job, 'no_ttl', function() redis.call('PEXPIRE', key, least) end) end
end

local function check_job(job)
  local key = base .. 'job:' .. job
  local s = read_hash(key)
  if not s.v then return end
  if not (s.phase and RANK[s.phase] and s.queue and s.owner and s.seq and s.body and s.ttl_ms) then return found(job, 'corrupt', false) end
  if string.match(s.body, '"seq":(%d+)') ~= s.seq then found(job, 'body_is_not_the_last_event', false) end
  local q, tenant = queue_base(base, s.queue), tenant_of(s.owner)
  local ended = TERMINAL[s.phase]
  local waits = not ended and not s.fence and s.queue ~= HELD
  check_ttl(key, job, ended and tonumber(s.ttl_ms) or KEEP_MS)
  check_ttl(base .. 'milestones:' .. job, job, ended and tonumber(s.ttl_ms) or KEEP_MS)

  local places = {}
  for _, place in ipairs({ 'ready', 'delayed', 'parked:' .. tenant }) do
    if redis.call('ZSCORE', q .. place, job) then places[#places + 1] = place end
  end
  local keep = waits and 1 or 0
  if #places > keep then
    note(job, waits and 'in_two_places' or 'in_line_but_not_waiting', function()
      for i = keep + 1, #places do
        redis.call('ZREM', q .. places[i], job)
        if string.sub(places[i], 1, 6) == 'parked' then redis.call('HINCRBY', q .. 'meta', 'parked', -1) end
      end
    end)
  elseif waits and #places == 0 then
    note(job, 'waits_nowhere', function()
      local score = s.score or next_score(q, tenant, 9 - tonumber(s.priority), nil)
      redis.call('HSET', key, 'score', score)
      enter(base, s.queue, job, score, tenant)
    end)
  end

  local leased, looked_at = redis.call('ZSCORE', q .. 'leases', job), redis.call('ZSCORE', q .. 'deadlines', job)
  local runs = not ended and s.fence
  if runs and not leased then
    -- An expired lease: reap hands the job on.
    note(job, 'runs_without_lease', function() redis.call('ZADD', q .. 'leases', at, job) end)
  elseif leased and not runs then
    note(job, 'lease_but_not_running', function() redis.call('ZREM', q .. 'leases', job) end)
  end
  if not ended and not looked_at then
    note(job, 'no_deadline', function() redis.call('ZADD', q .. 'deadlines', at, job) end)
  elseif ended and looked_at then
    note(job, 'ended_with_deadline', function() redis.call('ZREM', q .. 'deadlines', job) end)
  end
end

local function check_counts(queue)
  local q = queue_base(base, queue)
  local tenants = redis.call('SMEMBERS', q .. 'tenants')
  local total = redis.call('ZCARD', q .. 'ready') + redis.call('ZCARD', q .. 'delayed') + redis.call('ZCARD', q .. 'leases')
  local parked = 0
  for _, tenant in ipairs(tenants) do parked = parked + redis.call('ZCARD', q .. 'parked:' .. tenant) end
  if total + parked > COUNT_MAX then return found(queue, 'not_counted', false) end
  if parked ~= tonumber(redis.call('HGET', KEYS[1], 'parked') or '0') then
    note(queue, 'parked_miscounted', function() redis.call('HSET', KEYS[1], 'parked', int(parked)) end)
  end
  local queued, running = {}, {}
  local function add(counts, place)
    for _, job in ipairs(redis.call('ZRANGE', q .. place, 0, -1)) do
      local owner = redis.call('HGET', base .. 'job:' .. job, 'owner')
      if owner then counts[tenant_of(owner)] = (counts[tenant_of(owner)] or 0) + 1 end
    end
  end
  add(queued, 'ready')
  add(queued, 'delayed')
  add(running, 'leases')
  local all = {}
  for _, tenant in ipairs(tenants) do
    add(queued, 'parked:' .. tenant)
    all[tenant] = true
  end
  for tenant in pairs(queued) do all[tenant] = true end
  for tenant in pairs(running) do all[tenant] = true end
  for tenant in pairs(all) do
    local key = q .. 'tenant:' .. tenant
    local old = redis.call('HMGET', key, 'queued', 'running')
    if tonumber(old[1] or '0') ~= (queued[tenant] or 0) or tonumber(old[2] or '0') ~= (running[tenant] or 0) then
      note(tenant, 'tenant_miscounted', function()
        redis.call('HSET', key, 'queued', int(queued[tenant] or 0), 'running', int(running[tenant] or 0))
        redis.call('PEXPIRE', key, TENANT_TTL_MS)
        know(q, tenant)
      end)
    end
  end
end

if what == 'jobs' then
  for i = 3, #ARGV do check_job(ARGV[i]) end
elseif what == 'place' then
  for i = 3, #ARGV do
    if redis.call('EXISTS', base .. 'job:' .. ARGV[i]) == 0 and redis.call('ZSCORE', KEYS[1], ARGV[i]) then
      note(ARGV[i], 'place_without_job', function() redis.call('ZREM', KEYS[1], ARGV[i]) end)
    end
  end
else
  check_counts(ARGV[3])
end
return findings

-- include: event line group ends
-- Looks for what should never be: a job in no place or in two, a lease without a job, counts that do not add up, keys without TTL.
-- KEYS[1] any key of the partition (jobs, groups), the place (place) or headway:{p}:queue:Q:meta (line, counts)
-- KEYS[2] any headway:{wake}:Q (standalone and Sentinel only)
-- ARGV[1] '1' = repair   ARGV[2] 'jobs', 'groups', 'place', 'line' or 'counts'
-- ARGV[3…] for line and counts the queue; for groups the verb and ids of groups; else ids of jobs
-- Returns a list of {id, tenant or queue, finding, '1' if repaired else '0'}; {queue, 'not_counted', '0'} where a long line was looked at
-- in sum only
local COUNT_MAX = 20000
-- Any live process sweeps a queue about once a second: what is overdue for so long, nobody does.
local OVERDUE_MS = 60000
local CHILDREN_MAX = 1000

-- Not all of a job: params and result may be large.
local FIELDS = { 'v', 'phase', 'queue', 'owner', 'seq', 'body', 'ttl_ms', 'fence', 'score', 'priority' }

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
  local s, h = {}, redis.call('HMGET', key, unpack(FIELDS))
  for i, name in ipairs(FIELDS) do s[name] = h[i] or nil end
  if not s.v then return end
  if not (s.phase and rank_of(s.phase) and s.queue and s.owner and s.seq and s.body and s.ttl_ms) then return found(job, 'corrupt', false) end
  if string.match(s.body, '"seq":(%d+)') ~= s.seq then found(job, 'body_is_not_the_last_event', false) end
  local q, tenant = queue_base(base, s.queue), tenant_of(s.owner)
  local ended = is_terminal(s.phase)
  local waits = not ended and not s.fence and s.queue ~= HELD
  local least = not ended and KEEP_MS or s.phase == 'FAILED' and math.max(DEAD_TTL_MS, tonumber(s.ttl_ms)) or tonumber(s.ttl_ms)
  check_ttl(key, job, least)
  check_ttl(base .. 'milestones:' .. job, job, least)

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

  if waits and places[1] == 'parked:' .. tenant and redis.call('SISMEMBER', q .. 'tenants', tenant) == 0 then
    note(job, 'tenant_unknown', function() know(q, tenant) end)
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

-- A group's counts against its children. An ended child may have expired; one that waits or runs never has, so a missing one of
-- those was lost, and counts as failed.
local function check_children(group, verb)
  local key, gkey = base .. 'job:' .. group, base .. 'group:' .. group
  if redis.call('HEXISTS', key, 'children') == 0 then return end
  local s = read_hash(key)
  if not s.phase or is_terminal(s.phase) then return end
  local g = read_hash(gkey)
  local is_lost = not g.expected
  if is_lost then
    g = {}
    for name, number in pairs(cjson.decode(s.children)) do g[name] = int(number) end
    g.made = int(g.waiting + g.running + g.complete + g.failed + g.cancelled)
  end
  local function had(name) return tonumber(g[name] or '0') end
  local seen = { waiting = 0, running = 0, complete = 0, failed = 0, cancelled = 0 }
  local last = is_lost and CHILDREN_MAX or tonumber(g.planned or g.expected)
  local found, number, tenths = 0, 0, 0
  while found < had('made') and number < last do
    number = number + 1
    local child = redis.call('HMGET', base .. 'job:' .. group .. '~' .. int(number), 'phase', 'fence', 'percent')
    if child[1] then
      local state = is_terminal(child[1]) and string.lower(child[1]) or child[2] and 'running' or 'waiting'
      seen[state] = seen[state] + 1
      found = found + 1
      tenths = tenths + (is_terminal(child[1]) and 1000 or tenths_of(child[3] or '0'))
    end
  end
  local sum = had('waiting') + had('running') + had('complete') + had('failed') + had('cancelled')
  if not is_lost and sum == had('made') and seen.waiting == had('waiting') and seen.running == had('running')
    and seen.complete <= had('complete') and seen.failed <= had('failed') and seen.cancelled <= had('cancelled') then return end
  note(group, 'group_miscounted', function()
    local made = math.max(had('made'), found)
    local complete, cancelled = math.max(seen.complete, had('complete')), math.max(seen.cancelled, had('cancelled'))
    local failed = math.max(seen.failed, made - seen.waiting - seen.running - complete - cancelled)
    redis.call('HSET', gkey, 'expected', g.expected, 'made', int(made), 'waiting', int(seen.waiting), 'running', int(seen.running),
      'complete', int(complete), 'failed', int(failed), 'cancelled', int(cancelled), 'tenths', int(tenths + 1000 * (made - found)))
    redis.call('PEXPIRE', gkey, KEEP_MS)
    g = read_hash(gkey)
    local t, ended = write_group(base, verb, group, g, at)
    if t and ended >= tonumber(g.expected) then end_group(base, verb, group, t, g, at) end
  end)
end

-- Whether anybody looks after the queue.
local function check_line(queue)
  local q = queue_base(base, queue)
  for _, place in ipairs({ 'leases', 'deadlines' }) do
    local first = redis.call('ZRANGE', q .. place, 0, 0, 'WITHSCORES')[2]
    if first and tonumber(first) < at - OVERDUE_MS then
      found(queue, 'nobody_sweeps', false)
      break
    end
  end
  local set = redis.call('HMGET', KEYS[1], 'paused', 'max_running', 'fence')
  local list = KEYS[2] and string.match(KEYS[2], '^(.-{wake}:)')
  if not list or set[1] or redis.call('ZCARD', q .. 'ready') == 0 then return end
  if set[2] and redis.call('ZCARD', q .. 'leases') >= tonumber(set[2]) then return end
  if not redis.call('LPOS', list .. queue, string.match(base, '{([^}]*)}')) then
    -- With the number of the last claim: while claims go on the token comes and goes.
    note(queue .. '@' .. (set[3] or '0'), 'no_wake_token', function() push_wake(base, queue) end)
  end
end

-- Of a line that is too long to be counted: the tenants' counts against its length.
local function check_sums(queue, tenants, waiting, leased)
  local q, queued, running = queue_base(base, queue), 0, 0
  for _, tenant in ipairs(tenants) do
    local had = redis.call('HMGET', q .. 'tenant:' .. tenant, 'queued', 'running')
    queued, running = queued + tonumber(had[1] or '0'), running + tonumber(had[2] or '0')
  end
  if queued ~= waiting or running ~= leased then found(queue, 'tenants_do_not_add_up', false) end
end

local function check_counts(queue)
  local q = queue_base(base, queue)
  if redis.call('SCARD', q .. 'tenants') > COUNT_MAX then return found(queue, 'not_counted', false) end
  local tenants = redis.call('SMEMBERS', q .. 'tenants')
  local waiting, leased = redis.call('ZCARD', q .. 'ready') + redis.call('ZCARD', q .. 'delayed'), redis.call('ZCARD', q .. 'leases')
  local parked = 0
  for _, tenant in ipairs(tenants) do parked = parked + redis.call('ZCARD', q .. 'parked:' .. tenant) end
  if parked ~= tonumber(redis.call('HGET', KEYS[1], 'parked') or '0') then
    note(queue, 'parked_miscounted', function() redis.call('HSET', KEYS[1], 'parked', int(parked)) end)
  end
  if waiting + parked + leased > COUNT_MAX then
    found(queue, 'not_counted', false)
    return check_sums(queue, tenants, waiting + parked, leased)
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
elseif what == 'groups' then
  for i = 4, #ARGV do check_children(ARGV[i], ARGV[3]) end
elseif what == 'line' then
  check_line(ARGV[3])
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

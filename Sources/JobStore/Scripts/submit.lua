-- include: event line group submitting
-- Creates jobs of one queue, groups or children of a group, one after another: each is answered as if it had come alone.
-- KEYS[1] headway:{p}:job:J of the first; all are of one partition    KEYS[2] headway:{wake}:Q (standalone and Sentinel only)
-- ARGV[1] verb (PUBLISH, SPUBLISH or '')   ARGV[2] queue   then for each run of jobs that are alike, of 100 jobs in all:
--   m   n   pipeline   owner   priority 0…9 (9 is first)   max_attempts   ttl_ms   n texts: names and values   m pairs: id, params
-- Names are fields of the hash (submitting.lua) and `delay_ms`, `expires_at` (24 h without it), `once` = remember the id for 24 h
-- (idempotency key), `children` = how many a group will have, `child` = take the next free number of the group that `id` is
-- Returns for each job its body (a text), or {'new', id, body} of a `child`, {'exists', id, body, seq, phase, owner}, {'conflict'},
-- {'gone'}, {'full', limit}, {'tenant_full', limit}, {'draining'}, {'no_group'}, {'group_full', limit}, {'group_ended'} or
-- {'unknown_field', name}
local WAIT_MS = 24 * 3600 * 1000
local AUDIT_WAITING_MS = 60 * 60 * 1000

local call, argv = redis.call, ARGV
local base = split_job_key(KEYS[1])
local verb, queue = argv[1], argv[2]
local q, waits = queue_base(base, queue), queue ~= HELD

-- First everything is read that all jobs have to do with, so that what cannot be read stops the call before it has written anything:
-- of the queue and its tenants (a chain) it is counted on from there, and places in the line are taken at the end.
local keys, count, i, set, depth, limit, tenants = {}, 0, 3, nil, nil, nil, nil
local owner, priority, tenant, band, t
while argv[i] do
  local first = i + 7 + argv[i + 1]
  if waits then
    owner, priority = argv[i + 3], argv[i + 4]
    -- A digit's text without a number on the way, which costs as much as a short command.
    tenant, band, t = tenant_of(owner), string.char(105 - string.byte(priority)), tenants
    while t and t.name ~= tenant do t = t.before end
    if not (t and t[band]) then
      local found = call('HMGET', q .. 'meta', 'clock' .. band, 'weight:' .. tenant, 'max_queued:' .. tenant, 'tenant_max_queued',
        'limits', 'draining', 'max_depth', 'parked')
      local own = call('HMGET', q .. 'tenant:' .. tenant, 'queued', 't' .. band)
      if not set then
        set, limit = found, found[7] and tonumber(found[7])
        depth = limit and call('ZCARD', q .. 'ready') + call('ZCARD', q .. 'delayed') + (found[8] or 0)
      end
      if not t then
        local most = found[3] or found[4]
        tenants = { name = tenant, before = tenants, queued = (own[1] or 0) + 0, limit = most and tonumber(most),
          step = step_of(found[2]), is_new = not own[2] }
        t = tenants
      end
      t[band] = math.max(own[2] or 0, found[1] or 0)
    end
  end
  i = first + 2 * argv[i]
  for j = first, i - 1, 2 do
    count = count + 1
    keys[count] = base .. 'job:' .. argv[j]
  end
end
if count > 100 then return { err = 'HEADWAY 100 jobs at most' } end
-- One look at all of them: jobs of new ids that are no children need none of their own. (An id that comes twice is among the `made`.)
local made = count > 1 and {}
local are_plain = call('EXISTS', unpack(keys)) == 0 and not string.find(made and table.concat(keys) or keys[1], '~', 1, true)

local at, now = now_ms()
local answers, ready, delayed, deadlines, readies, delays, submitted = {}, nil, nil, nil, 0, 0, 0

count, i = 0, 3
while argv[i] do
  local pipeline, attempts, ttl = argv[i + 2], argv[i + 5], argv[i + 6]
  local first = i + 7 + argv[i + 1]
  local following = first + 2 * argv[i]
  local rest, unknown, twin
  if first > i + 7 then rest, unknown = read_rest(i + 7, first - 1) end
  local delay = rest and rest.delay_ms or 0
  local expires = rest and tonumber(rest.expires_at) or at + delay + WAIT_MS
  local look, kept = int(math.min(expires, at + AUDIT_WAITING_MS)), int(math.max(at, expires) + KEEP_MS)
  expires = int(expires)
  local shown, number = rest and rest.shown, 9 - argv[i + 4]
  if owner ~= argv[i + 3] or priority ~= argv[i + 4] then
    owner, priority = argv[i + 3], argv[i + 4]
    tenant, band, t = tenant_of(owner), string.char(105 - string.byte(priority)), tenants
    while t and t.name ~= tenant do t = t.before end
  end

  for j = first, following - 1, 2 do
    local job, params, own, answer = argv[j], argv[j + 1], nil, nil
    count = count + 1
    local key = keys[count]
    if unknown then
      answer = { 'unknown_field', unknown }
    elseif rest or not are_plain or made and made[job] then
      job, own, answer = look_at(base, job, queue, pipeline, owner, params, rest)
      key = base .. 'job:' .. job
    end
    if not answer and waits then
      if set[6] then
        answer = { 'draining' }
      elseif limit and depth >= limit then
        answer = { 'full', set[7] }
      elseif t.limit and t.queued >= t.limit then
        answer = { 'tenant_full', int(t.limit) }
      end
    end

    if not answer then
      local score
      if waits and delay == 0 then score, t[band] = turn(number, t[band], t.step) end
      answer = queued_json(job, now, shown)
      if twin then
        -- All but four fields, and the TTL, are those of the job before.
        call('COPY', twin, key)
        call('HSET', key, 'id', job, 'params', params, 'body', answer, 'score', score)
      else
        -- The first write of all: here a Redis that is full refuses, and has nothing half-written.
        call('HSET', key, 'v', '1', 'id', job, 'queue', queue, 'pipeline', pipeline, 'owner', owner, 'priority', priority,
          'params', params, 'max_attempts', attempts, 'ttl_ms', ttl, 'phase', 'QUEUED', 'percent', '0.0', 'phase_percent', '0.0',
          'attempt', '1', 'created_at', now, 'updated_at', now, 'expires_at', expires, 'seq', '1', 'body', answer,
          rest and 'v' or 'plain', '1', score and 'score' or 'v', score or '1')
        call('PEXPIREAT', key, kept)
        if score and not rest then twin = key end
      end
      submitted = submitted + 1
      if deadlines then
        deadlines[2 * submitted - 1], deadlines[2 * submitted] = look, job
      else
        deadlines = { look, job }
      end
      if waits then
        t.queued, t.grew = t.queued + 1, true
        depth = depth and depth + 1
        if delay > 0 then
          delayed, delays = delayed or {}, delays + 2
          delayed[delays - 1], delayed[delays] = int(at + delay), job
        elseif not (set[5] and parked(q, t, job, score)) then
          readies = readies + 2
          if ready then
            ready[readies - 1], ready[readies] = score, job
          else
            ready = { score, job }
          end
        end
      end
      if verb ~= '' then call(verb, base .. 'live:' .. job, QUEUED_HEAD .. answer) end
      if made then made[job] = true end
      if own then answer = keep_rest(base, key, verb, job, rest, own, answer, at) end
    end
    answers[count] = answer
  end
  i = following
end

if submitted > 0 then
  call('ZADD', q .. 'deadlines', unpack(deadlines))
  while tenants do
    if tenants.grew then keep_tenant(q, tenants) end
    tenants = tenants.before
  end
  if ready then call('ZADD', q .. 'ready', unpack(ready)) end
  if delayed then call('ZADD', q .. 'delayed', unpack(delayed)) end
  -- Also for delayed ones: an idle worker learns of the due date.
  if ready or delayed then push_wake(base, queue) end
  call('HINCRBY', q .. 'meta', 'submitted', int(submitted))
end
return answers

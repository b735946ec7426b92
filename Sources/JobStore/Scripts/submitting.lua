-- submitting.lua: what submit.lua does for some jobs only, and for tenants. Included after event.lua, line.lua and group.lua.

local IDEMPOTENCY_MS = '86400000'

-- The names and values in ARGV[first] … ARGV[last]: by name, and those of the hash as a list too; `shown` is what of them the event
-- shows. With a name that is unknown, an empty table and that.
local function read_rest(first, last)
  -- `children` is a number here and JSON in the hash.
  local of_the_hash = {
    max_runtime_ms = true, class = true, cold = true, plan = true, traceparent = true, retry_of = true, prefer = true, children = true,
  }
  local of_the_submit = { delay_ms = true, expires_at = true, once = true, child = true }
  local rest, traceparent = { shown = '' }, ''
  for i = first, last, 2 do
    local name, value = ARGV[i], ARGV[i + 1]
    rest[name] = value
    if name == 'children' then
      value = children_json({ expected = value })
      rest.shown = ',"children":' .. value
    elseif name == 'traceparent' then
      traceparent = ',"traceparent":' .. quoted(value)
    end
    if of_the_hash[name] then
      rest[#rest + 1], rest[#rest + 2] = name, value
    elseif not of_the_submit[name] then
      return {}, name
    end
  end
  rest.delay_ms, rest.shown = tonumber(rest.delay_ms or 0), rest.shown .. traceparent
  return rest
end

-- Of a child `job`, or with is_next of the group `job` one child more: its id and its group, or its id, nil and the refusal.
local function in_group(base, job, owner, is_next)
  local group = is_next and job or group_of(job)
  local parent = redis.call('HMGET', base .. 'job:' .. group, 'owner', 'phase', 'cancel')
  local g = read_hash(base .. 'group:' .. group)
  if parent[1] ~= owner or not g.expected then return job, nil, { 'no_group' } end
  local made, most = tonumber(g.made or '0'), tonumber(g.expected)
  if is_next or redis.call('EXISTS', base .. 'job:' .. job) == 0 then
    if is_terminal(parent[2]) or parent[3] then return job, nil, { 'group_ended' } end
    if made >= most or tonumber(string.match(job, '~(%d+)$') or '0') > most then return job, nil, { 'group_full', g.expected } end
  end
  if is_next then
    -- Children may have come with numbers of their own choice: the next free one, round and round.
    local number = made
    repeat
      number = number % most + 1
      job = group .. '~' .. int(number)
    until redis.call('EXISTS', base .. 'job:' .. job) == 0
  end
  return job, group
end

-- A job that is a child, may be there already or says more than every job does: its id, what it has of its own (group, digest), and
-- the answer where it is not to be created.
local function look_at(base, job, queue, pipeline, owner, params, rest)
  local own, refusal = {}, nil
  if rest and rest.child or group_of(job) then
    job, own.group, refusal = in_group(base, job, owner, rest and rest.child)
    if refusal then return job, own, refusal end
  end
  local key = base .. 'job:' .. job
  if redis.call('EXISTS', key) == 1 then
    local old = redis.pcall('HMGET', key, 'owner', 'queue', 'pipeline', 'params', 'seq', 'body', 'phase')
    -- The same submit again (a retry after a lost reply) is answered with the job; anything else is a conflict.
    if old[1] == owner and old[2] == queue and old[3] == pipeline and old[4] == params then
      return job, own, { 'exists', job, old[6], old[5], old[7], old[1] }
    end
    return job, own, { 'conflict' }
  end
  if rest and rest.once then
    own.digest = redis.sha1hex(owner .. '\n' .. queue .. '\n' .. pipeline .. '\n' .. params)
    local known = redis.call('GET', base .. 'idem:' .. job)
    if known then return job, own, { known == own.digest and 'gone' or 'conflict' } end
  end
  return job, own
end

-- Writes what such a job has more than others, once it is there. Returns the answer.
local function keep_rest(base, key, verb, job, rest, own, body, at)
  if own.digest then redis.call('SET', base .. 'idem:' .. job, own.digest, 'PX', IDEMPOTENCY_MS) end
  if rest and rest[1] then redis.call('HSET', key, unpack(rest)) end
  if rest and rest.children then
    redis.call('HSET', base .. 'group:' .. job, 'expected', rest.children)
    redis.call('PEXPIRE', base .. 'group:' .. job, KEEP_MS)
  elseif own.group then
    local group = base .. 'group:' .. own.group
    redis.call('HINCRBY', group, 'made', 1)
    redis.call('HINCRBY', group, 'waiting', 1)
    write_group(base, verb, own.group, read_hash(group), at)
  end
  return rest and rest.child and { 'new', job, body } or body
end

-- Whether the job was parked, because its tenant runs as many as it may. Nothing starts meanwhile: one look per tenant is enough.
local function parked(q, t, job, score)
  if t.at_limit == nil then
    local limit = running_limit(q, t.name)
    t.at_limit = limit ~= nil and running_count(q, t.name) >= limit
  end
  if t.at_limit then park(q, t.name, job, score) end
  return t.at_limit
end

-- Writes what changed of a tenant: its jobs in line, and by the names of their bands its next tags.
local function keep_tenant(q, t)
  local key, fields, last = q .. 'tenant:' .. t.name, { 'queued', int(t.queued) }, 2
  for band, tag in pairs(t) do
    if #band == 1 then
      fields[last + 1], fields[last + 2], last = 't' .. band, int(tag), last + 2
    end
  end
  redis.call('HSET', key, unpack(fields))
  -- Its TTL runs from its first job on; reap renews it.
  if t.is_new then
    know(q, t.name)
    redis.call('PEXPIRE', key, TENANT_TTL_MS)
  end
end

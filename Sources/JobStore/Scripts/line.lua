-- line.lua: who is next. Included after event.lua by the scripts that move jobs in and out of the line.
--
-- Start-time fair queueing (Goyal, Vin, Cheng 1996) per priority band: a job's tag is max(clock, its tenant's next tag), its
-- tenant's next tag is that plus COST/weight, and the clock is the highest tag claimed. So two tenants that both wait get turns
-- in proportion to their weights, whoever came first with how many jobs. score = (9 - priority)·2^40 + tag.
-- A script that includes this file takes the wake list of its queue as KEYS[2], or nothing where that lies in another slot.

-- Of one job at weight 1; divides well. 2^40 of it are 4.5 thousand million jobs.
local COST = 240
local BAND = 2 ^ 40
local TENANT_TTL_MS = '604800000'

local function queue_base(base, queue)
  return base .. 'queue:' .. queue .. ':'
end

-- 'tenant/user' -> 'tenant'
local function tenant_of(owner)
  local slash = string.find(owner, '/', 1, true)
  return slash and string.sub(owner, 1, slash - 1) or owner
end

-- Wakes one worker blocked on the queue; with a label, one of those that wait for jobs of that label.
local function push_wake(base, queue, label)
  if not KEYS[2] then return end
  local _, head = string.find(KEYS[2], '{wake}:', 1, true)
  local list = string.sub(KEYS[2], 1, head) .. queue .. (label and ':' .. label or '')
  local tag = string.sub(base, string.find(base, '{', 1, true) + 1, -3)
  if not redis.call('LPOS', list, tag) then
    redis.call('RPUSH', list, tag)
    -- Nobody may be left to take the token of a label.
    if label then redis.call('PEXPIRE', list, 60000) end
  end
end

-- Changes a tenant's counts in a queue by '1' or '-1', or not (nil), never below 0: a count that was lost must not become a debt.
local function count(q, tenant, queued, running)
  local key = q .. 'tenant:' .. tenant
  if queued and redis.call('HINCRBY', key, 'queued', queued) < 0 then redis.call('HSET', key, 'queued', '0') end
  if running and redis.call('HINCRBY', key, 'running', running) < 0 then redis.call('HSET', key, 'running', '0') end
end

-- Puts a tenant on the list of those that reap looks after.
local function know(q, tenant)
  redis.call('SADD', q .. 'tenants', tenant)
  redis.call('PEXPIRE', q .. 'tenants', TENANT_TTL_MS)
end

-- What a job adds to the tag of its tenant, by the tenant's weight (text or nil).
local function step_of(weight)
  return weight and math.max(1, math.floor(COST / tonumber(weight) + 0.5)) or COST
end

-- The score of one more job of a tenant, and the tenant's tag after it; from the tag so far or the band's clock, if that is later.
local function turn(band, tag, step)
  if tag >= BAND then tag = BAND - 1 end
  return int(band * BAND + tag), tag + step
end

-- The same, read and written.
local function next_score(q, tenant, band, weight)
  local key, field = q .. 'tenant:' .. tenant, 't' .. int(band)
  local own = redis.call('HGET', key, field)
  if not own then know(q, tenant) end
  local clock = redis.call('HGET', q .. 'meta', 'clock' .. int(band))
  local score, tag = turn(band, math.max(own or 0, clock or 0), step_of(weight))
  redis.call('HSET', key, field, int(tag))
  redis.call('PEXPIRE', key, TENANT_TTL_MS)
  return score
end

-- How many jobs of the tenant may run at once in the queue, or nil.
local function running_limit(q, tenant)
  local set = redis.call('HMGET', q .. 'meta', 'max_running:' .. tenant, 'tenant_max_running')
  return tonumber(set[1] or set[2] or '')
end

local function running_count(q, tenant)
  return tonumber(redis.call('HGET', q .. 'tenant:' .. tenant, 'running') or '0')
end

local function park(q, tenant, job, score)
  if redis.call('ZADD', q .. 'parked:' .. tenant, score, job) == 1 then redis.call('HINCRBY', q .. 'meta', 'parked', 1) end
  redis.call('PEXPIRE', q .. 'parked:' .. tenant, KEEP_MS)
end

-- Puts a waiting job into the line, or among its tenant's parked ones while that tenant runs as many as it may.
-- limits: the queue's setting of that name where the caller has read it.
local function enter(base, queue, job, score, tenant, limits)
  local q = queue_base(base, queue)
  if limits == nil then limits = redis.call('HGET', q .. 'meta', 'limits') end
  if limits then
    local limit = running_limit(q, tenant)
    if limit and running_count(q, tenant) >= limit then return park(q, tenant, job, score) end
  end
  redis.call('ZADD', q .. 'ready', score, job)
  push_wake(base, queue)
end

-- Lets up to `how_many` of a tenant's parked jobs into the line, not before the clock: waiting outside earns no advantage over
-- others that waited inside.
local function unpark(base, queue, tenant, how_many)
  local q = queue_base(base, queue)
  local moved = 0
  while moved < how_many do
    local popped = redis.call('ZPOPMIN', q .. 'parked:' .. tenant)
    if not popped[1] then break end
    local score = tonumber(popped[2])
    local band = math.floor(score / BAND)
    local clock = tonumber(redis.call('HGET', q .. 'meta', 'clock' .. int(band)) or '0')
    score = int(math.max(score, band * BAND + clock))
    redis.call('ZADD', q .. 'ready', score, popped[1])
    redis.call('HSET', base .. 'job:' .. popped[1], 'score', score)
    moved = moved + 1
  end
  if moved > 0 then
    redis.call('HINCRBY', q .. 'meta', 'parked', -moved)
    push_wake(base, queue)
  end
  return moved
end

-- A job of the tenant stopped running: what waited for its place may come.
local function free_place(base, queue, tenant)
  local q = queue_base(base, queue)
  local set = redis.call('HMGET', q .. 'meta', 'limits', 'max_running')
  if set[1] then unpark(base, queue, tenant, 1) end
  if set[2] and redis.call('ZCARD', q .. 'ready') > 0 then push_wake(base, queue) end
end

-- Moves delayed jobs into the line, which were found to be due. A job that has not started gets its tag now: one from its submit
-- would put it before everyone who came meanwhile. A retry keeps its own: head of its band.
local function promote(base, queue, due)
  local q = queue_base(base, queue)
  for _, job in ipairs(due) do
    redis.call('ZREM', q .. 'delayed', job)
    local key = base .. 'job:' .. job
    local s = redis.call('HMGET', key, 'score', 'owner', 'priority', 'started_at')
    if s[2] then
      local tenant, score = tenant_of(s[2]), s[1]
      if not s[4] or not score then
        score = next_score(q, tenant, 9 - tonumber(s[3]), redis.call('HGET', q .. 'meta', 'weight:' .. tenant))
        redis.call('HSET', key, 'score', score)
      end
      enter(base, queue, job, score, tenant)
    end
  end
end

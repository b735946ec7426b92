-- include: event line group ends
-- Cancels a waiting job at once; asks the worker of a running one. A group hands it on to its children.
-- KEYS[1] headway:{p}:job:J    KEYS[2] any headway:{wake}:Q (standalone and Sentinel only)
-- ARGV[1] verb   ARGV[2] who   ARGV[3] why or ''   ARGV[4] grace_ms until reap forces it   ARGV[5] prefix of the workers' hint channels
-- Returns {'absent'}, {'ended', phase}, {'cancelled'} or {'requested', '1' if this call was the first else '0'}
local base, top = split_job_key(KEYS[1])
local verb, at, now = ARGV[1], now_ms()
local request = '{"by":' .. quoted(ARGV[2]) .. (ARGV[3] ~= '' and ',"reason":' .. quoted(ARGV[3]) or '') .. ',"at":' .. now .. '}'

local function cancel(job)
  local key = base .. 'job:' .. job
  local s = read_running(key)
  -- A job that waits and has told nothing needs little for its end, and most jobs that are cancelled are such. The first write of an
  -- end needs no memory (see touch in ends.lua): the job leaves its places.
  if s.fence or s.seq ~= '1' or s.queue == HELD then
    local phase = redis.call('HGET', key, 'phase')
    if not phase then return { 'absent' } end
    if is_terminal(phase) then return { 'ended', phase } end
    s = read_hash(key)
  end
  local first = not s.cancel
  if first then s.cancel = request end
  if not s.fence and not s.children then
    end_job(key, base, job, verb, s, 'CANCELLED', at, '', 'CANCELLED', '')
    return { 'cancelled' }
  end
  touch(key)
  if first then redis.call('HSET', key, 'cancel', s.cancel) end
  if s.children then return { 'group', first } end
  if first then
    redis.call('ZADD', queue_base(base, s.queue) .. 'deadlines', at + tonumber(ARGV[4]), job)
    emit(key, base, job, verb, 'progress', s, now, nil)
  end
  -- Only a hint: every heartbeat and progress reply carries the flag too.
  if verb ~= '' and s.queue ~= HELD then redis.call('PUBLISH', ARGV[5] .. s.worker, job) end
  return { 'requested', first and '1' or '0' }
end

local answer = cancel(top)
if answer[1] ~= 'group' then return answer end

-- Its children first, by number; each tells the group, whose end may come with the last of them.
local gkey = base .. 'group:' .. top
local g = read_hash(gkey)
if answer[2] then emit(KEYS[1], base, top, verb, 'progress', read_hash(KEYS[1]), now, nil) end
-- No more children will come.
redis.call('HSETNX', gkey, 'planned', g.expected)
redis.call('HSET', gkey, 'expected', g.made or '0')
local found, number = 0, 0
while found < tonumber(g.made or '0') and number < tonumber(g.expected) do
  number = number + 1
  if cancel(top .. '~' .. int(number))[1] ~= 'absent' then found = found + 1 end
end
local s = read_hash(KEYS[1])
if is_terminal(s.phase) then return { 'cancelled' } end
g = read_hash(gkey)
if tonumber(g.waiting or '0') + tonumber(g.running or '0') == 0 then
  s.children = children_json(g)
  redis.call('HSET', KEYS[1], 'children', s.children)
  end_group(base, verb, top, s, g, at)
  return { 'cancelled' }
end
return { 'requested', answer[2] and '1' or '0' }

-- include: event line group ends
-- Cancels waiting jobs of a queue, or forgets its dead letters, at most 100 a call.
-- KEYS[1] headway:{p}:queue:Q:ready    KEYS[2] headway:{wake}:Q (standalone and Sentinel only)
-- ARGV[1] verb   ARGV[2] queue   ARGV[3] who   ARGV[4] 'ready', 'delayed', 'parked' or 'dead'
-- Returns {'ok', how many it ended or forgot, how many are left there}
local BATCH = 100
local verb, queue, what = ARGV[1], ARGV[2], ARGV[4]
local base = string.match(KEYS[1], '^(.-{[^}]*}:)')
local q = queue_base(base, queue)
local at = now_ms()
local done, left = 0, 0

local function cancel_all(place)
  for _, job in ipairs(redis.call('ZRANGE', place, 0, BATCH - done - 1)) do
    local key = base .. 'job:' .. job
    local s = read_hash(key)
    redis.call('ZREM', place, job)
    if s.phase and not is_terminal(s.phase) and not s.fence then
      s.cancel = '{"by":' .. quoted(ARGV[3]) .. ',"reason":"the queue was purged","at":' .. int(at) .. '}'
      end_job(key, base, job, verb, s, 'CANCELLED', at, '', 'CANCELLED', '')
    end
    done = done + 1
  end
  left = left + redis.call('ZCARD', place)
end

if what == 'dead' then
  for _, job in ipairs(redis.call('ZRANGE', q .. 'dead', 0, BATCH - 1)) do
    redis.call('ZREM', q .. 'dead', job)
    for _, part in ipairs({ 'job:', 'milestones:', 'log:', 'preview:', 'group:' }) do redis.call('DEL', base .. part .. job) end
    done = done + 1
  end
  left = redis.call('ZCARD', q .. 'dead')
elseif what == 'parked' then
  for _, tenant in ipairs(redis.call('SMEMBERS', q .. 'tenants')) do
    if done < BATCH then
      local before = done
      cancel_all(q .. 'parked:' .. tenant)
      if done > before then redis.call('HINCRBY', q .. 'meta', 'parked', before - done) end
    end
  end
  left = tonumber(redis.call('HGET', q .. 'meta', 'parked') or '0')
else
  cancel_all(q .. what)
end
return { 'ok', int(done), int(left) }

-- include: event line
-- Changes the settings of one queue in one partition.
-- KEYS[1] headway:{p}:queue:Q:meta    KEYS[2] headway:{wake}:Q (standalone and Sentinel only)
-- ARGV[1] queue   ARGV[2…] name, value pairs; an empty value removes. Names: paused, draining (1), max_depth, max_running,
-- tenant_max_queued, tenant_max_running, and max_queued:T, max_running:T, weight:T of one tenant T
-- Returns {'ok'}
local PLAIN = { max_depth = true, max_running = true, tenant_max_queued = true, tenant_max_running = true }
local WEIGHT_MAX = 240
local MOST = 1e9

local meta, queue = KEYS[1], ARGV[1]
local base = string.match(meta, '^(.-{[^}]*}:)')
local q = queue_base(base, queue)

local function mistake(name, value)
  local kind = string.match(name, '^(%a+):.+$') or string.match(name, '^(max_%a+):.+$')
  if name ~= 'paused' and name ~= 'draining' and not PLAIN[name] and kind ~= 'max_queued' and kind ~= 'max_running' and kind ~= 'weight' then
    return 'unknown setting ' .. name
  end
  if value == '' then return nil end
  if name == 'paused' or name == 'draining' then return value ~= '1' and name .. ': 1 or nothing' or nil end
  if not string.match(value, '^%d+$') or #value > 10 or tonumber(value) > MOST then return name .. ': a whole number up to 1000000000' end
  if kind == 'weight' and (tonumber(value) < 1 or tonumber(value) > WEIGHT_MAX) then return name .. ': a whole number from 1 to 240' end
end

for i = 2, #ARGV, 2 do
  local wrong = mistake(ARGV[i], ARGV[i + 1])
  if wrong then return refuse(wrong) end
end
for i = 2, #ARGV, 2 do
  if ARGV[i + 1] == '' then
    redis.call('HDEL', meta, ARGV[i])
  else
    redis.call('HSET', meta, ARGV[i], ARGV[i + 1])
  end
end
-- What claims and submits look at first: whether any tenant's running limit is set.
local limited = redis.call('HEXISTS', meta, 'tenant_max_running') == 1
if not limited then
  for _, name in ipairs(redis.call('HKEYS', meta)) do limited = limited or string.match(name, '^max_running:') ~= nil end
end
if limited then redis.call('HSET', meta, 'limits', '1') else redis.call('HDEL', meta, 'limits') end
-- A wider limit or a resumed queue: workers look again, and reap lets the parked in.
if redis.call('ZCARD', q .. 'ready') + redis.call('ZCARD', q .. 'delayed') > 0 then push_wake(base, queue) end
return { 'ok' }

-- group.lua: the aggregate bar of the children J~n of a group J. Included after event.lua.
-- headway:{p}:group:J holds counts by state and `tenths`, the sum of the children's percent in tenths; a child that ended, however,
-- counts in full: nothing more is to be waited for. headway:{p}:group:J:eta holds when each running child expects its end.

-- The aggregate moves at most this often while only bars move.
local GROUP_INTERVAL_MS = 250

local function group_of(job)
  local mark = string.find(job, '~', 1, true)
  return mark and string.sub(job, 1, mark - 1)
end

local function tenths_of(percent)
  return math.floor(tonumber(percent) * 10 + 0.5)
end

local function children_json(g)
  return string.format('{"expected":%s,"waiting":%s,"running":%s,"complete":%s,"failed":%s,"cancelled":%s}', g.expected, g.waiting or '0',
    g.running or '0', g.complete or '0', g.failed or '0', g.cancelled or '0')
end

-- Writes the group's bar from its counts. `g` is the group's hash. Returns the group's job as stored, and how many have ended.
local function write_group(base, verb, group, g, at)
  local key = base .. 'job:' .. group
  local s = read_hash(key)
  if not s.phase or is_terminal(s.phase) then return nil end
  local ended = tonumber(g.complete or '0') + tonumber(g.failed or '0') + tonumber(g.cancelled or '0')
  local kind, phase = 'progress', s.phase
  if phase == 'QUEUED' and ended + tonumber(g.running or '0') > 0 then
    kind, phase = 'phase', 'GENERATING'
    if not s.started_at then
      s.started_at = int(at)
      redis.call('HSET', key, 'started_at', s.started_at)
    end
  end
  -- A child that starts again falls back; the group's bar waits for it.
  local tenths = math.max(tenths_of(s.percent), math.min(999, math.floor(tonumber(g.tenths or '0') / math.max(1, tonumber(g.expected)))))
  s.phase, s.percent = phase, string.format('%.1f', tenths / 10)
  s.phase_percent = phase == 'QUEUED' and '0.0' or s.percent
  s.children = children_json(g)
  -- The end of the group is the end of its slowest child, and unknown while one has not begun.
  local last = redis.call('ZRANGE', base .. 'group:' .. group .. ':eta', -1, -1, 'WITHSCORES')
  s.eta_ms, s.eta_low_ms, s.eta_high_ms, s.estimating = nil, nil, nil, nil
  if phase ~= 'QUEUED' then
    if last[2] and ended + redis.call('ZCARD', base .. 'group:' .. group .. ':eta') >= tonumber(g.expected) then
      s.eta_ms = int(math.max(0, tonumber(last[2]) - at))
      redis.call('HSET', key, 'eta_ms', s.eta_ms)
      redis.call('HDEL', key, 'estimating')
    else
      s.estimating = '1'
      redis.call('HSET', key, 'estimating', '1')
      redis.call('HDEL', key, 'eta_ms')
    end
  end
  redis.call('HSET', key, 'phase', phase, 'percent', s.percent, 'phase_percent', s.phase_percent, 'children', s.children)
  redis.call('PEXPIRE', key, KEEP_MS)
  redis.call('PEXPIRE', base .. 'group:' .. group, KEEP_MS)
  emit(key, base, group, verb, kind, s, int(at), nil)
  return s, ended
end

-- The bar of a child moved: `before` and `after` in tenths.
local function group_moved(base, verb, job, before, after, eta_ms, at)
  local group = group_of(job)
  local key = base .. 'group:' .. group
  if redis.call('EXISTS', key) == 0 then return end
  if after ~= before then redis.call('HINCRBY', key, 'tenths', after - before) end
  if eta_ms then
    redis.call('ZADD', key .. ':eta', at + tonumber(eta_ms), job)
    redis.call('PEXPIRE', key .. ':eta', KEEP_MS)
  else
    redis.call('ZREM', key .. ':eta', job)
  end
  local shown = tonumber(redis.call('HGET', base .. 'job:' .. group, 'updated_at') or '0')
  if at - shown >= GROUP_INTERVAL_MS then write_group(base, verb, group, read_hash(key), at) end
end

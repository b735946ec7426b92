-- include: event
-- Writes the whole progress of a running job: what is not named is cleared. Renews the lease.
-- KEYS[1] headway:{p}:job:J
-- ARGV[1] verb   ARGV[2] fence   ARGV[3] write number (each write under a fence has a higher one)   ARGV[4] lease_ms
-- ARGV[5] phase   ARGV[6] percent and ARGV[7] phase_percent, in tenths   ARGV[8…] optional name, value pairs
-- Returns {'ok', seq, '1' if clamped else '0', cancel JSON or ''} or {'lost'}; HEADWAY error for a value that breaks a rule
local KINDS = {
  percent_per_s = 'decimal', stage = 'text', stage_percent = 'tenths', step = 'int', steps = 'int', item = 'int', items = 'int',
  message = 'text', eta_ms = 'int', eta_low_ms = 'int', eta_high_ms = 'int', stalled = 'flag', estimating = 'flag',
}
local NAMES = {
  'percent_per_s', 'stage', 'stage_percent', 'step', 'steps', 'item', 'items', 'message', 'eta_ms', 'eta_low_ms', 'eta_high_ms',
  'stalled', 'estimating',
}
local TEXT_MAX = 512
-- 100 is shown at COMPLETE only.
local PERCENT_MAX = 999

local function tenths(text, most)
  if not string.match(text, '^%d%d?%d?%d?$') then return nil end
  return math.min(tonumber(text), most)
end

local key, fence = KEYS[1], ARGV[2]
local base, job = split_job_key(key)
local old = redis.call('HMGET', key, 'fence', 'write_no', 'seq', 'phase', 'percent', 'phase_percent', 'stage', 'attempt', 'queue',
  'cancel', 'traceparent')
if old[1] ~= fence then return { 'lost' } end
local cancel = old[10] or ''
if not string.match(ARGV[3], '^%d+$') then return refuse('write number: an integer is needed') end
if tonumber(ARGV[3]) <= tonumber(old[2]) then return { 'ok', old[3], '0', cancel } end

local phase = ARGV[5]
if not RANK[phase] or TERMINAL[phase] then return refuse('phase: not a phase of a running job') end
if RANK[phase] < RANK[old[4]] then return refuse('phase: ' .. phase .. ' comes before ' .. old[4]) end
local percent, phase_percent = tenths(ARGV[6], PERCENT_MAX), tenths(ARGV[7], 1000)
if not percent or not phase_percent then return refuse('percent: tenths from 0 to 1000 are needed') end

local s = { phase = phase, attempt = old[8], cancel = old[10] or nil, traceparent = old[11] or nil }
for i = 8, #ARGV, 2 do
  local name, value = ARGV[i], ARGV[i + 1]
  local kind = KINDS[name]
  if kind == 'int' then
    if not string.match(value, '^%d+$') or #value > 15 then return refuse(name .. ': a whole number is needed') end
  elseif kind == 'tenths' then
    local number = tenths(value, 1000)
    if not number then return refuse(name .. ': tenths from 0 to 1000 are needed') end
    value = string.format('%.1f', number / 10)
  elseif kind == 'decimal' then
    if not string.match(value, '^%d+%.?%d*$') or #value > 24 then return refuse(name .. ': a decimal number is needed') end
    value = (string.gsub(value, '%.$', ''))
  elseif kind == 'text' then
    if #value > TEXT_MAX then return refuse(name .. ': at most ' .. TEXT_MAX .. ' bytes') end
  elseif kind == 'flag' then
    if value ~= '1' then return refuse(name .. ': 1 or absent') end
  else
    return refuse('unknown field ' .. name)
  end
  s[name] = value
end

-- Never backwards within an attempt: a lower value is held at the last one, and the writer is told.
local clamped = '0'
local before = math.floor(tonumber(old[5]) * 10 + 0.5)
if percent < before then percent, clamped = before, '1' end
if phase == old[4] then
  local phase_before = math.floor(tonumber(old[6]) * 10 + 0.5)
  if phase_percent < phase_before then phase_percent, clamped = phase_before, '1' end
end
s.percent, s.phase_percent = string.format('%.1f', percent / 10), string.format('%.1f', phase_percent / 10)

local kind = 'progress'
if phase ~= old[4] then kind = 'phase' elseif s.stage and s.stage ~= old[7] then kind = 'stage' end

local set, unset = { 'phase', phase, 'percent', s.percent, 'phase_percent', s.phase_percent, 'write_no', ARGV[3] }, {}
for _, name in ipairs(NAMES) do
  if s[name] then
    set[#set + 1] = name
    set[#set + 1] = s[name]
  else
    unset[#unset + 1] = name
  end
end
redis.call('HSET', key, unpack(set))
if #unset > 0 then redis.call('HDEL', key, unpack(unset)) end
if kind ~= 'progress' then s.body = redis.call('HGET', key, 'body') end
local at = now_ms()
local seq = emit(key, base, job, ARGV[1], kind, s, at, nil)
redis.call('ZADD', base .. 'queue:' .. old[9] .. ':leases', at + tonumber(ARGV[4]), job)
return { 'ok', int(seq), clamped, cancel }

-- progress.lua: the checks and the write that every report of progress goes through. Included after event.lua and group.lua.
local KINDS = {
  percent_per_s = 'decimal', stage = 'text', stage_percent = 'tenths', step = 'int', steps = 'int', item = 'int', items = 'int',
  message = 'text', eta_ms = 'int', eta_low_ms = 'int', eta_high_ms = 'int', stalled = 'flag', estimating = 'flag', quiet_ms = 'int',
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

-- The value as it is stored, or nil and what is wrong with it.
local function checked(name, value)
  local kind = KINDS[name]
  if kind == 'int' then
    if not string.match(value, '^%d+$') or #value > 15 then return nil, name .. ': a whole number is needed' end
  elseif kind == 'tenths' then
    local number = tenths(value, 1000)
    if not number then return nil, name .. ': tenths from 0 to 1000 are needed' end
    value = string.format('%.1f', number / 10)
  elseif kind == 'decimal' then
    if not string.match(value, '^%d+%.?%d*$') or #value > 24 then return nil, name .. ': a decimal number is needed' end
    value = (string.gsub(value, '%.$', ''))
  elseif kind == 'text' then
    if #value > TEXT_MAX then return nil, name .. ': at most ' .. TEXT_MAX .. ' bytes' end
  elseif kind == 'flag' then
    if value ~= '1' then return nil, name .. ': 1 or absent' end
  else
    return nil, 'unknown field ' .. name
  end
  return value
end

-- Nil, or why a running job in phase `from` cannot go to `to`.
local function phase_error(from, to)
  local rank = rank_of(to)
  if not rank or rank > '3' then return 'phase: not a phase of a running job' end
  if rank < rank_of(from) then return 'phase: ' .. to .. ' comes before ' .. from end
end

-- Writes a running job's progress: `s` holds the new fields, phase among them, `percent` and `phase_percent` as tenths; optional
-- ones that it lacks are cleared. `s.quiet_ms`: for how long the work has said nothing new; or `s.progress_at`: since when.
-- `old` holds phase, percent, phase_percent, stage, queue, cancel as stored. Returns the answer.
local function write_progress(key, base, job, verb, old, s, percent, phase_percent, write_no, lease)
  -- Never backwards within an attempt: a lower value is held at the last one, and the writer is told.
  local clamped = '0'
  local before = math.floor(tonumber(old.percent) * 10 + 0.5)
  if percent < before then percent, clamped = before, '1' end
  if s.phase == old.phase then
    local phase_before = math.floor(tonumber(old.phase_percent) * 10 + 0.5)
    if phase_percent < phase_before then phase_percent, clamped = phase_before, '1' end
  end
  s.percent, s.phase_percent = string.format('%.1f', percent / 10), string.format('%.1f', phase_percent / 10)

  local kind = 'progress'
  if s.phase ~= old.phase then kind = 'phase' elseif s.stage and s.stage ~= old.stage then kind = 'stage' end

  local at, now = now_ms()
  local progress_at = s.progress_at or int(math.max(0, at - (s.quiet_ms or 0)))
  local set, unset = {
    'phase', s.phase, 'percent', s.percent, 'phase_percent', s.phase_percent, 'write_no', write_no, 'progress_at', progress_at,
  }, {}
  for _, name in ipairs(NAMES) do
    if s[name] then
      set[#set + 1] = name
      set[#set + 1] = s[name]
    else
      unset[#unset + 1] = name
    end
  end
  -- What is cleared goes last: the first write is one that a full Redis refuses.
  local seq = emit(key, base, job, verb, kind, s, now, nil, set)
  if #unset > 0 then redis.call('HDEL', key, unpack(unset)) end
  -- A producer that goes on after a cancel was asked for does not earn more time by it: reap then forces the end.
  if not (old.cancel and old.queue == HELD) then
    redis.call('ZADD', base .. 'queue:' .. old.queue .. ':leases', at + tonumber(lease), job)
  end
  if group_of(job) then group_moved(base, verb, job, before, percent, s.eta_ms, at) end
  return { 'ok', int(seq), clamped, old.cancel or '' }
end

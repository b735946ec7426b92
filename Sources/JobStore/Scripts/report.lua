-- include: event group progress
-- Writes a part of a running job's progress, for producers that say only what changed: what is not named stays, except what a
-- change of phase or stage makes untrue, and except speed and ETA, which are of the moment.
-- KEYS[1] headway:{p}:job:J
-- ARGV[1] verb   ARGV[2] fence   ARGV[3] write number, or '' for the next one   ARGV[4] lease_ms
-- ARGV[5] phase or ''   ARGV[6] percent and ARGV[7] phase_percent, in tenths or ''
-- ARGV[8…] optional name, value pairs; an empty value clears
-- Returns as advance does
local OF_STAGE = { 'stage_percent', 'step', 'steps', 'item', 'items', 'message' }
local OF_THE_MOMENT = { 'percent_per_s', 'eta_ms', 'eta_low_ms', 'eta_high_ms', 'stalled', 'estimating' }

local key, fence = KEYS[1], ARGV[2]
local base, job = split_job_key(key)
local old = read_hash(key)
if not old.fence or old.fence ~= fence then return { 'lost' } end
-- Before the first write there is no number.
local write_no, last_no = ARGV[3], tonumber(old.write_no or '0')
if write_no == '' then write_no = int(last_no + 1) end
if not string.match(write_no, '^%d+$') then return refuse('write number: an integer is needed') end
if tonumber(write_no) <= last_no then return { 'ok', old.seq, '0', old.cancel or '' } end

local phase = ARGV[5] ~= '' and ARGV[5] or old.phase
local wrong = phase_error(old.phase, phase)
if wrong then return refuse(wrong) end
local named = {}
for i = 8, #ARGV, 2 do
  if ARGV[i + 1] == '' then
    if not KINDS[ARGV[i]] then return refuse('unknown field ' .. ARGV[i]) end
    named[ARGV[i]] = false
  else
    local value, mistake = checked(ARGV[i], ARGV[i + 1])
    if mistake then return refuse(mistake) end
    named[ARGV[i]] = value
  end
end

local s = { phase = phase, attempt = old.attempt, cancel = old.cancel, traceparent = old.traceparent, seq = old.seq }
for _, name in ipairs(NAMES) do s[name] = old[name] end
if phase ~= old.phase then s.stage = nil end
if phase ~= old.phase or (named.stage ~= nil and named.stage ~= old.stage) then
  for _, name in ipairs(OF_STAGE) do s[name] = nil end
end
for _, name in ipairs(OF_THE_MOMENT) do s[name] = nil end
for name, value in pairs(named) do s[name] = value or nil end
if s.step and tonumber(s.steps or '0') > 0 and named.stage_percent == nil and (named.step or named.steps) then
  s.stage_percent = string.format('%.1f', math.min(100, 100 * tonumber(s.step) / tonumber(s.steps)))
end

local percent, phase_percent = tenths_of(old.percent), phase == old.phase and tenths_of(old.phase_percent) or 0
if ARGV[6] ~= '' then
  percent = tenths(ARGV[6], PERCENT_MAX)
  if not percent then return refuse('percent: tenths from 0 to 1000 are needed') end
end
if ARGV[7] ~= '' then
  phase_percent = tenths(ARGV[7], 1000)
  if not phase_percent then return refuse('phase_percent: tenths from 0 to 1000 are needed') end
end
-- A producer that repeats itself makes no progress, nor does a bar that moves by the clock alone, where the producer says so.
local is_same_bar = phase == old.phase and percent == tenths_of(old.percent)
  and (ARGV[7] == '' or phase_percent == tenths_of(old.phase_percent))
if is_same_bar and not s.quiet_ms then
  local is_news = false
  for _, name in ipairs({ 'stage', 'stage_percent', 'step', 'steps', 'item', 'items', 'message' }) do
    is_news = is_news or s[name] ~= old[name]
  end
  if not is_news then s.progress_at = old.progress_at end
end
return write_progress(key, base, job, ARGV[1], old, s, percent, phase_percent, write_no, ARGV[4])

-- event.lua: shared by every script that changes a job, and the only writer of event bytes.
-- It stands in front of each script that names it in its `-- include:` line. Further keys are derived from the hash tag of a
-- declared key, so they are in the same slot by construction.

-- What is not terminal is kept this long after its last sign of life; heartbeats and reap renew it: 7 days.
-- A text, as wherever a constant is only handed to Redis: a number is printed with 17 digits for each call.
local KEEP_MS = '604800000'
-- Milestones kept per job; the oldest go first.
local MILESTONES_MAX = 256

-- The order of the phases, as the digit of an event's header; nil for what is no phase. (A table would be made at each call.)
local function rank_of(phase)
  return phase == 'COMPLETE' and '4' or phase == 'GENERATING' and '2' or phase == 'QUEUED' and '0' or phase == 'ANALYZING' and '1'
    or phase == 'POST_PROCESSING' and '3' or phase == 'FAILED' and '5' or phase == 'CANCELLED' and '6' or nil
end

local function is_terminal(phase)
  return phase == 'COMPLETE' or phase == 'FAILED' or phase == 'CANCELLED'
end

local function refuse(text)
  return redis.error_reply('HEADWAY ' .. text)
end

-- 'headway:{0}:job:J' -> 'headway:{0}:', 'J'
local function split_job_key(key)
  local _, tag = string.find(key, '}:', 1, true)
  return string.sub(key, 1, tag), string.sub(key, tag + 5)
end

-- The time in milliseconds, as a number and as text.
local function now_ms()
  local t = redis.call('TIME')
  local micro = t[2]
  if #micro < 6 then micro = string.format('%06d', micro) end
  local text = t[1] .. string.sub(micro, 1, 3)
  return tonumber(text), text
end

-- Exact for integers up to 2^53, and they are all we count with.
local function int(number)
  return string.format('%d', number)
end

-- A JSON string. cjson escapes every '/', which is legal and ugly; each '/' is preceded by its own backslash, so this is exact.
local function quoted(text)
  if not string.find(text, '[%c"\\]') then return '"' .. text .. '"' end
  return (string.gsub(cjson.encode(text), '\\/', '/'))
end

-- The queue of jobs that no worker takes: progress-only ones and groups. No submitter can name it: `_` is no queue name.
local HELD = '_'

-- HGETALL as a table.
local function read_hash(key)
  local flat, out = redis.call('HGETALL', key), {}
  for i = 1, #flat, 2 do out[flat[i]] = flat[i + 1] end
  return out
end

-- The event's JSON. `s` holds the job's fields as stored; `extra` is ready JSON text (',"result":{…}') or nil; seq and at are texts.
-- (One expression: it makes no table and no text in between.)
local function event_json(job, seq, kind, s, at, extra)
  return '{"job":"' .. job .. '","seq":' .. seq .. ',"type":"' .. kind .. '","phase":"' .. s.phase .. '","phase_percent":' .. s.phase_percent
    .. ',"percent":' .. s.percent
    .. (s.percent_per_s and ',"percent_per_s":' .. s.percent_per_s or '')
    .. (s.stage and s.stage ~= '' and ',"stage":' .. quoted(s.stage) or '')
    .. (s.stage_percent and ',"stage_percent":' .. s.stage_percent or '')
    .. (s.step and ',"step":' .. s.step or '') .. (s.steps and ',"steps":' .. s.steps or '')
    .. (s.item and ',"item":' .. s.item or '') .. (s.items and ',"items":' .. s.items or '')
    .. (s.message and s.message ~= '' and ',"message":' .. quoted(s.message) or '')
    .. (s.eta_ms and ',"eta_ms":' .. s.eta_ms or '')
    .. (s.eta_low_ms and ',"eta_low_ms":' .. s.eta_low_ms or '') .. (s.eta_high_ms and ',"eta_high_ms":' .. s.eta_high_ms or '')
    .. (s.stalled and ',"stalled":true' or '') .. (s.estimating and ',"estimating":true' or '')
    .. (s.cancel and ',"cancel":' .. s.cancel or '')
    .. (s.children and ',"children":' .. s.children or '')
    .. (s.traceparent and kind ~= 'progress' and ',"traceparent":' .. quoted(s.traceparent) or '')
    .. (extra or '') .. ',"attempt":' .. s.attempt .. ',"at":' .. at .. '}'
end

-- rank: the phase's digit, a text as the letter is; see docs/redis.md.
local function publish(verb, base, job, seq, letter, rank, has_cancel, body)
  if verb == '' then return end
  redis.call(verb, base .. 'live:' .. job,
    '1' .. string.format('%016x', seq) .. letter .. rank .. (has_cancel and '1 ' or '0 ') .. body)
end

-- The first event of a job that waits, as event_json would make it: most jobs have nothing else to tell yet.
local QUEUED_JSON = '","seq":1,"type":"phase","phase":"QUEUED","phase_percent":0.0,"percent":0.0'

-- shown: ready JSON text (',"children":{…}') or nil.
local function queued_json(job, at, shown)
  return '{"job":"' .. job .. QUEUED_JSON .. (shown or '') .. ',"attempt":1,"at":' .. at .. '}'
end

-- What publish() puts before it.
local QUEUED_HEAD = '10000000000000001m00 '

-- Assigns seq, writes the body and the fields of `set` (name, value, …; may be nil), appends the milestone, publishes. The caller has
-- written the other fields and, for an end, sets the milestones' TTL.
-- kind: progress | phase | stage | complete | failed | cancelled. now: the time as text. `s.seq`, where known, is the seq so far; with
-- 1 there are no milestones yet. Returns seq, body.
local function emit(key, base, job, verb, kind, s, now, extra, set)
  local before = s.seq or redis.call('HGET', key, 'seq') or '0'
  local seq = before + 1
  s.seq = seq
  local seq_text = int(seq)
  local body = event_json(job, seq_text, kind, s, now, extra)
  local rank = rank_of(s.phase)
  local letter = rank > '3' and 't' or (kind == 'progress' and 's' or 'm')
  local list = base .. 'milestones:' .. job
  -- The QUEUED event of a job that never left the line stands only in its hash; it becomes the first milestone here.
  if letter ~= 's' then
    local count = before ~= '1' and redis.call('RPUSHX', list, body) or 0
    if count == 0 then
      local first = s.body or redis.call('HGET', key, 'body')
      if first then redis.call('RPUSH', list, first, body) else redis.call('RPUSH', list, body) end
    elseif count > MILESTONES_MAX then
      redis.call('LTRIM', list, count - MILESTONES_MAX, -1)
    end
    if letter == 'm' then redis.call('PEXPIRE', list, KEEP_MS) end
  elseif rank == '0' and redis.call('EXISTS', list) == 0 then
    local first = s.body or redis.call('HGET', key, 'body')
    if first then
      redis.call('RPUSH', list, first)
      redis.call('PEXPIRE', list, KEEP_MS)
    end
  end
  if set then
    redis.call('HSET', key, 'seq', seq_text, 'body', body, 'updated_at', now, unpack(set))
  else
    redis.call('HSET', key, 'seq', seq_text, 'body', body, 'updated_at', now)
  end
  publish(verb, base, job, seq, letter, rank, s.cancel, body)
  return seq, body
end

-- event.lua: shared by every script that changes a job, and the only writer of event bytes.
-- It stands in front of each script that names it in its `-- include:` line. Further keys are derived from the hash tag of a
-- declared key, so they are in the same slot by construction.

local RANK = { QUEUED = 0, ANALYZING = 1, GENERATING = 2, POST_PROCESSING = 3, COMPLETE = 4, FAILED = 5, CANCELLED = 6 }
local TERMINAL = { COMPLETE = true, FAILED = true, CANCELLED = true }

-- What is not terminal is kept this long after its last sign of life; heartbeats and reap renew it: 7 days.
-- A text, as wherever a constant is only handed to Redis: a number is printed with 17 digits for each call.
local KEEP_MS = '604800000'
-- Milestones kept per job; the oldest go first.
local MILESTONES_MAX = 256

-- The optional members of an event, in wire order; `n` numbers are copied, `s` strings are quoted, `b` is a flag.
-- (Side by side and not nested: every call of every script makes these tables anew.)
local OPTIONAL = {
  'percent_per_s', 'stage', 'stage_percent', 'step', 'steps', 'item', 'items', 'message', 'eta_ms', 'eta_low_ms', 'eta_high_ms',
  'stalled', 'estimating',
}
local OPTIONAL_KIND = { 'n', 's', 'n', 'n', 'n', 'n', 'n', 's', 'n', 'n', 'n', 'b', 'b' }

local function refuse(text)
  return redis.error_reply('HEADWAY ' .. text)
end

-- 'headway:{0}:job:J' -> 'headway:{0}:', 'J'
local function split_job_key(key)
  return string.match(key, '^(.-{[^}]*}:)job:(.+)$')
end

local function now_ms()
  local t = redis.call('TIME')
  return tonumber(t[1]) * 1000 + math.floor(tonumber(t[2]) / 1000)
end

-- Exact for integers up to 2^53, and they are all we count with.
local function int(number)
  return string.format('%d', number)
end

-- cjson escapes every '/', which is legal and ugly; each '/' is preceded by its own backslash, so this is exact.
local function quoted(text)
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

-- The event's JSON. `s` holds the job's fields as stored; `extra` is ready JSON text (',"result":{…}') or nil.
local function event_json(job, seq, kind, s, at, extra)
  local out = {
    '{"job":"', job, '","seq":', int(seq), ',"type":"', kind, '","phase":"', s.phase, '","phase_percent":', s.phase_percent,
    ',"percent":', s.percent,
  }
  local n = #out
  for i = 1, 13 do
    local name = OPTIONAL[i]
    local value = s[name]
    if value and value ~= '' then
      local form = OPTIONAL_KIND[i]
      if form == 's' then value = quoted(value) elseif form == 'b' then value = 'true' end
      out[n + 1], out[n + 2], out[n + 3], out[n + 4] = ',"', name, '":', value
      n = n + 4
    end
  end
  if s.cancel then
    out[n + 1], out[n + 2] = ',"cancel":', s.cancel
    n = n + 2
  end
  if s.children then
    out[n + 1], out[n + 2] = ',"children":', s.children
    n = n + 2
  end
  if s.traceparent and kind ~= 'progress' then
    out[n + 1], out[n + 2] = ',"traceparent":', quoted(s.traceparent)
    n = n + 2
  end
  if extra then
    out[n + 1] = extra
    n = n + 1
  end
  out[n + 1], out[n + 2], out[n + 3], out[n + 4], out[n + 5] = ',"attempt":', s.attempt, ',"at":', int(at), '}'
  return table.concat(out)
end

local function publish(verb, base, job, seq, letter, phase, has_cancel, body)
  if verb == '' then return end
  redis.call(verb, base .. 'live:' .. job,
    '1' .. string.format('%016x', seq) .. letter .. RANK[phase] .. (has_cancel and '1' or '0') .. ' ' .. body)
end

-- Assigns seq, writes the body and the fields of `set` (name, value, …; may be nil), appends the milestone, publishes. The caller has
-- written the other fields and, for an end, sets the milestones' TTL.
-- kind: progress | phase | stage | complete | failed | cancelled. `s.seq`, where known, is the seq so far. Returns seq, body.
local function emit(key, base, job, verb, kind, s, at, extra, set)
  local seq = (s.seq or redis.call('HGET', key, 'seq') or 0) + 1
  s.seq = seq
  local body = event_json(job, seq, kind, s, at, extra)
  local letter = TERMINAL[s.phase] and 't' or (kind == 'progress' and 's' or 'm')
  local list = base .. 'milestones:' .. job
  -- The QUEUED event of a job that never left the line stands only in its hash; it becomes the first milestone here.
  if (letter ~= 's' or s.phase == 'QUEUED') and redis.call('EXISTS', list) == 0 then
    local first = s.body or redis.call('HGET', key, 'body')
    if first then
      redis.call('RPUSH', list, first)
      redis.call('PEXPIRE', list, KEEP_MS)
    end
  end
  if letter ~= 's' then
    local count = redis.call('RPUSH', list, body)
    if count > MILESTONES_MAX then redis.call('LTRIM', list, count - MILESTONES_MAX, -1) end
    if letter == 'm' then redis.call('PEXPIRE', list, KEEP_MS) end
  end
  if set then
    redis.call('HSET', key, 'seq', int(seq), 'body', body, 'updated_at', int(at), unpack(set))
  else
    redis.call('HSET', key, 'seq', int(seq), 'body', body, 'updated_at', int(at))
  end
  publish(verb, base, job, seq, letter, s.phase, s.cancel, body)
  return seq, body
end

-- include: event
-- Appends log lines of the backend: lossy, without a seq.
-- KEYS[1] headway:{p}:job:J
-- ARGV[1] verb   ARGV[2] fence   ARGV[3] number of this write under the fence, or ''
-- ARGV[4] lines the writer dropped before these   ARGV[5…] stream, text pairs
-- Returns {'ok', cancel JSON or ''} or {'lost'}
-- A write that repeats the newest one (its reply was lost) changes nothing.
-- The stream is capped by count and by bytes: each entry carries the running total of bytes up to and with itself.
local LINES_MAX = 1000
local BYTES_MAX = 256 * 1024

local key = KEYS[1]
local base, job = split_job_key(key)
local s = redis.call('HMGET', key, 'fence', 'seq', 'phase', 'cancel')
if s[1] ~= ARGV[2] then return { 'lost' } end
local stream = base .. 'log:' .. job
local at = now_ms()
local last = redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 1)[1]
local total, dropped = 0, 0
local write = ARGV[3] ~= '' and ARGV[2] .. ':' .. ARGV[3] or ''
if last then
  if write ~= '' and last[2][10] == write then return { 'ok', s[4] or '' } end
  total = tonumber(last[2][6])
  dropped = tonumber(last[2][8])
end
dropped = dropped + tonumber(ARGV[4])
local out = {}
for i = 5, #ARGV, 2 do
  total = total + #ARGV[i + 1]
  redis.call('XADD', stream, 'MAXLEN', LINES_MAX, '*', 'stream', ARGV[i], 'text', ARGV[i + 1], 'total', int(total), 'dropped', int(dropped), 'write', write)
  out[#out + 1] = '{"stream":' .. quoted(ARGV[i]) .. ',"text":' .. quoted(ARGV[i + 1]) .. '}'
end
for _ = 1, LINES_MAX do
  local first = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1]
  if not first or total - tonumber(first[2][6]) + #first[2][4] <= BYTES_MAX then break end
  redis.call('XDEL', stream, first[1])
end
redis.call('PEXPIRE', stream, KEEP_MS)
if #out > 0 then
  local body = '{"job":"' .. job .. '","type":"log","lines":[' .. table.concat(out, ',') .. '],"dropped":' .. int(dropped) .. ',"at":' .. int(at) .. '}'
  publish(ARGV[1], base, job, tonumber(s[2]), 'l', rank_of(s[3]), s[4], body)
end
return { 'ok', s[4] or '' }

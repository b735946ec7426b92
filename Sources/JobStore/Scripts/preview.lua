-- include: event
-- Replaces the preview image of a running job and says where it is: lossy, without a seq.
-- KEYS[1] headway:{p}:job:J    ARGV[1] verb   ARGV[2] fence   ARGV[3] image bytes
-- Returns {'ok', cancel JSON or ''} or {'lost'}
local key = KEYS[1]
local base, job = split_job_key(key)
local s = redis.call('HMGET', key, 'fence', 'seq', 'phase', 'cancel')
if s[1] ~= ARGV[2] then return { 'lost' } end
local at = now_ms()
redis.call('SET', base .. 'preview:' .. job, ARGV[3], 'PX', KEEP_MS)
local body = '{"job":"' .. job .. '","type":"preview","url":"/v1/jobs/' .. job .. '/preview?at=' .. int(at) .. '","at":' .. int(at) .. '}'
publish(ARGV[1], base, job, tonumber(s[2]), 'l', rank_of(s[3]), s[4], body)
return { 'ok', s[4] or '' }

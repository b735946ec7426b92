-- include: event line group ends
-- Extends a lease and the life of the job's keys.
-- KEYS[1] headway:{p}:job:J    ARGV[1] fence   ARGV[2] lease_ms
-- Returns {'ok', cancel JSON or ''} or {'lost'}
local key = KEYS[1]
local base, job = split_job_key(key)
local s = redis.call('HMGET', key, 'fence', 'queue', 'cancel')
if s[1] ~= ARGV[1] then return { 'lost' } end
touch(key)
redis.call('ZADD', queue_base(base, s[2]) .. 'leases', now_ms() + tonumber(ARGV[2]), job)
redis.call('PEXPIRE', base .. 'milestones:' .. job, KEEP_MS)
return { 'ok', s[3] or '' }

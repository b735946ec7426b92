-- Tells a worker to finish its jobs, take no more and end.
-- KEYS[1] headway:worker:W   ARGV[1] its hint channel   ARGV[2] the hint
-- Returns {'ok'} or {'absent'}
if redis.call('EXISTS', KEYS[1]) == 0 then return { 'absent' } end
-- Read by its next registration, should the hint be lost.
redis.call('HSET', KEYS[1], 'drain', '1')
redis.call('PUBLISH', ARGV[1], ARGV[2])
return { 'ok' }

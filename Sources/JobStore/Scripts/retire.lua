-- include: event
-- Notes, once, which new job a terminal one is tried again as. It takes no event: its end was told. A dead letter stays one until
-- the new job is there.
-- KEYS[1] headway:{p}:job:J    ARGV[1] id of the new job
-- Returns {'ok', id of the new job: ARGV[1], or the one noted before}, {'absent'} or {'running', phase}
local key = KEYS[1]
local s = redis.call('HMGET', key, 'phase', 'retried_as', 'children')
if not s[1] then return { 'absent' } end
if not is_terminal(s[1]) then return { 'running', s[1] } end
if s[3] then return refuse('a group is not retried as a whole: retry its children') end
if s[2] then return { 'ok', s[2] } end
redis.call('HSET', key, 'retried_as', ARGV[1])
return { 'ok', ARGV[1] }

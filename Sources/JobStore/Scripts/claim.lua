-- include: event line group ends claiming
-- Gives the first eligible job of a queue to a worker.
-- KEYS[1] headway:{p}:queue:Q:ready    KEYS[2] headway:{wake}:Q (standalone and Sentinel only)
-- ARGV[1] verb   ARGV[2] queue   ARGV[3] worker   ARGV[4] nonce   ARGV[5] lease_ms   ARGV[6] random hex, part of the fence
-- ARGV[7…] labels of the worker: jobs that prefer one of them come first, within bounds
-- Returns {'job', id, fence, attempt, max_attempts, pipeline, owner, params, created_at, rest} (rest: 'more' or, when it was the last, '')
--         and for a job with any of them also class, cold, plan, max_runtime_ms, traceparent, prefer ('' for what is absent),
--         {'empty', next_due_ms or ''} or {'paused'}
-- The same nonce returns the same claim, so a lost reply costs nothing.
local base, queue, lease = string.match(KEYS[1], '^(.-{[^}]*}:)'), ARGV[2], tonumber(ARGV[5])
local at, now = now_ms()
local q, memory = queue_base(base, queue), base .. 'claim:' .. ARGV[4]
local claimed = redis.call('GET', memory)
local again = claimed and same_claim(base, q, claimed, at, lease)
if again then return again end
local answer, taken = claim_next(base, at, now, ARGV[1], queue, ARGV[3], lease, ARGV[6], 7, read_line(q), nil)
if taken then redis.call('SET', memory, taken, 'PX', NONCE_MS) end
return answer

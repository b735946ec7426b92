-- Writes what a worker says of itself, and answers what it is told; or forgets it.
-- KEYS[1] headway:worker:W   KEYS[2] headway:workers   KEYS[3] headway:queues (the last two on standalone and Sentinel only)
-- ARGV[1] id   ARGV[2] instance: random text of one start of the worker   ARGV[3] how long the record lives in ms, 0 = remove it
-- ARGV[4] number n of its queues   ARGV[5…] n queue names, then field, value pairs; an empty value removes the field, a field whose
-- name ends in `_in` is a time from now in ms and stored as a moment (`slowed_in` as `slowed_until`)
-- Returns {'ok', '1' if it was told to drain else '', '1' if another start of this name wrote the record since else ''}
local FORGET_MS = 24 * 3600 * 1000
local key, id, instance, ttl = KEYS[1], ARGV[1], ARGV[2], tonumber(ARGV[3])
local t = redis.call('TIME')
local at = tonumber(t[1]) * 1000 + math.floor(tonumber(t[2]) / 1000)

local function int(number)
  return string.format('%.0f', number)
end

local old = redis.call('HMGET', key, 'instance', 'drain')
if ttl == 0 then
  -- A start that was replaced must not take its heir's record along.
  if old[1] and old[1] ~= instance then return { 'ok', '', '1' } end
  redis.call('DEL', key)
  if KEYS[2] then redis.call('ZREM', KEYS[2], id) end
  return { 'ok', '', '' }
end

local is_new = old[1] ~= instance
if is_new then redis.call('DEL', key) end
local first = 5 + tonumber(ARGV[4])
local set, unset = { 'id', id, 'instance', instance, 'seen_at', int(at) }, {}
for i = first, #ARGV, 2 do
  local name, value = ARGV[i], ARGV[i + 1]
  local moment = string.match(name, '^(.+)_in$')
  if moment then
    name = moment .. '_until'
    if value ~= '' then value = int(at + tonumber(value)) end
  end
  if value == '' then
    unset[#unset + 1] = name
  else
    set[#set + 1], set[#set + 2] = name, value
  end
end
redis.call('HSET', key, unpack(set))
if #unset > 0 then redis.call('HDEL', key, unpack(unset)) end
if is_new then redis.call('HSETNX', key, 'started_at', int(at)) end
redis.call('PEXPIRE', key, ttl)
if KEYS[2] then
  redis.call('ZADD', KEYS[2], at + ttl, id)
  -- Workers that died are forgotten by whoever writes next.
  redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', at - FORGET_MS)
end
-- Each time, so that a lost set of queues comes back by itself.
for i = 5, first - 1 do
  if KEYS[3] then redis.call('SADD', KEYS[3], ARGV[i]) end
end
return { 'ok', not is_new and old[2] or '', is_new and old[1] and '1' or '' }

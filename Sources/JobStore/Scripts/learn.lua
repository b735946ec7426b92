-- Takes in what a finished job taught about the durations of its pipeline's stages. The same arithmetic, in the same order, as
-- LearnedStatistics.learn of ProgressCore: sums decay and grow, speeds and quantiles move.
-- KEYS[1] headway:{stats:P}:m    KEYS[2] headway:{stats:P}:seen    KEYS[3] headway:{p}:job:J and KEYS[4] headway:{p}:trace:J, where a
-- trace comes along (standalone and Sentinel only)
-- ARGV[1] what tells this job's end from all others   ARGV[2] keep ms   ARGV[3] constants, see LearnedStatistics.constants
-- ARGV[4] version   ARGV[5] most fields   ARGV[6] worker   ARGV[7] its measured error or ''   ARGV[8] route with a leading '=' or ''
-- ARGV[9] a deviation for each eighth of the job, '-' for none
-- ARGV[10] trace of the job or ''   ARGV[11…] triples: field, decay, numbers to add; or '@bin width' for one more in a histogram
-- Returns {'ok', jobs}; {'seen'} when this end was learned before; {'other', version} when the key has another layout
local SEEN_MAX = 1000
local SEEN_MS = 24 * 3600 * 1000

local key, seen = KEYS[1], KEYS[2]
local function numbers(text)
  local list = {}
  for word in string.gmatch(text, '%S+') do list[#list + 1] = tonumber(word) end
  return list
end
local function text(list)
  local words = {}
  for i, value in ipairs(list) do words[i] = string.format('%.17g', value) end
  return table.concat(words, ' ')
end
local function clip(value, low, high) return math.min(math.max(value, low), high) end

if KEYS[4] then
  local left = redis.call('PTTL', KEYS[3])
  if left > 0 then redis.call('SET', KEYS[4], ARGV[10], 'PX', left) end
end

local version = redis.call('HGET', key, 'v')
if version and version ~= ARGV[4] then return { 'other', version } end
local time = redis.call('TIME')
local at = time[1] * 1000 + math.floor(time[2] / 1000)
if redis.call('ZADD', seen, 'NX', at, ARGV[1]) == 0 then return { 'seen' } end
redis.call('ZREMRANGEBYRANK', seen, 0, -SEEN_MAX - 1)
redis.call('PEXPIRE', seen, SEEN_MS)

local c = numbers(ARGV[3])
local forgetting, calibration, first, floor = c[1], c[2], c[3], c[4]
redis.call('HSET', key, 'v', ARGV[4])
local jobs = redis.call('HINCRBY', key, 'jobs', 1)

-- The numbers of a field without its stamp; zeros when it is absent or has another width.
local function field(name, width)
  local list = numbers(redis.call('HGET', key, name) or '')
  if #list == width + 1 then
    list[#list] = nil
    return list
  end
  list = {}
  for i = 1, width do list[i] = 0 end
  return list
end
local function store(name, list)
  redis.call('HSET', key, name, text(list) .. ' ' .. jobs)
end

for i = 11, #ARGV, 3 do
  local name, decay, terms = ARGV[i], tonumber(ARGV[i + 1]), ARGV[i + 2]
  local bin, width = string.match(terms, '^@(%d+) (%d+)$')
  local list
  if bin then
    list = field(name, tonumber(width))
    for j = 1, #list do list[j] = decay * list[j] + (j == tonumber(bin) + 1 and 1 or 0) end
  else
    local add = numbers(terms)
    list = field(name, #add)
    for j = 1, #add do list[j] = decay * list[j] + add[j] end
  end
  store(name, list)
end

-- One step of an adaptive filter: errors of one sign raise the gain, errors that alternate lower it.
local function track(signal, err, smoothing, threshold, least, most)
  signal[2] = signal[2] + smoothing * (err - signal[2])
  signal[3] = signal[3] + smoothing * (math.abs(err) - signal[3])
  local strength = math.abs(signal[2]) / (signal[3] + floor) - threshold
  local change = clip(strength, least, most) * err
  signal[1] = signal[1] + change
  return change
end

if ARGV[7] ~= '' then
  local worker = ARGV[6]
  local own, fleet = field('w|' .. worker, 3), field('w|*', 3)
  local err = tonumber(ARGV[7]) - own[1] - fleet[1]
  if worker ~= (redis.call('HGET', key, 'last') or '') then
    err = err - track(fleet, err, c[9], c[10], c[11], c[12])
    store('w|*', fleet)
  end
  track(own, err, c[5], c[6], c[7], c[8])
  store('w|' .. worker, own)
  redis.call('HSET', key, 'last', worker)
end

local z = numbers(redis.call('HGET', key, 'z') or '')
if #z ~= 16 then
  for i = 1, 16 do z[i] = i <= 8 and -first or first end
end
local bucket = 0
for word in string.gmatch(ARGV[9], '%S+') do
  bucket = bucket + 1
  local deviation = tonumber(word)
  if deviation and bucket <= 8 then
    z[bucket] = z[bucket] + 2 * calibration * (0.1 - (deviation < z[bucket] and 1 or 0))
    z[8 + bucket] = z[8 + bucket] + 2 * calibration * (0.9 - (deviation < z[8 + bucket] and 1 or 0))
  end
end
redis.call('HSET', key, 'z', text(z))

if ARGV[8] ~= '' then
  local route, found, list = string.sub(ARGV[8], 2), false, {}
  for line in string.gmatch(redis.call('HGET', key, 'q') or '', '[^\n]+') do
    local weight, names = string.match(line, '^(%S+) (.*)$')
    if weight then
      local entry = { forgetting * tonumber(weight), names }
      if names == route then entry[1], found = entry[1] + 1, true end
      list[#list + 1] = entry
    end
  end
  if not found then list[#list + 1] = { 1, route } end
  table.sort(list, function(a, b) return a[1] > b[1] or (a[1] == b[1] and a[2] < b[2]) end)
  local lines = {}
  for i = 1, math.min(#list, c[13]) do lines[i] = string.format('%.17g', list[i][1]) .. ' ' .. list[i][2] end
  redis.call('HSET', key, 'q', table.concat(lines, '\n'))
end

-- What was touched longest ago goes, an eighth at once.
local most = tonumber(ARGV[5])
if redis.call('HLEN', key) > most then
  local names, flat = {}, redis.call('HGETALL', key)
  for i = 1, #flat, 2 do
    if string.sub(flat[i], 2, 2) == '|' then
      names[#names + 1] = { tonumber(string.match(flat[i + 1], '(%S+)$')) or 0, flat[i] }
    end
  end
  if #names > most then
    table.sort(names, function(a, b) return a[1] < b[1] or (a[1] == b[1] and a[2] < b[2]) end)
    for i = 1, #names - most / 8 * 7 do redis.call('HDEL', key, names[i][2]) end
  end
end
redis.call('PEXPIRE', key, ARGV[2])
return { 'ok', jobs }

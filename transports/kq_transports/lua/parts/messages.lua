-- Verdicts and messages as the client sends them.

-- Read `count` verdicts (number, action) from ARGV[first]; returns those that this connection
-- holds, as {numbers, entries} for each action, and the numbers that are stale.
local function read_verdicts(connection, first, count)
  local numbers = {}
  for i = 1, count do
    numbers[i] = ARGV[first + 2 * i - 2]
  end
  local entries = values('HMGET', at(connection, 'held'), numbers)
  local done, back, stale, twice = {{}, {}}, {{}, {}}, {}, {}
  for i, number in ipairs(numbers) do
    if entries[i] and not twice[number] then
      local which = ARGV[first + 2 * i - 1] == 'done' and done or back
      table.insert(which[1], number)
      table.insert(which[2], entries[i])
      twice[number] = true
    else
      table.insert(stale, number)
    end
  end
  return done, back, stale
end

-- Read the messages (queue, id, body, priority, delay) from ARGV[first] on; returns for each queue
-- the indices of those that it does not have yet, or an error. ending: entries that are about to end.
local function read_messages(first, ending)
  local queues, ended = {}, {}
  for i = first, #ARGV, 5 do
    queues[ARGV[i]] = queues[ARGV[i]] or {}
    table.insert(queues[ARGV[i]], i)
  end
  for _, entry in ipairs(ending) do
    ended[entry] = true
  end
  for queue, indices in pairs(queues) do
    local declared = redis.call('HMGET', of(queue, 'queue'), 'sequence', 'longest')
    if not declared[1] then
      return nil, redis.error_reply('KQNOTFOUND ' .. queue)
    end
    local ids, fresh = {}, {}
    for i, index in ipairs(indices) do
      ids[i] = ARGV[index + 1]
    end
    local known = values('HMGET', of(queue, 'jobs'), ids)
    local repeated = {}
    for i, id in ipairs(ids) do
      if not repeated[id] and (not known[i] or ended[pair(queue, id)]) then
        repeated[id] = true
        table.insert(fresh, indices[i])
      end
    end
    if declared[2] and #fresh > 0 then
      local waiting = redis.call('ZCARD', of(queue, 'ready')) + redis.call('ZCARD', of(queue, 'delayed'))
      if waiting + #fresh > tonumber(declared[2]) then
        return nil, redis.error_reply('KQFULL ' .. queue)
      end
    end
    queues[queue] = fresh
  end
  return queues
end

local function store(queues)
  for queue, indices in pairs(queues) do
    local jobs, ready, delayed, places = {}, {}, {}, {}
    local sequence = 0
    if #indices > 0 then
      sequence = redis.call('HINCRBY', of(queue, 'queue'), 'sequence', #indices) - #indices
    end
    for i, index in ipairs(indices) do
      local id, delay = ARGV[index + 1], tonumber(ARGV[index + 4])
      local place = string.format('%.0f', (9 - ARGV[index + 3]) * PLACES + sequence + i)
      jobs[2 * i - 1], jobs[2 * i] = id, ARGV[index + 2]
      if delay > 0 then
        table.insert(delayed, now + delay)
        table.insert(delayed, id)
        table.insert(places, id)
        table.insert(places, place)
      else
        table.insert(ready, place)
        table.insert(ready, id)
      end
    end
    local due = #delayed > 0 and first_due(queue)
    each('HSET', of(queue, 'jobs'), jobs)
    each('ZADD', of(queue, 'ready'), ready)
    each('ZADD', of(queue, 'delayed'), delayed)
    each('HSET', of(queue, 'places'), places)
    if #ready > 0 then
      wake(queue, #ready / 2)
    end
    if #delayed > 0 and first_due(queue) ~= due then
      wake(queue, 1) -- somebody has to sleep for less than he thought
    end
  end
end

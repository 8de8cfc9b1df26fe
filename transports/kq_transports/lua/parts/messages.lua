-- Messages, as the client sends them.

-- The indices in ARGV of the messages (queue, id, body, priority, delay) from the one at first on.
local function messages_from(first)
  local indices = {}
  for i = first, #ARGV, 5 do
    table.insert(indices, i)
  end
  return indices
end

-- Read the messages at those indices; returns for each queue its lines, the indices of those that it
-- does not have yet, and its last number, or nil and an error. ending: entries that are about to end. leaving: how many
-- of them wait, by queue.
local function read_messages(indices, ending, leaving)
  local queues, ended = {}, {}
  for _, i in ipairs(indices) do
    queues[ARGV[i]] = queues[ARGV[i]] or {}
    table.insert(queues[ARGV[i]], i)
  end
  for _, entry in ipairs(ending) do
    ended[entry] = true
  end
  for queue, indices in pairs(queues) do
    local declared = redis.call('HMGET', of(queue, 'queue'), 'sequence', 'longest', 'lines')
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
      local waiting = redis.call('HLEN', of(queue, 'jobs')) - redis.call('HLEN', of(queue, 'held'))
      waiting = waiting - (leaving[queue] or 0)
      if waiting + #fresh > (tonumber(declared[2]) or math.huge) then
        return nil, redis.error_reply('KQFULL ' .. queue)
      end
    end
    queues[queue] = {declared[3] or '', fresh, tonumber(declared[1]) or 0}
  end
  return queues
end

-- Put one message where it waits: lines collects entries by priority, the others arguments of
-- commands. Returns 1 when it is ready.
local function enqueue(id, ticket, delay, lines, delayed, tickets)
  if tonumber(delay) > 0 then
    table.insert(delayed, now + delay)
    table.insert(delayed, id)
    table.insert(tickets, id)
    table.insert(tickets, ticket .. ' ' .. delay)
    return 0
  end
  local priority = string.sub(ticket, 1, 1)
  lines[priority] = lines[priority] or {}
  table.insert(lines[priority], ticket .. ' ' .. id)
  return 1
end

-- Remember which priorities a queue has had, so that reserve looks into no other line.
local function note_lines(queue, known, lines)
  local all = {}
  for priority in string.gmatch(known, '.') do
    table.insert(all, priority)
  end
  for priority in pairs(lines) do
    if not string.find(known, priority, 1, true) then
      table.insert(all, priority)
    end
  end
  if #all > #known then
    table.sort(all, function(a, b) return a > b end)
    redis.call('HSET', of(queue, 'queue'), 'lines', table.concat(all))
  end
end

local function store_in(queue, known, indices, last)
  local jobs, lines, delayed, tickets, ready = {}, {}, {}, {}, 0
  local sequence = math.max(last, math.floor((now - EPOCH) / STEP) - #indices)
  redis.call('HSET', of(queue, 'queue'), 'sequence', string.format('%.0f', sequence + #indices))
  for i, index in ipairs(indices) do
    local id, ticket = ARGV[index + 1], ARGV[index + 3] .. string.format('%.0f', sequence + i)
    jobs[2 * i - 1], jobs[2 * i] = id, ticket .. ' ' .. ARGV[index + 2]
    ready = ready + enqueue(id, ticket, ARGV[index + 4], lines, delayed, tickets)
  end
  each('HSET', of(queue, 'jobs'), jobs)
  for priority, entries in pairs(lines) do
    each('RPUSH', line(queue, priority), entries)
  end
  note_lines(queue, known, lines)
  local due = #delayed > 0 and first_due(queue)
  each('ZADD', of(queue, 'delayed'), delayed)
  each('HSET', of(queue, 'tickets'), tickets)
  if ready > 0 then
    wake(queue, ready)
  end
  if #delayed > 0 and first_due(queue) ~= due then
    wake(queue, 1) -- somebody has to sleep for less than he thought
  end
end

local function store(queues)
  for queue, batch in pairs(queues) do
    if #batch[2] > 0 then
      store_in(queue, batch[1], batch[2], batch[3])
    end
  end
end

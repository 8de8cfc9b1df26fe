-- The moves of a message between ready, delayed, held and gone.

-- The place of a message by what is known of it, or by its own ticket; without one it is set aside, and that is nil.
local function place_again(queue, id, ticket)
  local place = place_of(ticket or '')
  if place then
    return place
  end
  local job = redis.call('HGET', of(queue, 'jobs'), id)
  place = place_of(job or '')
  if not place then
    redis.call('HDEL', of(queue, 'jobs'), id)
    set_aside(queue, 'a message has no ticket', id .. ' ' .. (job or ''))
  end
  return place
end

-- What is due by now becomes ready, at the place that it got when it was submitted. Returns when
-- the next one is due, or nil.
local function promote(queue)
  local first = first_due(queue)
  if not first or first > now then
    return first
  end
  local due = redis.call('ZRANGEBYSCORE', of(queue, 'delayed'), '-inf', now, 'LIMIT', 0, BATCH)
  local tickets = values('HMGET', of(queue, 'tickets'), due)
  local ready = {}
  for i, id in ipairs(due) do
    local place = place_again(queue, id, tickets[i])
    if place then
      table.insert(ready, place)
      table.insert(ready, id)
    end
  end
  redis.call('ZREMRANGEBYRANK', of(queue, 'delayed'), 0, #due - 1)
  each('ZADD', of(queue, 'beside'), ready)
  return first_due(queue)
end

-- Ids by queue, of entries of a connection's held hash.
local function by_queue(entries)
  local queues = {}
  for _, entry in ipairs(entries) do
    local queue, id = unpair(entry)
    if queue then
      queues[queue] = queues[queue] or {}
      table.insert(queues[queue], id)
    end
  end
  return queues
end

-- Make ready again what connection holds under numbers. step: 1, or 0 when it never got there.
local function give_back(connection, numbers, entries, step)
  for queue, ids in pairs(by_queue(entries)) do
    local held = values('HMGET', of(queue, 'held'), ids)
    local ready, counts = {}, {}
    for i, id in ipairs(ids) do
      local ticket, count = string.match(held[i] or '', '^%S+ (%S+) (%d+) ')
      local place = held[i] and place_again(queue, id, ticket)
      if place then
        table.insert(ready, place)
        table.insert(ready, id)
        if (count or 0) + step > 0 then
          table.insert(counts, id)
          table.insert(counts, (count or 0) + step)
        end
      end
    end
    each('HDEL', of(queue, 'held'), ids)
    each('ZADD', of(queue, 'beside'), ready)
    each('HSET', of(queue, 'counts'), counts)
    wake(queue, #ids)
  end
  each('HDEL', at(connection, 'held'), numbers)
end

local function finish(connection, numbers, entries)
  for queue, ids in pairs(by_queue(entries)) do
    each('HDEL', of(queue, 'jobs'), ids)
    each('HDEL', of(queue, 'held'), ids)
    if redis.call('EXISTS', of(queue, 'tickets')) == 1 then
      each('HDEL', of(queue, 'tickets'), ids)
    end
  end
  each('HDEL', at(connection, 'held'), numbers)
end

-- End queue with all that is in it; returns how many messages that was.
local function drop(queue)
  local lost = redis.call('HLEN', of(queue, 'jobs'))
  local held = redis.call('HVALS', of(queue, 'held'))
  for _, record in ipairs(held) do
    local number, connection = string.match(record, '^(%S+) %S+ %d+ (.*)$')
    if connection then
      redis.call('HDEL', at(connection, 'held'), number)
    end
  end
  for _, exchange in ipairs(redis.call('SMEMBERS', of(queue, 'exchanges'))) do
    for _, binding in ipairs(redis.call('SMEMBERS', 'kq:bindings:' .. exchange)) do
      if unpair(binding) == queue then
        redis.call('SREM', 'kq:bindings:' .. exchange, binding)
      end
    end
  end
  local seat = redis.call('GET', of(queue, 'seat'))
  local owner = redis.call('HGET', of(queue, 'queue'), 'owner')
  if seat then
    redis.call('SREM', at(seat, 'seats'), queue)
  end
  if owner then
    redis.call('SREM', at(owner, 'queues'), queue)
  end
  unlink(queue, QUEUE_PARTS)
  redis.call('HDEL', 'kq:queues', queue)
  redis.call('ZREM', 'kq:expiring', queue)
  return lost
end

-- parts: keys wake line moves connections
-- ARGV: socket, depth. Returns for each queue its name, how many messages are ready, delayed and held,
-- for how long the oldest has been ready (so many of each priority are looked at for that), whether
-- one connection at a time gets anything of it, and how many unreadable entries are set aside.
local depth = tonumber(ARGV[2])
reclaim()
expire()

-- When the first message in a line became ready, or nil. Blanks at its head are of no use to anybody.
local function first_in(list)
  local head = redis.call('LINDEX', list, 0)
  while head and string.find(head, '^%d+$') do
    redis.call('LPOP', list)
    head = redis.call('LINDEX', list, 0)
  end
  local place = head and place_of(head)
  return place and time_of(place)
end

-- The same of those beside the line of a priority.
local function first_beside(queue, priority)
  local first = (9 - priority) * PLACES
  local side = redis.call(
    'ZRANGEBYSCORE', of(queue, 'beside'), first, first + PLACES - 1, 'WITHSCORES', 'LIMIT', 0, depth)
  local ids, oldest = {}, nil
  for i = 1, #side, 2 do
    table.insert(ids, side[i])
  end
  local tickets = values('HMGET', of(queue, 'tickets'), ids)
  for i = 1, #ids do
    local _, delay = read_entry(tickets[i] or '')
    local ready = time_of(side[2 * i]) + (tonumber(delay or '') or 0)
    oldest = math.min(oldest or ready, ready)
  end
  return oldest
end

local function oldest_of(queue)
  local oldest = now
  for priority = 0, 9 do
    oldest = math.min(oldest, first_in(line(queue, priority)) or now, first_beside(queue, priority) or now)
  end
  return now - oldest
end

local reply = {}
for _, queue in ipairs(redis.call('HKEYS', 'kq:queues')) do
  promote(queue)
  local ready = ready_count(queue)
  table.insert(reply, queue)
  table.insert(reply, ready)
  table.insert(reply, redis.call('ZCARD', of(queue, 'delayed')))
  table.insert(reply, redis.call('HLEN', of(queue, 'held')))
  table.insert(reply, ready > 0 and oldest_of(queue) or 0)
  table.insert(reply, redis.call('HEXISTS', of(queue, 'queue'), 'single'))
  table.insert(reply, redis.call('LLEN', of(queue, 'aside')))
end
return reply

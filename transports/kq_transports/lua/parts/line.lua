-- The ready messages of a queue: lines, one for each priority, and those beside the lines.
--
-- Who is submitted stands in a line, whose entries are in order of ticket: a third of the memory of
-- a sorted set, and taken from its head at the same cost however long it is. Who was given back, or
-- was delayed, has an older ticket than the end of the line, and waits in the sorted set `beside`.

-- A ticket is the digit of the priority and the sequence; its place sorts by priority, 9 first,
-- then by sequence. Of an entry, too, that begins with one. nil where there is no ticket.
local function place_of(ticket)
  local priority, sequence = string.match(ticket, '^(%d)(%d+)')
  if not priority then
    return nil
  end
  return (9 - priority) * PLACES + sequence
end

local function ticket_of(place)
  return string.format('%d%.0f', 9 - math.floor(place / PLACES), place % PLACES)
end

local function line(queue, priority)
  return of(queue, 'line:' .. priority)
end

-- When the message of that place was submitted.
local function time_of(place)
  return EPOCH + place % PLACES * STEP
end

-- The ticket and the id of an entry; no id where a message was removed.
local function read_entry(entry)
  local space = string.find(entry, ' ', 1, true)
  if space then
    return string.sub(entry, 1, space - 1), string.sub(entry, space + 1)
  end
  return entry
end

local function ready_count(queue)
  local elsewhere = redis.call('ZCARD', of(queue, 'delayed')) + redis.call('HLEN', of(queue, 'held'))
  return redis.call('HLEN', of(queue, 'jobs')) - elsewhere
end

-- Take from the head of a line up to limit messages, as far as they come before place (or nil).
local function leave_line(queue, list, limit, place, ids, tickets)
  local count = limit
  if place then
    count = 0
    for _, entry in ipairs(redis.call('LRANGE', list, 0, limit - 1)) do
      local found = place_of(entry)
      if found and found > place then
        break
      end
      count = count + 1
    end
  end
  for _, entry in ipairs(redis.call('LPOP', list, count)) do
    local ticket, id = string.match(entry, '^(%d%d+) (.*)$')
    if id then
      table.insert(ids, id)
      table.insert(tickets, ticket)
    elseif not string.find(entry, '^%d+$') then
      set_aside(queue, 'an entry of a line has no ticket', entry)
    end
  end
end

-- Take from beside the lines up to limit messages, as far as they come before place (or nil).
local function leave_side(queue, limit, place, ids, tickets)
  if place then
    limit = math.min(limit, redis.call('ZCOUNT', of(queue, 'beside'), '-inf', place))
  end
  local popped = redis.call('ZPOPMIN', of(queue, 'beside'), limit)
  for i = 1, #popped, 2 do
    local place = tonumber(popped[i + 1])
    if place >= 0 and place < 10 * PLACES then
      table.insert(ids, popped[i])
      table.insert(tickets, ticket_of(place))
    else
      set_aside(queue, 'a ready message has the impossible place ' .. popped[i + 1], popped[i])
    end
  end
end

-- The first of these lines that is not empty, and its head; nil when all are.
local function first_line(queue, lines)
  for priority in string.gmatch(lines, '.') do
    local list = line(queue, priority)
    local head = redis.call('LINDEX', list, 0)
    if head then
      return list, head
    end
  end
end

-- Take the best ready messages, at most limit; returns their ids and tickets. lines: the priorities
-- that the queue has had, 9 first.
local function pop(queue, limit, lines)
  local ids, tickets = {}, {}
  while #ids < limit do
    local list, head = first_line(queue, lines)
    local place = head and (place_of(head) or -1) -- what has no ticket goes first, aside
    local side = redis.call('ZRANGE', of(queue, 'beside'), 0, 0, 'WITHSCORES')[2]
    side = side and tonumber(side)
    if not place and not side then
      break
    elseif not place or side and side < place then
      leave_side(queue, limit - #ids, place, ids, tickets)
    else
      leave_line(queue, list, limit - #ids, side, ids, tickets)
    end
  end
  return ids, tickets
end

-- parts: keys wake line moves connections verdicts
-- ARGV: socket, connection, lease or '', seen, asleep, number of verdicts, each number and action,
-- then for each want its limit, number of queues and their names.
-- Returns microseconds until something is due (or -1), then for each queue that gave something:
-- name, first number, ids, "ticket body" of each, {} or counts.
local connection, lease, seen, asleep = ARGV[2], ARGV[3], ARGV[4], ARGV[5]
-- What was put here before this look is used up by it. Also the write that although_full() is about.
redis.call('DEL', at(connection, 'wake'))
if not enter(connection, lease) then
  return redis.error_reply('KQLOST')
end
if not fence(connection, seen) then
  return redis.error_reply('KQLATE')
end
if asleep == '1' then
  -- The client is still in BLPOP on its other socket, and may be busy soon: a token that reached it
  -- then would wake nobody. Redis serves keys in the order in which they were pushed to, so its own
  -- comes before any token of this call.
  redis.call('RPUSH', at(connection, 'wake'), 1)
end
local verdicts = tonumber(ARGV[6])
if verdicts > 0 then
  local done, back = read_verdicts(connection, 7, verdicts)
  finish(connection, done[1], done[2])
  give_back(connection, back[1], back[2], 1)
end
reclaim()

-- Whether this connection may take from queue, by sitting down where nobody sits.
local function has_seat(queue)
  local seat = redis.call('GET', of(queue, 'seat'))
  if not seat or not alive(seat) then
    redis.call('SET', of(queue, 'seat'), connection)
    redis.call('SADD', at(connection, 'seats'), queue)
    return true
  end
  return seat == connection
end

-- Those that have a body; the others are set aside.
local function readable(queue, ids, tickets, jobs)
  local kept = {{}, {}, {}}
  for i, id in ipairs(ids) do
    if jobs[i] and string.find(jobs[i], '^%d') then
      table.insert(kept[1], id)
      table.insert(kept[2], tickets[i])
      table.insert(kept[3], jobs[i])
    else
      redis.call('HDEL', of(queue, 'jobs'), id)
      set_aside(queue, 'a ready message has no readable body', tickets[i] .. ' ' .. id .. ' ' .. (jobs[i] or ''))
    end
  end
  return unpack(kept)
end

-- Up to limit messages from those lines, marked as held by this connection; nil when nothing is ready.
local function take(queue, limit, lines)
  local ids, tickets = pop(queue, limit, lines)
  if #ids == 0 then
    return nil
  end
  local jobs, unreadable = values('HMGET', of(queue, 'jobs'), ids), false
  for i = 1, #ids do
    if not (jobs[i] and string.find(jobs[i], '^%d')) then
      unreadable = true
    end
  end
  if unreadable then
    ids, tickets, jobs = readable(queue, ids, tickets, jobs)
    if #ids == 0 then
      return take(queue, limit, lines)
    end
  end
  local counts = {}
  if redis.call('EXISTS', of(queue, 'counts')) == 1 then
    counts = values('HMGET', of(queue, 'counts'), ids)
    each('HDEL', of(queue, 'counts'), ids)
    for i = 1, #ids do
      counts[i] = tonumber(counts[i] or '') and counts[i] or false
    end
  end
  local first = redis.call('INCRBY', 'kq:number', #ids) - #ids + 1
  local held, entries = {}, {}
  for i, id in ipairs(ids) do
    local number = first + i - 1
    held[2 * i - 1] = id
    held[2 * i] = number .. ' ' .. tickets[i] .. ' ' .. (counts[i] or 0) .. ' ' .. connection
    entries[2 * i - 1], entries[2 * i] = number, pair(queue, id)
  end
  each('HSET', of(queue, 'held'), held)
  each('HSET', at(connection, 'held'), entries)
  return {queue, first, ids, jobs, counts}
end

-- Tokens that were put before this look are used up by it. One goes back for what it left, and for
-- what is due so soon that the others, who look once a second, might not know of it.
local function pass_on(queue, took, limit, due)
  if took == limit and ready_count(queue) > 0 then
    return wake(queue, 1)
  end
  redis.call('DEL', of(queue, 'wake'))
  if took > 0 and due and due < now + 1000000 then
    wake(queue, 1)
  end
end

-- Serve one queue; returns how many messages were taken, and when the next one is due.
local function serve(queue, limit, reply)
  local declared = redis.call('HMGET', of(queue, 'queue'), 'single', 'unused', 'lines')
  if declared[2] then
    touch(queue)
  end
  local due = promote(queue)
  if limit == 0 or declared[1] and not has_seat(queue) then
    return 0, due
  end
  local taken = take(queue, limit, declared[3] or '')
  local took = taken and #taken[3] or 0
  table.insert(reply, taken)
  pass_on(queue, took, limit, due)
  return took, due
end

local reply, index, due = {0}, 7 + 2 * verdicts, nil
while index <= #ARGV do
  local left, last = tonumber(ARGV[index]), index + 1 + ARGV[index + 1]
  for i = index + 2, last do
    local took, first = serve(ARGV[i], left, reply)
    left = left - took
    due = due and first and math.min(due, first) or due or first
  end
  index = last + 1
end
reply[1] = until_due(connection, due)
return reply

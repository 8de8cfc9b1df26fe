-- Waking, and when to wake up by oneself.

-- Let so many of those wake up who sleep on queue. On a queue with a seat only its holder can
-- take anything, so the token is put where nobody else gets it.
local function wake(queue, tokens)
  local seat = redis.call('GET', of(queue, 'seat'))
  local list = seat and at(seat, 'wake') or of(queue, 'wake')
  for _ = redis.call('LLEN', list) + 1, math.min(tokens, TOKENS) do
    redis.call('RPUSH', list, 1)
  end
end

local function first_due(queue)
  local first = redis.call('ZRANGE', of(queue, 'delayed'), 0, 0, 'WITHSCORES')
  return first[2] and tonumber(first[2])
end

-- Microseconds until there may be something to take from queues without anybody saying so: the
-- first delayed message is due, or another connection dies. -1 when there is no such time.
local function until_due(connection, queues)
  local first = nil
  for _, queue in ipairs(queues) do
    local due = first_due(queue)
    if due and (not first or due < first) then
      first = due
    end
  end
  local leases = redis.call('ZRANGE', 'kq:leases', 0, 1, 'WITHSCORES')
  local other = leases[2]
  if leases[1] == connection then
    other = leases[4]
  end
  if other and (not first or tonumber(other) < first) then
    first = tonumber(other)
  end
  return first and math.max(0, first - now) or -1
end

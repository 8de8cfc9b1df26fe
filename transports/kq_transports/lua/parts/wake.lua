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

-- When the first delayed message of queue is due, or nil.
local function first_due(queue)
  local first = redis.call('ZRANGE', of(queue, 'delayed'), 0, 0, 'WITHSCORES')
  return first[2] and tonumber(first[2])
end

-- Microseconds until there may be something to take without anybody saying so: the first delayed
-- message is due (due is when, or nil), or another connection dies. -1 when there is no such time.
local function until_due(connection, due)
  local leases = redis.call('ZRANGE', 'kq:leases', 0, 1, 'WITHSCORES')
  local other = leases[2]
  if leases[1] == connection then
    other = leases[4]
  end
  local first = math.min(due or math.huge, other and tonumber(other) or math.huge)
  return first < math.huge and math.max(0, first - now) or -1
end

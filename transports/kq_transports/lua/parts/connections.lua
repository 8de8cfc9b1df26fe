-- Connections: their leases, their seats, and their end.

-- A full Redis refuses a script's first command that may need memory, and none after another
-- write. What frees memory, or keeps a lease, must run then: it begins with a write of nothing.
local function although_full()
  redis.call('DEL', 'kq:none')
end

local function free(queue, connection)
  if redis.call('GET', of(queue, 'seat')) == connection then
    redis.call('DEL', of(queue, 'seat'))
    wake(queue, 1)
  end
  redis.call('SREM', at(connection, 'seats'), queue)
end

-- Take from a dead connection up to BATCH messages; true when nothing of it is left. Until then
-- it stays among the leases, dead, and the next call by anyone goes on.
local function bury(connection)
  for _, queue in ipairs(redis.call('SMEMBERS', at(connection, 'seats'))) do
    free(queue, connection)
  end
  local cursor, numbers, entries = '0', {}, {}
  repeat
    local page = redis.call('HSCAN', at(connection, 'held'), cursor, 'COUNT', BATCH)
    cursor = page[1]
    for i = 1, #page[2], 2 do
      table.insert(numbers, page[2][i])
      table.insert(entries, page[2][i + 1])
    end
  until cursor == '0' or #numbers >= BATCH
  give_back(connection, numbers, entries, 1)
  if redis.call('HLEN', at(connection, 'held')) > 0 then
    return false
  end
  for _, queue in ipairs(redis.call('SMEMBERS', at(connection, 'queues'))) do
    drop(queue)
  end
  for _, part in ipairs({'held', 'calls', 'seats', 'queues', 'wake'}) do
    redis.call('UNLINK', at(connection, part))
  end
  redis.call('ZREM', 'kq:leases', connection)
  local name = string.sub(connection, 1, -10)
  if redis.call('HGET', 'kq:names', name) == connection then
    redis.call('HDEL', 'kq:names', name)
  end
  return true
end

local function touch(queue)
  local unused = redis.call('HGET', of(queue, 'queue'), 'unused')
  if tonumber(unused or '') then
    redis.call('ZADD', 'kq:expiring', now + unused, queue)
  end
end

-- Take from the dead what they held.
local function reclaim()
  for _, connection in ipairs(redis.call('ZRANGEBYSCORE', 'kq:leases', '-inf', now, 'LIMIT', 0, 10)) do
    if not bury(connection) then
      return
    end
  end
end

-- End the queues that nobody used. Only those who look at queues mind.
local function expire()
  for _, queue in ipairs(redis.call('ZRANGEBYSCORE', 'kq:expiring', '-inf', now, 'LIMIT', 0, 10)) do
    if redis.call('HLEN', of(queue, 'held')) > 0 then
      touch(queue)
    else
      drop(queue)
    end
  end
end

local function alive(connection)
  local ends = redis.call('ZSCORE', 'kq:leases', connection)
  return ends and tonumber(ends) > now
end

-- Whether connection has a lease; begins it when lease is its length ('' when it had begun
-- before, and so is lost when it isn't there). Who takes a name that another has ends the other.
local function enter(connection, lease)
  if alive(connection) then
    return true
  end
  if lease == '' or redis.call('ZSCORE', 'kq:leases', connection) then
    return false
  end
  local name = string.sub(connection, 1, -10) -- without "#" and the eight digits that make it unique
  local other = redis.call('HGET', 'kq:names', name)
  if other then
    redis.call('ZADD', 'kq:leases', 0, other)
    bury(other)
  end
  redis.call('HSET', 'kq:names', name, connection)
  redis.call('ZADD', 'kq:leases', now + lease, connection)
  return true
end

-- Whether this call comes from the client's newest socket. What an older one sent before it broke
-- may arrive late, and must not happen then. The first call on a new socket also gives back what
-- an answer lost with the old one carried: seen is the last number that the client got, and
-- nobody else would ever settle what is above it as long as this connection lives.
local function fence(connection, seen)
  local newest = tonumber(redis.call('HGET', at(connection, 'calls'), 'socket') or 0)
  if socket <= newest then
    return socket == newest
  end
  redis.call('HSET', at(connection, 'calls'), 'socket', socket)
  local numbers, entries = {}, {}
  for _, number in ipairs(redis.call('HKEYS', at(connection, 'held'))) do
    if tonumber(number) > tonumber(seen) then
      table.insert(numbers, number)
    end
  end
  give_back(connection, numbers, values('HMGET', at(connection, 'held'), numbers), 0)
  return true
end

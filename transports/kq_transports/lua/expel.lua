-- parts: keys wake line moves connections
-- ARGV: socket, name, what its name gets at the end. Returns -1 when no connection has that name, else as close.
-- Its seats stay taken until its lease would have ended, by a lease that has only them.
local connection = redis.call('HGET', 'kq:names', ARGV[2])
if not connection then
  return -1
end
although_full()
local ends = tonumber(redis.call('ZSCORE', 'kq:leases', connection) or 0)
local rest = ARGV[2] .. ARGV[3] .. string.sub(connection, -9)
if ends > now then
  for _, queue in ipairs(redis.call('SMEMBERS', at(connection, 'seats'))) do
    redis.call('SET', of(queue, 'seat'), rest)
    redis.call('SADD', at(rest, 'seats'), queue)
    redis.call('ZADD', 'kq:leases', ends, rest)
  end
  redis.call('DEL', at(connection, 'seats'))
end
redis.call('ZADD', 'kq:leases', 'XX', 0, connection)
return bury(connection) and 1 or 0

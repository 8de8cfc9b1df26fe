-- parts: keys wake line moves connections
-- ARGV: socket, name. Returns -1 when no connection has that name, else as close.
local connection = redis.call('HGET', 'kq:names', ARGV[2])
if not connection then
  return -1
end
although_full()
redis.call('ZADD', 'kq:leases', 'XX', 0, connection)
return bury(connection) and 1 or 0

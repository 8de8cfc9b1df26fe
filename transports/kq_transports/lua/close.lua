-- parts: keys wake line moves connections
-- ARGV: socket, connection. Returns 0 as long as there is more to give back: call again.
local connection = ARGV[2]
if redis.call('ZSCORE', 'kq:leases', connection) then
  although_full()
  redis.call('ZADD', 'kq:leases', 'XX', 0, connection)
  return bury(connection) and 1 or 0
end
return 1

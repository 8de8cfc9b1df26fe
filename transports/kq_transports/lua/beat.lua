-- parts: keys wake line moves connections
-- ARGV: socket, connection, length of the lease, and the same or '' (as in enter()).
local connection, length = ARGV[2], ARGV[3]
although_full()
if not enter(connection, ARGV[4]) then
  return redis.error_reply('KQLOST')
end
redis.call('ZADD', 'kq:leases', now + length, connection)
return 1

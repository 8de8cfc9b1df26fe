-- parts: keys wake
-- ARGV: socket, connection, asleep, queues. Returns microseconds until something is due, or -1.
local connection = ARGV[2]
if ARGV[3] == '1' then
  redis.call('RPUSH', at(connection, 'wake'), 1)
end
local queues = {}
for i = 4, #ARGV do
  queues[i - 3] = ARGV[i]
end
return until_due(connection, queues)

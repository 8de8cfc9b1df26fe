-- parts: keys wake
-- ARGV: socket, connection, asleep, queues. Returns microseconds until something is due, or -1.
local connection = ARGV[2]
if ARGV[3] == '1' then
  redis.call('RPUSH', at(connection, 'wake'), 1)
end
local due = nil
for i = 4, #ARGV do
  local first = first_due(ARGV[i])
  due = due and first and math.min(due, first) or due or first
end
return until_due(connection, due)

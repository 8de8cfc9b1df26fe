-- parts: keys wake moves connections
-- ARGV: socket, queue, ids. Returns those that were ready or delayed, and are gone.
local queue = ARGV[2]
tidy()
local removed = {}
for i = 3, #ARGV do
  local id = ARGV[i]
  if redis.call('ZREM', of(queue, 'ready'), id) + redis.call('ZREM', of(queue, 'delayed'), id) > 0 then
    redis.call('HDEL', of(queue, 'jobs'), id)
    redis.call('HDEL', of(queue, 'counts'), id)
    redis.call('HDEL', of(queue, 'places'), id)
    table.insert(removed, id)
  end
end
return removed

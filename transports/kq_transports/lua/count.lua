-- parts: keys wake moves connections
-- ARGV: socket, queue. Returns how many messages are ready, delayed and held.
local queue = ARGV[2]
tidy()
if redis.call('HEXISTS', 'kq:queues', queue) == 0 then
  return redis.error_reply('KQNOTFOUND ' .. queue)
end
promote(queue)
return {
  redis.call('ZCARD', of(queue, 'ready')),
  redis.call('ZCARD', of(queue, 'delayed')),
  redis.call('HLEN', of(queue, 'held')),
}

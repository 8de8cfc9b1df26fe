-- parts: keys wake line moves connections
-- ARGV: socket, queue. Returns how many messages are ready, delayed and held.
local queue = ARGV[2]
reclaim()
expire()
if redis.call('HEXISTS', 'kq:queues', queue) == 0 then
  return redis.error_reply('KQNOTFOUND ' .. queue)
end
promote(queue)
return {
  ready_count(queue),
  redis.call('ZCARD', of(queue, 'delayed')),
  redis.call('HLEN', of(queue, 'held')),
}

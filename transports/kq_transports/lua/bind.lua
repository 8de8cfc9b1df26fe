-- parts: keys
-- ARGV: socket, exchange, queue, key.
local exchange, queue, key = ARGV[2], ARGV[3], ARGV[4]
if redis.call('HEXISTS', 'kq:exchanges', exchange) == 0 then
  return redis.error_reply('KQNOEXCHANGE ' .. exchange)
end
if redis.call('HEXISTS', 'kq:queues', queue) == 0 then
  return redis.error_reply('KQNOTFOUND ' .. queue)
end
redis.call('SADD', 'kq:bindings:' .. exchange, pair(queue, key))
redis.call('SADD', of(queue, 'exchanges'), exchange)
return 1

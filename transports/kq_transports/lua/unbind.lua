-- parts: keys
-- ARGV: socket, exchange, queue, key. The queue's own set of exchanges may name one too many: it is
-- only where to look when the queue ends.
redis.call('SREM', 'kq:bindings:' .. ARGV[2], pair(ARGV[3], ARGV[4]))
return 1

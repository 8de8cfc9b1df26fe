-- parts: keys
-- ARGV: socket, exchange.
for _, binding in ipairs(redis.call('SMEMBERS', 'kq:bindings:' .. ARGV[2])) do
  redis.call('SREM', of(unpair(binding), 'exchanges'), ARGV[2])
end
redis.call('UNLINK', 'kq:bindings:' .. ARGV[2])
redis.call('HDEL', 'kq:exchanges', ARGV[2])
return 1

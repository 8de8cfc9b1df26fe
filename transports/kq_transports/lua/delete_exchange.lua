-- parts: keys
-- ARGV: socket, exchange.
for _, binding in ipairs(redis.call('SMEMBERS', 'kq:bindings:' .. ARGV[2])) do
  local queue = unpair(binding)
  if queue then
    redis.call('SREM', of(queue, 'exchanges'), ARGV[2])
  end
end
redis.call('UNLINK', 'kq:bindings:' .. ARGV[2])
redis.call('HDEL', 'kq:exchanges', ARGV[2])
return 1

-- parts: keys
-- ARGV: socket, exchange, kind. Returns the kind that it has.
redis.call('HSETNX', 'kq:exchanges', ARGV[2], ARGV[3])
return redis.call('HGET', 'kq:exchanges', ARGV[2])

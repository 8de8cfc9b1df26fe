-- parts: keys wake moves connections
-- Returns each queue and its arguments as JSON.
tidy()
return redis.call('HGETALL', 'kq:queues')

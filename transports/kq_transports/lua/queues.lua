-- parts: keys wake line moves connections
-- Returns each queue and its arguments as JSON.
reclaim()
expire()
return redis.call('HGETALL', 'kq:queues')

-- parts: keys
-- Returns for each connection its name, when its lease ends (µs) and how many messages it holds.
local reply = {}
local leases = redis.call('ZRANGE', 'kq:leases', 0, -1, 'WITHSCORES')
for i = 1, #leases, 2 do
  table.insert(reply, string.sub(leases[i], 1, -10))
  table.insert(reply, leases[i + 1])
  table.insert(reply, redis.call('HLEN', at(leases[i], 'held')))
end
return reply

-- parts: keys
-- ARGV: socket, queue. Returns how many messages that was. Costs as much as is held, however much waits.
local queue = ARGV[2]
local ids = redis.call('HKEYS', of(queue, 'held'))
local bodies = values('HMGET', of(queue, 'jobs'), ids)
local purged = redis.call('HLEN', of(queue, 'jobs')) - #ids
unlink(queue, {'jobs', 'beside', 'delayed', 'tickets', 'counts', 'wake'})
local kept = {}
for i, id in ipairs(ids) do
  kept[2 * i - 1], kept[2 * i] = id, bodies[i]
end
each('HSET', of(queue, 'jobs'), kept)
return purged

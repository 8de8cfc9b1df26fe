-- parts: keys wake line inline moves connections
-- ARGV: socket, queue, ids. Returns those that were ready or delayed, and are gone.
local queue = ARGV[2]
reclaim()
local removed = {}
for i = 3, #ARGV do
  local id = ARGV[i]
  local job = redis.call('HGET', of(queue, 'jobs'), id)
  if job and redis.call('HEXISTS', of(queue, 'held'), id) == 0 then
    if redis.call('ZREM', of(queue, 'beside'), id) + redis.call('ZREM', of(queue, 'delayed'), id) == 0 then
      blank(queue, (read_entry(job)))
    end
    redis.call('HDEL', of(queue, 'jobs'), id)
    redis.call('HDEL', of(queue, 'counts'), id)
    redis.call('HDEL', of(queue, 'tickets'), id)
    table.insert(removed, id)
  end
end
return removed

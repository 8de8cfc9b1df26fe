-- parts: keys wake line moves connections
-- ARGV: socket, queue, arguments as JSON, single ('1' or ''), longest or '', unused or '',
-- owner or '', lease or ''. Returns 1, or the arguments that it exists with.
local queue, arguments, owner = ARGV[2], ARGV[3], ARGV[7]
reclaim()
expire()
local existing = redis.call('HGET', 'kq:queues', queue)
if existing and existing ~= arguments then
  touch(queue)
  return existing
end
if owner ~= '' and not enter(owner, ARGV[8]) then
  return redis.error_reply('KQLOST')
end
local former = existing and redis.call('HGET', of(queue, 'queue'), 'owner')
if not existing then
  redis.call('HSET', 'kq:queues', queue, arguments)
  redis.call('HSET', of(queue, 'queue'), 'sequence', 0)
  for i, field in ipairs({'single', 'longest', 'unused'}) do
    if ARGV[3 + i] ~= '' then
      redis.call('HSET', of(queue, 'queue'), field, ARGV[3 + i])
    end
  end
end
if owner ~= '' and (former or not existing) then
  -- A mortal queue ends with the last that declared it so; one that lasts goes on lasting.
  if former then
    redis.call('SREM', at(former, 'queues'), queue)
  end
  redis.call('HSET', of(queue, 'queue'), 'owner', owner)
  redis.call('SADD', at(owner, 'queues'), queue)
end
touch(queue)
return 1

-- parts: keys wake line moves connections verdicts messages
-- ARGV: socket, connection, seen, call, number of verdicts, each number and action, then messages
-- as in publish. Returns the stale numbers. call counts the client's settles: the repeat of one
-- whose answer was lost gets that answer.
local connection, seen, call = ARGV[2], ARGV[3], ARGV[4]
although_full()
if not enter(connection, '') then
  return redis.error_reply('KQLOST')
end
if not fence(connection, seen) then
  return redis.error_reply('KQLATE')
end
local last = redis.call('HMGET', at(connection, 'calls'), 'settled', 'stale')
if last[1] == call then
  return cmsgpack.unpack(last[2])
end

local verdicts = tonumber(ARGV[5])
local messages = 6 + 2 * verdicts
local done, back, stale = read_verdicts(connection, 6, verdicts)
if #stale > 0 and #ARGV >= messages then
  return stale
end
local queues, refusal = read_messages(messages_from(messages), done[2], {})
if refusal then
  return refusal
end
finish(connection, done[1], done[2])
give_back(connection, back[1], back[2], 1)
store(queues)
redis.call('HSET', at(connection, 'calls'), 'settled', call, 'stale', cmsgpack.pack(stale))
return stale

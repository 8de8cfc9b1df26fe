-- parts: keys wake line messages
-- Publish with a rider, whose text stands before this: agrees() says whether it does, act() does what it does.
-- ARGV: socket, what the rider is told, then messages as in publish.
local queues, refusal = read_messages(messages_from(3), {}, {})
if refusal then
  return refusal
end
if not agrees() then
  return redis.error_reply('KQDECLINED')
end
act()
store(queues)
return 1

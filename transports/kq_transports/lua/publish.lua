-- parts: keys wake line messages
-- ARGV: socket, then for each message queue, id, body, priority, delay.
local queues, refusal = read_messages(messages_from(2), {}, {})
if refusal then
  return refusal
end
store(queues)
return 1

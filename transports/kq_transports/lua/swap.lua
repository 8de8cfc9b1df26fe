-- parts: keys wake line inline moves connections messages
-- ARGV: socket, queue, number of swaps, for each its id, its body, 1 when what is published becomes
-- ready when it would have, and how many messages that is; then all messages as in publish.
-- Returns for each 1, or 0 where the message is gone, is held, or has another body.
local queue, swaps = ARGV[2], tonumber(ARGV[3])
if redis.call('EXISTS', of(queue, 'queue')) == 0 then
  return redis.error_reply('KQNOTFOUND ' .. queue)
end
reclaim()

local made, leaving, ending, indices = {}, {}, {}, {}
local message = 4 + 4 * swaps
for i = 1, swaps do
  local at = 4 * i
  local id, body, last = ARGV[at], ARGV[at + 1], message + 5 * ARGV[at + 3]
  local job = waiting(queue, id)
  made[i] = job and string.sub(job, string.find(job, ' ', 1, true) + 1) == body and 1 or 0
  if made[i] == 1 then
    table.insert(leaving, {id, job})
    table.insert(ending, pair(queue, id))
    local due = ARGV[at + 2] == '1' and (redis.call('ZSCORE', of(queue, 'delayed'), id) or now)
    for index = message, last - 1, 5 do
      ARGV[index + 4] = due and math.max(0, due - now) or ARGV[index + 4]
      table.insert(indices, index)
    end
  end
  message = last
end

local queues, refusal = read_messages(indices, ending, {[queue] = #leaving})
if refusal then
  return refusal
end
for _, each in ipairs(leaving) do
  take_off(queue, each[1], each[2])
end
store(queues)
return made

-- parts: keys
-- ARGV: socket, exchange. Returns its kind, then queue and key of each binding.
local exchange = ARGV[2]
local reply = {redis.call('HGET', 'kq:exchanges', exchange)}
if not reply[1] then
  return redis.error_reply('KQNOEXCHANGE ' .. exchange)
end
local bindings = redis.call('SMEMBERS', 'kq:bindings:' .. exchange)
table.sort(bindings)
for _, binding in ipairs(bindings) do
  local queue, key = unpair(binding)
  if queue then
    table.insert(reply, queue)
    table.insert(reply, key)
  end
end
return reply

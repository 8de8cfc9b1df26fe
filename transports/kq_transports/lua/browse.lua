-- parts: keys wake line inline moves connections describe
-- ARGV: socket, queue, state, limit, offset. Returns messages as in find, in the order of delivery
-- (held: oldest first).
local queue, state, limit, offset = ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
reclaim()
promote(queue)

local function held_ids()
  local held = redis.call('HGETALL', of(queue, 'held'))
  local number, ids = {}, {}
  for i = 1, #held, 2 do
    number[held[i]] = tonumber(string.match(held[i + 1], '^%S+') or '') or 0
    table.insert(ids, held[i])
  end
  table.sort(ids, function(a, b) return number[a] < number[b] end)
  local page = {}
  for i = offset + 1, math.min(#ids, offset + limit) do
    table.insert(page, ids[i])
  end
  return page
end

local ids
if state == 'held' then
  ids = held_ids()
elseif state == 'ready' then
  ids = ready_ids(queue, offset, limit)
else
  ids = redis.call('ZRANGE', of(queue, 'delayed'), offset, offset + limit - 1)
end
local reply = {}
for _, id in ipairs(ids) do
  describe(reply, queue, id)
end
return reply

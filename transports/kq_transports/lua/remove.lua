-- parts: keys wake line inline moves connections
-- ARGV: socket, queue, ids. Returns those that were ready or delayed, and are gone.
local queue = ARGV[2]
reclaim()
local removed = {}
for i = 3, #ARGV do
  local id = ARGV[i]
  local job = waiting(queue, id)
  if job then
    take_off(queue, id, job)
    table.insert(removed, id)
  end
end
return removed

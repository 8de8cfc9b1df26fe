-- parts: keys wake line moves connections describe
-- ARGV: socket, queue, ids. Returns for each that is there: id, "ticket body", state, count, due or '', holder or ''.
local queue = ARGV[2]
reclaim()
promote(queue)
local reply = {}
for i = 3, #ARGV do
  describe(reply, queue, ARGV[i])
end
return reply

-- parts: keys wake moves connections describe
-- ARGV: socket, queue, ids. Returns for each that is there: id, body, place, state, count, due or '', holder or ''.
local queue = ARGV[2]
tidy()
promote(queue)
local reply = {}
for i = 3, #ARGV do
  describe(reply, queue, ARGV[i])
end
return reply

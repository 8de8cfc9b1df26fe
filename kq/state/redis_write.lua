-- Carry out writes in order, each refused or made; returns 1 or 0 for each.
-- ARGV: socket, writes (see redis_facts.lua, which stands before this).
local reply = {}
for i, write in ipairs(cmsgpack.unpack(ARGV[2])) do
  local made = holds(write)
  if made then
    make(write)
  end
  reply[i] = made and 1 or 0
end
return reply

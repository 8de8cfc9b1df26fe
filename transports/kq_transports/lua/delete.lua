-- parts: keys wake line moves
-- ARGV: socket, queue. Returns how many messages went with it.
return drop(ARGV[2])

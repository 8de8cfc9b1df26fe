-- parts: keys wake line moves connections
-- ARGV: socket, connection, queues.
for i = 3, #ARGV do
  free(ARGV[i], ARGV[2])
end
return 1

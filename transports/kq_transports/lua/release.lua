-- parts: keys wake moves connections
-- ARGV: socket, connection, queues.
for i = 3, #ARGV do
  free(ARGV[i], ARGV[2])
end
return 1

-- parts: keys wake line moves
-- ARGV: socket, queue, if empty ('1' or '0'). Returns how many messages went with it; -1 when it was to be empty.
if ARGV[3] == '1' and redis.call('HLEN', of(ARGV[2], 'jobs')) > 0 then
  return -1
end
return drop(ARGV[2])

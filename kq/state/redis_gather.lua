-- Facts of several families, as of one moment. What never expires comes first where there are too many.
-- ARGV: socket, limit, prefixes. Returns seconds and microseconds of the clock, then for each prefix a list
-- of keys and values. Keys are those of redis_write.lua.
local CHUNK = 1000 -- arguments of one command
local time = redis.call('TIME')
local now, limit = time[1] * 1000 + math.floor(time[2] / 1000), tonumber(ARGV[2])

-- Append those of keys that begin with prefix and are there, with their values, to found.
local function take(found, keys, prefix)
  local wanted, names = {}, {}
  for _, key in ipairs(keys) do
    if string.sub(key, 1, #prefix) == prefix and #found / 2 + #wanted < limit then
      table.insert(wanted, key)
      table.insert(names, 'kq:state:' .. key)
    end
  end
  local values = #names > 0 and redis.call('MGET', unpack(names)) or {}
  for i, key in ipairs(wanted) do
    if values[i] then
      table.insert(found, key)
      table.insert(found, values[i])
    end
  end
end

-- At most twice as many keys as are wanted are looked at, whatever the family holds besides.
local function of(prefix)
  local family, found = 'kq:family:' .. string.match(prefix, '^[^:]*'), {}
  for first = 0, 2 * limit - 1, CHUNK do
    local page = redis.call('ZREVRANGEBYSCORE', family, '+inf', '(' .. now, 'LIMIT', first, CHUNK)
    take(found, page, prefix)
    if #page < CHUNK or #found / 2 >= limit then
      break
    end
  end
  return found
end

local reply = {tonumber(time[1]), tonumber(time[2])}
for i = 3, #ARGV do
  table.insert(reply, of(ARGV[i]))
end
return reply

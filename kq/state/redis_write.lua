-- Conditional writes, in order, each refused or made; returns 1 or 0 for each.
--
--   kq:state:<key>       string  the value; it expires by itself
--   kq:family:<family>   zset    keys that begin with "<family>:" -> when they expire (ms), for scan()
--
-- Who waits for a key is subscribed to the channel of its name, so a write of it is published there.
-- ARGV: socket, then for each write: flags, key, and what the flags announce in the order
--   a  key that must be there                     u  key, value that it must have if it is there
--   e  key, value that it must have               n  key that must not be there
--   v  value to store (without it, delete)        k  for how long (ms)
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local position = 1

local function following()
  position = position + 1
  return ARGV[position]
end

local function name(key)
  return 'kq:state:' .. key
end

-- Forget a bounded number of the family's expired keys: as many as come in, and some.
local function forget_expired(family)
  local expired = redis.call('ZRANGEBYSCORE', family, '-inf', now, 'LIMIT', 0, 10)
  if #expired > 0 then
    redis.call('ZREM', family, unpack(expired))
  end
end

local function store(key, value, keep)
  local family = 'kq:family:' .. string.match(key, '^[^:]*')
  if not value then
    redis.call('DEL', name(key))
    redis.call('ZREM', family, key)
    return
  end
  forget_expired(family)
  redis.call('ZADD', family, keep and now + keep or '+inf', key)
  if keep then
    redis.call('SET', name(key), value, 'PX', keep)
  else
    redis.call('SET', name(key), value)
  end
  redis.call('PUBLISH', name(key), '')
end

local function holds(flag, key)
  local found = redis.call('GET', name(key))
  if flag == 'a' then
    return found
  elseif flag == 'n' then
    return not found
  end
  local expected = following()
  return found == expected or flag == 'u' and not found
end

local function write()
  local made, value, keep = 1, nil, nil
  local flags, key = following(), following()
  for flag in string.gmatch(flags, '.') do
    local word = following()
    if flag == 'v' then
      value = word
    elseif flag == 'k' then
      keep = word
    elseif not holds(flag, word) then
      made = 0
    end
  end
  if made == 1 then
    store(key, value, keep)
  end
  return made
end

local reply = {}
while position < #ARGV do
  table.insert(reply, write())
end
return reply

-- Facts, and what is asked of them before they are written.
--
--   kq:state:<key>       string  the value; it expires by itself
--   kq:family:<family>   zset    keys that begin with "<family>:" -> when they expire (ms), for scan()
--
-- Who waits for a key is subscribed to the channel of its name, so a write of it is published there.
-- A write is, as MessagePack:
--   1  its key
--   2  the value to store (none: delete)
--   3  for how long (seconds; none: for ever)
--   4  a key that must be there (none: whatever; so below)
--   5  a key, and the value that it must have if it is there
--   6  a key, and the value that it must have (none: it must not be there)
--   7  whether the value is a whole number that is added to the one that is there (else 0)
--   8  how the value that is there must begin, unless it is the one to store (none: it is replaced whatever it is)
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

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

local function found(key)
  return redis.call('GET', name(key)) or nil
end

local function make(write)
  local key, value, seconds = write[1], write[2], write[3]
  local family = 'kq:family:' .. string.match(key, '^[^:]*')
  if not value then
    redis.call('DEL', name(key))
    redis.call('ZREM', family, key)
    return
  end
  if write[7] then
    local known = string.match(found(key) or '', '^%d+$') or '0'
    value = string.format('%.0f', (#known < 16 and tonumber(known) or 0) + tonumber(value))
  end
  forget_expired(family)
  if seconds then
    local keep = math.max(1, math.ceil(seconds * 1000))
    redis.call('ZADD', family, now + keep, key)
    redis.call('SET', name(key), value, 'PX', string.format('%.0f', keep))
  else
    redis.call('ZADD', family, '+inf', key)
    redis.call('SET', name(key), value)
  end
  redis.call('PUBLISH', name(key), '')
end

-- Whether the conditions of a write hold.
local function holds(write)
  local alive, unless, must, replaces = write[4], write[5], write[6], write[8]
  if alive and not found(alive) then
    return false
  end
  if unless then
    local value = found(unless[1])
    if value and value ~= unless[2] then
      return false
    end
  end
  if replaces then
    local value = found(write[1])
    if value and value ~= write[2] and string.sub(value, 1, #replaces) ~= replaces then
      return false
    end
  end
  return not must or found(must[1]) == must[2]
end

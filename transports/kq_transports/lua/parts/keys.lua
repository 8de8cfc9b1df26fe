-- What the verbs share: the clock, and the names of the keys.
--
-- This text stands before each verb's own. A verb is one script, so one transaction; its first
-- argument is the number of the client's socket, the others are its own. Refusals are error
-- replies that begin with KQ; redislink/link.py knows them.
--
-- Keys of a queue share a hash tag:
--   kq:{q}:queue      hash   sequence, lines, and single, longest, unused, owner where declared so
--   kq:{q}:jobs       hash   id -> "ticket body", of every message that the queue has
--   kq:{q}:line:<p>   list   "ticket id", ready messages of priority p; "ticket" of removed ones
--   kq:{q}:beside     zset   id -> place, ready messages that are not in a line; see line.lua
--   kq:{q}:delayed    zset   id -> when it is due
--   kq:{q}:tickets    hash   id -> "ticket delay", of messages that are or were delayed: when they become ready nothing
--                            is written of them but their places
--   kq:{q}:held       hash   id -> "number ticket count connection"
--   kq:{q}:counts     hash   id -> deliveries so far, of ready ones that were delivered before
--   kq:{q}:wake       list   tokens for consumers asleep in BLPOP: a hint to look, never a message
--   kq:{q}:seat       string the connection that a single-active-consumer queue gives to
--   kq:{q}:exchanges  set    exchanges that the queue is bound to
--   kq:{q}:aside      list   "reason: entry" of what kq did not write and can't read, the newest 1,000
-- An id is in jobs and in exactly one of a line, beside, delayed and held. One of 28 hex digits, as most are, is
-- written as the 14 bytes that they stand for; see _short() in redis.py.
--
-- Keys of a connection c:
--   kq:leases         zset   c -> when its lease ends
--   kq:names          hash   name -> c, so that a name is one living connection
--   kq:c:<c>:held     hash   number -> queue and id: what it may settle; a receipt is this number
--   kq:c:<c>:calls    hash   socket, settled, stale: see fence() and settle.lua
--   kq:c:<c>:seats, kq:c:<c>:queues (sets), kq:c:<c>:wake (list)
-- Others: kq:queues, kq:expiring, kq:exchanges, kq:bindings:<exchange>, kq:number.
--
-- All this asks for one server, where a reserve over several queues is one transaction. In a
-- Redis Cluster a connection would keep its keys (lease included) once in each queue's slot, and
-- reserve, settle and beat would be one call for each queue.
--
-- A ticket is the digit of the priority and the number of the submission, and a message keeps it
-- for life: that is how it is given back to where it was. Numbers rise, and tell when that was: in steps
-- of 10 µs since 2025, unless more came than one for each. All times are microseconds, by this server.

local CHUNK = 1000 -- arguments of one command: Lua's stack has room for 8000
local BATCH = 1000 -- messages that one call moves beyond those it was called for
local TOKENS = 16  -- in a wake list
local ASIDE = 1000 -- entries that are kept set aside
local PLACES = 2 ^ 48 -- sequence numbers of a queue
local STEP = 10 -- of those numbers
local EPOCH = 1735689600000000 -- when they began
local QUEUE_PARTS = {
  'queue', 'jobs', 'beside', 'delayed', 'tickets', 'held', 'counts', 'wake', 'seat', 'exchanges', 'aside',
}

local socket = tonumber(ARGV[1])
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]

local function of(queue, part)
  return 'kq:{' .. queue .. '}:' .. part
end

local function at(connection, part)
  return 'kq:c:' .. connection .. ':' .. part
end

-- Keep an unreadable entry of a queue where it stops nobody: the newest ASIDE of them. The server's log has the first.
local function set_aside(queue, reason, entry)
  local key = of(queue, 'aside')
  local kept = redis.call('RPUSH', key, reason .. ': ' .. entry)
  if kept == 1 then
    redis.log(redis.LOG_WARNING, 'kq: ' .. reason .. '; it was moved to ' .. key .. ', and so are others')
  elseif kept > ASIDE then
    redis.call('LTRIM', key, -ASIDE, -1)
  end
end

-- Forget those keys of a queue, and its lines, at once however much is in them.
local function unlink(queue, parts)
  for _, part in ipairs(parts) do
    redis.call('UNLINK', of(queue, part))
  end
  for priority = 0, 9 do
    redis.call('UNLINK', of(queue, 'line:' .. priority))
  end
end

-- A queue and what follows it as one string, and back: names may contain anything.
local function pair(queue, rest)
  return #queue .. ':' .. queue .. rest
end

local function unpair(text)
  local colon = string.find(text, ':', 1, true)
  local size = colon and tonumber(string.sub(text, 1, colon - 1))
  if not size then
    return nil -- kq did not write it
  end
  local last = colon + size
  return string.sub(text, colon + 1, last), string.sub(text, last + 1)
end

local function each(command, key, arguments)
  for first = 1, #arguments, CHUNK do
    redis.call(command, key, unpack(arguments, first, math.min(first + CHUNK - 1, #arguments)))
  end
end

local function values(command, key, fields)
  if #fields > 0 and #fields <= CHUNK then
    return redis.call(command, key, unpack(fields))
  end
  local found = {}
  for first = 1, #fields, CHUNK do
    local part = redis.call(command, key, unpack(fields, first, math.min(first + CHUNK - 1, #fields)))
    for i = 1, #part do
      found[#found + 1] = part[i]
    end
  end
  return found
end

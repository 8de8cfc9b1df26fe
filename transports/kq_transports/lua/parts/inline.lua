-- Reaching into the middle of the lines: only for who looks and removes.

-- Blank a message out of its line, in steps that grow with the logarithm of its length.
local function blank(queue, ticket)
  local list, place = line(queue, string.sub(ticket, 1, 1)), place_of(ticket)
  local low, high = 0, redis.call('LLEN', list) - 1
  while low <= high do
    local middle = math.floor((low + high) / 2)
    local entry = redis.call('LINDEX', list, middle)
    local found = place_of(entry)
    if not found then
      redis.call('LREM', list, 1, entry)
      set_aside(queue, 'an entry of a line has no ticket', entry)
      high = high - 1
    elseif found == place then
      redis.call('LSET', list, middle, ticket)
      return
    elseif found < place then
      low = middle + 1
    else
      high = middle - 1
    end
  end
end

-- "ticket body" of a message that is ready or delayed, or nil.
local function waiting(queue, id)
  return redis.call('HEXISTS', of(queue, 'held'), id) == 0 and redis.call('HGET', of(queue, 'jobs'), id) or nil
end

-- End a message that is ready or delayed.
local function take_off(queue, id, job)
  if redis.call('ZREM', of(queue, 'beside'), id) + redis.call('ZREM', of(queue, 'delayed'), id) == 0 then
    blank(queue, (read_entry(job)))
  end
  redis.call('HDEL', of(queue, 'jobs'), id)
  redis.call('HDEL', of(queue, 'counts'), id)
  redis.call('HDEL', of(queue, 'tickets'), id)
end

-- The messages of one priority in order, blanks included: at most limit from offset on. beside: ids
-- and places of those beside the line, as many as may be among the first offset + limit.
local function merged(list, beside, offset, limit)
  local skipped = math.max(0, offset - #beside / 2) -- these are in the line, and before offset in any case
  local found = {}
  for i = 1, #beside, 2 do
    table.insert(found, {tonumber(beside[i + 1]), beside[i]})
  end
  for _, entry in ipairs(redis.call('LRANGE', list, skipped, offset + limit - 1)) do
    local ticket, id = read_entry(entry)
    table.insert(found, {place_of(ticket) or -1, id})
  end
  table.sort(found, function(a, b) return a[1] < b[1] end)
  local page = {}
  for i = offset - skipped + 1, math.min(#found, offset - skipped + limit) do
    table.insert(page, found[i])
  end
  return page
end

-- Ids of ready messages in order, at most limit from offset on. What was removed from the middle of a
-- line is counted by offset and limit, so a page may be shorter.
local function ready_ids(queue, offset, limit)
  local ids = {}
  for priority = 9, 0, -1 do
    local list, side = line(queue, priority), of(queue, 'beside')
    local first, last = (9 - priority) * PLACES, (10 - priority) * PLACES - 1
    local length = redis.call('LLEN', list) + redis.call('ZCOUNT', side, first, last)
    if limit > 0 and offset < length then
      local beside = redis.call('ZRANGEBYSCORE', side, first, last, 'WITHSCORES', 'LIMIT', 0, offset + limit)
      local page = merged(list, beside, offset, limit)
      for _, found in ipairs(page) do
        table.insert(ids, found[2])
      end
      limit = limit - #page
    end
    offset = math.max(0, offset - length)
  end
  return ids
end

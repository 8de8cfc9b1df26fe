-- Shared by the verbs that look: what a message of queue is, appended to reply; nothing when it isn't there.

local function describe(reply, queue, id)
  local body = redis.call('HGET', of(queue, 'jobs'), id)
  if not body then
    return
  end
  local state, due, holder = 'ready', '', ''
  local place, count = redis.call('ZSCORE', of(queue, 'ready'), id), redis.call('HGET', of(queue, 'counts'), id)
  local held = redis.call('HGET', of(queue, 'held'), id)
  if held then
    state = 'held'
    place, count, holder = string.match(held, '^%S+ (%S+) (%d+) (.*)#%x+$')
  elseif not place then
    state, due = 'delayed', redis.call('ZSCORE', of(queue, 'delayed'), id)
    place = redis.call('HGET', of(queue, 'places'), id)
  end
  for _, value in ipairs({id, body, place, state, count or '0', due, holder}) do
    table.insert(reply, value)
  end
end

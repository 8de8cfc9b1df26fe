-- What a message of queue is, appended to reply; nothing when it isn't there.
local function describe(reply, queue, id)
  local job = redis.call('HGET', of(queue, 'jobs'), id)
  if not job or not string.find(job, '^%d') then
    return
  end
  local state, count, holder = 'ready', redis.call('HGET', of(queue, 'counts'), id), ''
  local due = redis.call('ZSCORE', of(queue, 'delayed'), id)
  local held = redis.call('HGET', of(queue, 'held'), id)
  if held then
    state = 'held'
    count, holder = string.match(held, '^%S+ %S+ (%d+) (.*)#%x+$')
  elseif due then
    state = 'delayed'
  end
  for _, value in ipairs({id, job, state, tonumber(count or '') and count or '0', due or '', holder or ''}) do
    table.insert(reply, value)
  end
end

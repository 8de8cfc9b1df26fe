-- Verdicts, as the client sends them.

-- Read `count` verdicts (number, action) from ARGV[first]; returns those that this connection
-- holds, as {numbers, entries} for each action, and the numbers that are stale.
local function read_verdicts(connection, first, count)
  local numbers = {}
  for i = 1, count do
    numbers[i] = ARGV[first + 2 * i - 2]
  end
  local entries = values('HMGET', at(connection, 'held'), numbers)
  local done, back, stale, twice = {{}, {}}, {{}, {}}, {}, {}
  for i, number in ipairs(numbers) do
    if entries[i] and not twice[number] then
      local which = ARGV[first + 2 * i - 1] == 'done' and done or back
      table.insert(which[1], number)
      table.insert(which[2], entries[i])
      twice[number] = true
    else
      table.insert(stale, number)
    end
  end
  return done, back, stale
end

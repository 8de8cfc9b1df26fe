-- Carry out writes, all or none, in the script of somebody else; see kq_transports.redislink.Passenger.
-- told: writes (see redis_facts.lua, which stands before this) of different keys.
local writes = cmsgpack.unpack(told)

local function agrees()
  for _, write in ipairs(writes) do
    if not holds(write) then
      return false
    end
  end
  return true
end

local function act()
  for _, write in ipairs(writes) do
    make(write)
  end
end

return agrees, act

--- Sizes in bytes, as people write them.
local UNIT = { [""] = 1, B = 1, KB = 1e3, MB = 1e6, GB = 1e9, TB = 1e12, K = 1e3, M = 1e6, G = 1e9,
  KIB = 2 ^ 10, MIB = 2 ^ 20, GIB = 2 ^ 30, TIB = 2 ^ 40 }

--- The bytes of "500MB", "2 GB" or "1GiB", in capitals or not; a number stays what it is.
---@param size number|string
---@return number|nil bytes
---@return string|nil problem
return function(size)
  if type(size) == "number" then return size end
  local number, unit = tostring(size):upper():match("^([%d.]+)%s*(%a*)$")
  number = tonumber(number)
  if not number or not UNIT[unit] or number <= 0 then
    return nil, ("'%s' is no size such as 500MB or 2GB"):format(tostring(size))
  end
  return number * UNIT[unit]
end

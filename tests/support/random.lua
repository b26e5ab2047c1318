-- Numbers from 0 to 1, the same ones in any language: Park and Miller's generator.
---@param seed integer
---@return fun(): number
return function(seed)
  local state = seed
  return function()
    state = (state * 16807) % 2147483647
    return state / 2147483647
  end
end

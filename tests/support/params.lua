-- A stand-in for a model: params by name.
local Param = require "moonrock.param"

return function()
  local m = { params = {} }
  function m:param(name, shape, options)
    local p = Param.new(name, 11, shape, options)
    self.params[name] = p
    return p
  end
  return m
end

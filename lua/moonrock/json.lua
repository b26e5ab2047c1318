--- JSON (dkjson), whose encoder stays in the interpreter: once its recursive walk over `pairs` is compiled,
-- LuaJIT 2.1 of some distributions now and then reads through half a pointer, and the process is gone.
local json = require "dkjson"

local function interpret(f, seen)
  if seen[f] then return end
  seen[f] = true
  jit.off(f, true)
  for i = 1, debug.getinfo(f, "u").nups do
    local _, value = debug.getupvalue(f, i)
    if type(value) == "function" and debug.getinfo(value, "S").what ~= "C" then interpret(value, seen) end
  end
end

interpret(json.encode, {})

return json

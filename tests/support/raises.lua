local assert = require "luassert"

--- Asserts that f(...) raises an error whose message holds a text, taken as it is; returns the message.
---@param text string
---@param f function
---@return string
local function raises(text, f, ...)
  local ok, problem = pcall(f, ...)
  assert.is_false(ok, ("nothing was raised, expected an error with %q"):format(text))
  problem = type(problem) == "table" and problem.usage or tostring(problem)
  assert.is_truthy(problem:find(text, 1, true), ("expected an error with %q, got %q"):format(text, problem))
  return problem
end

return raises

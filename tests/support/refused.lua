local assert = require "luassert"

--- Asserts that a function raises an error whose text contains `why`, as it stands.
---@param work function
---@param why string
return function(work, why)
  local ok, problem = pcall(work)
  assert.is_false(ok)
  assert.truthy(problem:find(why, 1, true), problem)
end

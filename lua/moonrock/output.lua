--- Files that are made (runtime/base/output.c): one takes its place once it is whole, and never that of
-- an input.
local ffi = require "ffi"
local C = require "moonrock.ffi"
local err = require "moonrock.error"

local Output = {}
Output.__index = Output

--- What is wrong with a path for something to be written to, or nil: that it is one of the inputs, or lies in
--- one.
---@param path string "-": standard output
---@param inputs table[] { what, path }, such as { "the data", "a.csv" }
---@return string|nil
function Output.problem(path, inputs)
  for _, input in ipairs(inputs) do
    if C.mr_output_check(path, input[2], input[1]) < 0 then return ffi.string(C.mr_error()) end
  end
end

--- Opens a file to be written; "-" is standard output.
---@param path string
---@return table
function Output.open(path)
  return setmetatable({ c = ffi.gc(err.check(C.mr_output_open(path)), C.mr_output_abort) }, Output)
end

---@param bytes string|ffi.cdata*
---@param len integer|nil for a string, its length
function Output:write(bytes, len) err.check(C.mr_output_write(self.c, bytes, len or #bytes)) end

--- What was written so far goes on its way now.
function Output:flush() err.check(C.mr_output_flush(self.c)) end

--- Puts it in its place.
function Output:close()
  local c = ffi.gc(self.c, nil)
  self.c = nil
  err.check(C.mr_output_end(c))
end

--- Removes what was written so far; what was in the place is as it was.
function Output:abort()
  if self.c then C.mr_output_abort(ffi.gc(self.c, nil)) end
  self.c = nil
end

return Output

--- Errors: raised at the user's line, which is the innermost frame outside this library.
local ffi = require "ffi"

local M = {}

-- "@moonrock/" inside the program, "@/somewhere/lua/moonrock/" from a checkout.
local HERE = debug.getinfo(1, "S").source:match("^(@.*)error%.lua$") or "@moonrock/"
local INT64 = ffi.typeof("int64_t")

-- "models/fm.lua:9: " for the innermost frame that is not the library's, or "".
local function position()
  local level = 3
  while true do
    local frame = debug.getinfo(level, "Sl")
    if not frame then return "" end
    if frame.currentline > 0 and frame.source:sub(1, #HERE) ~= HERE then
      return ("%s:%d: "):format(frame.short_src, frame.currentline)
    end
    level = level + 1
  end
end

--- Raises a message, with the position of the user's line in front.
---@param format string as for string.format, when values follow
---@param ... any
function M.raise(format, ...)
  local message = select("#", ...) > 0 and format:format(...) or format
  error(position() .. message, 0)
end

local function failed()
  local C = require "moonrock.ffi"
  error(position() .. ffi.string(C.mr_error()), 0)
end

--- Returns what a C function returned, or raises its error: -1 and NULL are failures.
---@generic T
---@param result T
---@return T
function M.check(result)
  if type(result) == "number" then
    if result < 0 then failed() end
  elseif result == nil or ffi.istype(INT64, result) and result < 0 then
    failed()
  end
  return result
end

return M

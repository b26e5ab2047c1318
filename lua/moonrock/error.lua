--- Errors: raised at the user's line, which is the innermost frame outside this library.
local ffi = require "ffi"

local M = {}

-- "@moonrock/" inside the program, "@/somewhere/lua/moonrock/" from a checkout.
local HERE = debug.getinfo(1, "S").source:match("^(@.*)error%.lua$") or "@moonrock/"
local INT64 = ffi.typeof("int64_t")

local function ours(source) return source:sub(1, #HERE) == HERE end

-- The message with the subjects of the calls of M.call that it comes out of in front, and the
-- innermost frame that is not the library's: "models/fm.lua:9: ". A user's function that ended in a
-- tail call has no line any more: then it is where that function begins.
local function located(message)
  local level, at = 3, nil
  while true do
    local frame = debug.getinfo(level, "Slf")
    if not frame then return (at or "") .. message end
    if frame.func == M.call then
      local _, subject = debug.getlocal(level, 1)
      local _, f = debug.getlocal(level, 2)
      local defined = debug.getinfo(f, "S")
      if message:sub(1, #subject) ~= subject then message = subject .. ": " .. message end
      if not at and not ours(defined.source) then
        at = ("%s:%d: "):format(defined.short_src, defined.linedefined)
      end
    elseif not at and frame.currentline > 0 and not ours(frame.source) then
      at = ("%s:%d: "):format(frame.short_src, frame.currentline)
    end
    level = level + 1
  end
end

local MATH = { abs = true, exp = true, log = true, max = true, min = true, sqrt = true, tanh = true }

-- An error of `math` that was given a tensor says what tensors have. Of a call that ended the user's function
-- there is neither name nor line: then it is where that function begins.
local function improved(problem)
  if type(problem) ~= "string" then return problem end
  local place, name = problem:match "^(.-)bad argument #%d+ to '([%w?]+)' %(number expected, got table%)$"
  if MATH[name] then
    problem = ("%s; of a tensor it is tensor:%s()"):format(problem, name)
  elseif name == "?" then
    problem = problem .. "; tensors have methods, such as tensor:exp()"
  end
  if name and (place == "" or ours("@" .. place)) then return located(problem:sub(#place + 1)) end
  return problem
end

-- With a traceback to be shown, errors stay where they come from.
local DEBUG = os.getenv "MOONROCK_DEBUG" ~= nil

-- Functions that were called without an error: from then on they are called as they are, which is faster.
local went_well = setmetatable({}, { __mode = "k" })

local function finish_call(ok, x, y, z)
  if ok then return x, y, z end
  error(x, 0)
end

--- Calls a function of up to three values, which returns up to three: errors of the library inside it begin
--- with the subject, as in "model fm: ". It is in every step, and what has `...` LuaJIT may not compile.
---@param subject string
---@param f function
---@param a any
---@param b? any
---@param c? any
function M.call(subject, f, a, b, c) -- luacheck: no unused args
  if DEBUG or went_well[f] then
    local x, y, z = f(a, b, c)
    return x, y, z
  end
  local x, y, z = finish_call(xpcall(f, improved, a, b, c))
  went_well[f] = true
  return x, y, z
end

--- Raises a message at the line where a user's function begins.
---@param f function
---@param format string
---@param ... any
function M.raise_at(f, format, ...)
  local info = debug.getinfo(f, "S")
  error(("%s:%d: "):format(info.short_src, info.linedefined) .. format:format(...), 0)
end

--- A value in a message, in one line: text in quotes.
---@param value any
---@return string
function M.show(value)
  return type(value) == "string" and ("%q"):format(value) or tostring(value):match "^[^\n]*"
end

--- Where the innermost frame outside the library is: "ads.lua:9"; nil without one.
---@return string|nil
function M.where()
  local level = 2
  while true do
    local frame = debug.getinfo(level, "Sl")
    if not frame then return nil end
    if frame.currentline > 0 and not ours(frame.source) then
      return ("%s:%d"):format(frame.short_src, frame.currentline)
    end
    level = level + 1
  end
end

--- Raises a message, with the position of the user's line in front.
---@param format string as for string.format, when values follow
---@param ... any
function M.raise(format, ...)
  local message = select("#", ...) > 0 and format:format(...) or format
  error(located(message), 0)
end

local function failed()
  local C = require "moonrock.ffi"
  error(located(ffi.string(C.mr_error())), 0)
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

-- An error that is raised in the library's own code (a wrong argument of a C function, a nil where an
-- object is due) as one at the user's line, with the place in the library behind it.
local function relocated(subject, problem)
  if type(problem) ~= "string" then return problem end
  if problem == "not enough memory" then return located(("%s: not enough memory"):format(subject)) end
  if not ours("@" .. problem) then return problem end
  local place, text = problem:match("^(.-%.lua:%d+): (.*)$")
  if not place then return problem end
  return located(("%s: %s (%s)"):format(subject, text, place))
end

--- A function of the library for users, none of a step's: whatever goes wrong inside is at their line.
---@param subject string
---@param f function
---@return function
function M.public(subject, f)
  if DEBUG then return f end
  local function finish(ok, ...)
    if ok then return ... end
    error(relocated(subject, (...)), 0)
  end
  return function(...) return finish(pcall(f, ...)) end
end

return M

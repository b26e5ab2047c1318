--- Objects that own something in C: what is closed, and whether now is a time to change anything.
--
-- A closed object keeps its plain fields and loses what it owns and its class: every method, and every use
-- by the library, is an error that says what was closed and what to do; closing it again is nothing. So no
-- other place has to ask.
local ffi = require "ffi"
local err = require "moonrock.error"
local view = require "moonrock.view"

local handle = {}

local function nothing() end

---@class Closed what the metatable of a closed object says
local classes = setmetatable({}, { __mode = "v" })

local function closed_class(problem)
  local class = classes[problem]
  if class then return class end
  local function refuse() err.raise("%s", problem) end
  class = { kind = "closed object", closed = problem, __newindex = refuse, __call = refuse, __add = refuse,
    __sub = refuse, __mul = refuse, __div = refuse, __unm = refuse,
    __tostring = function() return problem end }
  class.__index = function(_, name)
    if name == "close" or name == "free" then return nothing end
    refuse()
  end
  classes[problem] = class
  return class
end

--- Closes an object: takes `c` away, and what else it owns, by name, and frees `c`.
---@param object table
---@param problem string what every use says, as in "table \"t\": its model was closed"
---@param free? fun(c: ffi.cdata*)
---@param ... string
function handle.close(object, problem, free, ...)
  local c = rawget(object, "c")
  object.c = nil
  for i = 1, select("#", ...) do object[select(i, ...)] = nil end
  setmetatable(object, closed_class(problem))
  if free and c ~= nil then free(ffi.gc(c, nil)) end
end

--- Why an object is closed; nil for one that is not, and for anything else.
---@return string|nil
function handle.closed(object)
  local class = type(object) == "table" and getmetatable(object)
  return type(class) == "table" and rawget(class, "closed") or nil
end

--- Refuses what would change that which a user's operation or optimizer works on, while one runs.
---@param subject string
---@param what string such as "a step"
function handle.idle(subject, what)
  local running = view.running()
  if running then
    err.raise("%s: %s inside of %s; it must be a function of its arrays alone, do that before or after",
      subject, what, running)
  end
end

--- Makes the methods of a class fit for users: the object is a table (closed ones say so), and whatever goes
-- wrong is at the user's line.
---@param class table
---@param kind string such as "store"
---@param except table<string, boolean> methods of every step, which check for themselves
---@param changes? table<string, string> what is refused while a user's operation runs, in words
function handle.public(class, kind, except, changes)
  for name, f in pairs(class) do
    if type(f) == "function" and not name:match "^__" and not except[name] then
      local what = changes and changes[name]
      class[name] = err.public(kind .. ":" .. name, function(self, ...)
        if type(self) ~= "table" or handle.closed(self) then
          err.raise("%s:%s: expected a %s, got %s", kind, name, kind,
            handle.closed(self) or "a " .. type(self))
        end
        if what then handle.idle(self.subject or kind, what) end
        return f(self, ...)
      end)
    end
  end
end

return handle

--- Boxes: a store's code, in an environment of its own (moonrock.safe), with nothing of the host but what
-- the box hands it (moonrock.stored).
--
-- Between the two nothing passes as it is. The box gets a proxy, an empty table, for each object of the
-- host; which object it stands for is known here alone. Tables are copied, functions wrapped. So code in the
-- box has no table that the host reads, and no function that the host calls in its own environment.
--
-- While code of a box runs, methods of strings are the box's: all strings share one metatable, whose
-- __index is exchanged whenever control passes. Errors leave a box as text.
--
-- Limits: a count hook, which compiled code does not look at, so code under limits is never compiled; and
-- the allocator, where the program is ours (main.c).
local C = require "moonrock.ffi"
local safe = require "moonrock.safe"

local sandbox = {}

local EVERY = 100 -- steps of the interpreter between two looks at the limits
-- Steps, seconds, bytes of Lua's memory: what building a model, and each of its calls for a batch, may take.
local LIMITS = {
  build = { steps = 3e8, seconds = 60, bytes = 256e6 },
  batch = { steps = 5e8, seconds = 120, bytes = 256e6 },
}
sandbox.limits = LIMITS

local SOURCE_MOST = 1e6 -- bytes of a file of code
local DEPTH_MOST = 16 -- of tables that are handed over

-- Never by methods where a box may run: those of strings are the box's then.
local format, sub, gsub, find = string.format, string.sub, string.gsub, string.find
local metatable_of_strings = getmetatable ""
local host = package.loaded["moonrock.host"]

local inside -- the box whose code runs; nil: the host's
local outer_strings -- the __index of strings outside of all boxes
local guard -- limits under way: { left =, ends =, most =, problem = }

local function switch(box)
  inside = box
  metatable_of_strings.__index = box and box.strings or outer_strings
end

-- ---- limits ------------------------------------------------------------------------------------

local function exceed(g, problem)
  g.problem = g.problem or problem
  error(g.problem, 0)
end

-- Ends the box's code, never the host's: as long as that runs, each step is looked at.
local function look()
  local g = guard
  if not g then return end
  g.left = g.left - EVERY
  if g.problem or g.left < 0 then
    g.problem = g.problem or format("%s: took more than %.0f steps", g.subject, g.limits.steps)
  elseif C.mr_clock() > g.ends then
    g.problem = format("%s: took more than %.0f seconds", g.subject, g.limits.seconds)
  elseif collectgarbage "count" > g.most then
    collectgarbage()
    if collectgarbage "count" < g.most then return end
    g.problem = format("%s: took more than %.0f MB of Lua's memory", g.subject, g.limits.bytes / 1e6)
  else
    return
  end
  local running = debug.getinfo(2, "f")
  if inside and running and getfenv(running.func) == inside.env then error(g.problem, 0) end
  debug.sethook(look, "", 1)
end

jit.off(look)

local function spend(steps)
  local g = guard
  if not g then return end
  g.left = g.left - steps
  if g.left < 0 then exceed(g, format("%s: took more than %.0f steps", g.subject, g.limits.steps)) end
end

local function begin(box)
  local limits = LIMITS[box.phase]
  guard = { limits = limits, subject = box.subject, left = limits.steps, ends = C.mr_clock() + limits.seconds,
    most = collectgarbage "count" + limits.bytes / 1024, hook = { debug.gethook() } }
  if host then host.limit_memory(2 * limits.bytes) end
  debug.sethook(look, "", EVERY)
end

local function finish()
  if host then host.limit_memory() end
  debug.sethook(unpack(guard.hook))
  guard = nil
end

-- ---- what passes -------------------------------------------------------------------------------

local out, into -- of one value

local function out_all(box, n, a, ...)
  if n == 0 then return end
  if n == 1 then return out(box, a) end
  return out(box, a), out_all(box, n - 1, ...)
end

local function into_all(box, n, a, ...)
  if n == 0 then return end
  if n == 1 then return into(box, a) end
  return into(box, a), into_all(box, n - 1, ...)
end

-- An error as text without control characters: what a box throws may be made to be run or shown.
local function clean(box, e)
  if type(e) ~= "string" then return format("%s: its code raised a %s", box.subject, type(e)) end
  return (gsub(sub(e, 1, 2000), "[%z\1-\8\11-\31\127]", "?"))
end

local function left(box, was, mine, depth, ok, ...)
  switch(was)
  box.nest.depth = depth
  local problem = guard and guard.problem
  if mine then finish() end
  if not ok or problem then error(clean(box, problem or (...)), 0) end
  return into_all(box, select("#", ...), ...)
end

-- Calls a function of the box with values of the host; returns values of the host.
local function enter(box, f, ...)
  local was = inside
  if not was and not guard then outer_strings = metatable_of_strings.__index end
  local mine = not guard and not (box.fast and box.phase == "batch")
  if mine then begin(box) end
  switch(box)
  return left(box, was, mine, box.nest.depth, pcall(f, ...))
end

local function back(box, ...)
  switch(box)
  return out_all(box, select("#", ...), ...)
end

-- A function of the host for the box; `pass` hands its arguments over in another way than `into`.
local function crossing(box, f, pass)
  local made = box.crossings[f]
  if made then return made end
  made = function(...)
    if inside ~= box then error("a function of a box is called from outside of it", 0) end
    switch(nil)
    return back(box, f((pass or into_all)(box, select("#", ...), ...)))
  end
  box.crossings[f], box.originals[made] = made, f
  return made
end

-- A function of the box for the host.
local function guarded(box, f)
  local made = box.guards[f]
  if made then return made end
  made = function(...) return enter(box, f, out_all(box, select("#", ...), ...)) end
  box.guards[f] = made
  return made
end

-- A copy of a plain table; `hand` is what its values go through.
local function copied(box, t, hand, depth)
  if depth > DEPTH_MOST then error("tables are nested too deeply", 0) end
  local copy = {}
  for key, value in next, t do
    if type(key) ~= "string" and type(key) ~= "number" then error("a key is no text or number", 0) end
    if type(value) == "function" and hand == into then
      error(format("%s: a function is not expected here", tostring(key)), 0)
    end
    copy[key] = hand(box, value, depth)
  end
  return copy
end

--- A proxy of an object of the host.
local function proxy(box, object, class)
  local p = box.proxies[object]
  if p then return p end
  p = setmetatable({}, class)
  box.proxies[object], box.real[p] = p, object
  return p
end

local is_view -- whether cdata is a checked array (moonrock.view)

out = function(box, value, depth)
  local kind = type(value)
  if kind == "function" then return box.originals[value] and value or crossing(box, value) end
  if kind == "cdata" and is_view(value) then return value end
  if kind == "cdata" or kind == "userdata" or kind == "thread" then
    error(format("a %s of the host is nothing for a store's code", kind), 0)
  end
  if kind ~= "table" then return value end
  local class = box.classes[getmetatable(value) or false]
  if class then return proxy(box, value, class) end
  if box.class_of then
    class = box.class_of(value)
    if class then return proxy(box, value, class) end
  end
  if getmetatable(value) ~= nil then return proxy(box, value, box.opaque) end
  return copied(box, value, out, (depth or 0) + 1)
end

into = function(box, value, depth)
  local kind = type(value)
  if kind == "table" then
    local object = box.real[value]
    if object ~= nil then return object end
    return copied(box, value, into, (depth or 0) + 1)
  elseif kind == "function" then
    return box.originals[value] or guarded(box, value)
  elseif kind == "cdata" and is_view(value) then
    return value
  elseif kind == "cdata" or kind == "userdata" or kind == "thread" then
    error(format("a %s is not expected here", kind), 0)
  end
  return value
end

do
  local view
  is_view = function(value)
    if view == nil then
      local ok, found = pcall(require, "moonrock.view")
      view = ok and found
    end
    if not view then return false end
    local istype = require("ffi").istype
    return istype(view.float, value) or istype(view.double, value) or istype(view.constant, value)
  end
end

-- ---- boxes -------------------------------------------------------------------------------------

local Box = {}
Box.__index = Box

--- A box without code.
---@param subject string what errors of limits begin with
---@param fast boolean its code is compiled, and each batch may take as long as it takes
---@return table
function sandbox.new(subject, fast)
  local weak = { __mode = "k" }
  local box = setmetatable({ subject = subject, fast = fast, phase = "build", chunks = {}, classes = {},
    crossings = setmetatable({}, weak), originals = setmetatable({}, weak), guards = setmetatable({}, weak),
    real = setmetatable({}, weak),
    proxies = setmetatable({}, { __mode = "kv" }) }, Box)
  local function after(ok, ...)
    switch(box) -- it may be an error of the host that was caught
    if guard and guard.problem then error(guard.problem, 0) end
    return ok, ...
  end
  box.env, box.nest = safe.environment(spend, function(f, ...) return after(pcall(f, ...)) end)
  box.strings = box.env.string
  box.opaque = box:class(nil, {})
  return box
end

--- The metatable of the proxies of a class: methods and operators of the host's metatable by name, fields
--- to read.
---@param of table|nil the host's metatable
---@param spec table { methods =, operators =, fields =, rows = true: every field that is a text }
---@return table
function Box:class(of, spec)
  local methods, fields = {}, {}
  for _, name in ipairs(spec.methods or {}) do methods[name] = of[name] and crossing(self, of[name]) end
  for _, name in ipairs(spec.fields or {}) do fields[name] = true end
  local rows, real, box = spec.rows, self.real, self
  local class = { __metatable = false, __tostring = function() return "object" end }
  local function read(object, key)
    switch(nil)
    return back(box, object[key])
  end
  function class.__index(p, key)
    local object = real[p]
    if object == nil or type(key) ~= "string" then return nil end
    if fields[key] or rows then return read(object, key) end
    return methods[key]
  end
  function class.__newindex() error("objects of moonrock are read only", 2) end
  for _, name in ipairs(spec.operators or {}) do class[name] = of[name] and crossing(box, of[name]) end
  if of then self.classes[of] = class end
  return class
end

--- A function of the host for the box to call. With `raw`, its arguments are the box's own values.
---@param f function
---@param pass? function
---@return function
function Box:host(f, pass) return crossing(self, f, pass) end

--- Stands in the box for an object of the host.
function Box:proxy(object, class) return proxy(self, object, class) end

--- The host's value behind one of the box.
function Box:into(value) return into(self, value) end
function Box:out(value) return out(self, value) end

sandbox.into_all = into_all

--- Calls a function of the box with values of the box; returns values of the host.
function Box:raw(f, ...) return enter(self, f, ...) end

local function compile(box, text, name)
  if type(text) ~= "string" then error(format("%s: its code is a %s", box.subject, type(text)), 0) end
  if #text > SOURCE_MOST then
    error(format("%s: %s has %d bytes; a store's code may have up to %.0f", box.subject, name, #text,
      SOURCE_MOST), 0)
  end
  if find(text, "^[\239\187\191]*\27") then
    error(format("%s: %s is byte code, expected Lua text", box.subject, name), 0)
  end
  -- No file is called so: errors show where, nothing is read there.
  local chunk, problem = loadstring(text, "=" .. sub(gsub(tostring(name), "[^%w_./-]", "?"), 1, 50), "t")
  if not chunk then error(clean(box, problem), 0) end
  jit.off(chunk, true)
  box.chunks[#box.chunks + 1] = chunk
  return setfenv(chunk, box.env)
end

--- Runs text in the box, and returns what it returns as the box sees it.
function Box:run(text, name)
  local chunk, result = compile(self, text, name), nil
  enter(self, function() result = chunk() end)
  return result
end

--- The same, called from inside: for `require`.
function Box:load(text, name) return compile(self, text, name)() end

--- It is built: from here on the limits are those of a batch.
function Box:built()
  self.phase = "batch"
  if not self.fast then return end
  for _, chunk in ipairs(self.chunks) do jit.on(chunk, true) end
end

return sandbox

--- Checked arrays: what user code gets in the place of a pointer. A view is v[0 .. #v - 1] of floats or
-- doubles somewhere in C. A place outside of it is an error at the user's line, and so is any use once the
-- step or call that it was made for is over; it costs a compiled loop a comparison an element.
--
-- A view is { pointer, count, counter, value }: it is good while *counter == value. Counters are never freed
-- (runtime/base/generation.c). Their members have names that are drawn anew in each process, so that code
-- which has no `ffi` does not get at the pointer. `v + n` is what begins n places further on.
local ffi = require "ffi"
local C = require "moonrock.ffi"
local err = require "moonrock.error"

local view = {}

local function drawn()
  local random = io.open("/dev/urandom", "rb")
  local bytes = random and random:read(16) or tostring({}) .. C.mr_clock()
  if random then random:close() end
  return "_" .. bytes:gsub(".", function(byte) return ("%02x"):format(byte:byte()) end)
end

local secret = drawn()
local POINTER, COUNT = "p" .. secret, "n" .. secret
local COUNTER, VALUE = "c" .. secret, "v" .. secret

-- What runs now: a user's function, whose views are good while the counter has its number.
local running = ffi.new "double[1]"
local numbers = 0
-- Of the functions that are under way, the innermost last: what they are called, and what must stay alive.
local subjects, owners = {}, {} -- luacheck: ignore owners
local depth = 0

local function refuse(v, i)
  local subject = depth > 0 and subjects[depth] or "array"
  if v[COUNTER][0] ~= v[VALUE] then
    err.raise("%s: an array is used after the call or step that it was good for; copy what is to be kept",
      subject)
  end
  if type(i) ~= "number" then err.raise("%s: an array has no %s", subject, err.show(i)) end
  err.raise("%s: place %.14g of an array of %d, whose places are 0 to %d", subject, i, v[COUNT], v[COUNT] - 1)
end

local function read(v, i)
  if type(i) ~= "number" or not (i >= 0 and i < v[COUNT]) or v[COUNTER][0] ~= v[VALUE] then refuse(v, i) end
  return v[POINTER][i]
end

local function write(v, i, value)
  if type(i) ~= "number" or not (i >= 0 and i < v[COUNT]) or v[COUNTER][0] ~= v[VALUE] then refuse(v, i) end
  if type(value) ~= "number" then err.raise("an array of numbers: place %d is given a %s", i, type(value)) end
  v[POINTER][i] = value
end

local function count(v) return v[COUNT] end

local function show(v) return ("array of %d numbers"):format(v[COUNT]) end

local function kind(element, assign)
  local struct = ffi.typeof(("struct { %s *%s; int32_t %s; const double *%s; double %s; }"):format(element,
    POINTER, COUNT, COUNTER, VALUE))
  local function behind(v, n)
    if type(v) ~= "cdata" then v, n = n, v end
    if type(n) ~= "number" or not (n >= 0 and n <= v[COUNT] and n % 1 == 0) then refuse(v, n) end
    local rest = struct()
    rest[POINTER], rest[COUNT] = v[POINTER] + n, v[COUNT] - n
    rest[COUNTER], rest[VALUE] = v[COUNTER], v[VALUE]
    return rest
  end
  return ffi.metatype(struct, { __index = read, __newindex = assign, __add = behind, __len = count,
    __tostring = show })
end

view.float, view.double = kind("float", write), kind("double", write)
view.constant = kind("const float", function()
  err.raise("array: the elements of a tensor are read only")
end)

--- Points a view at n numbers, which it is good for while *counter is `value`.
---@param v ffi.cdata* of view.float, view.double or view.constant
---@param pointer ffi.cdata*
---@param n integer
---@param counter ffi.cdata* const double *, never freed
---@param value number
function view.set(v, pointer, n, counter, value)
  v[COUNTER], v[VALUE], v[POINTER], v[COUNT] = counter, value, pointer, pointer ~= nil and n or 0
  return v
end

--- The same, good until the user's function under way has returned.
function view.point(v, pointer, n) return view.set(v, pointer, n, running, running[0]) end

--- The pointer and count of a view that is good; nil of anything else.
---@return ffi.cdata*|nil
---@return integer|nil
function view.pointer(v)
  if not (ffi.istype(view.float, v) or ffi.istype(view.constant, v)) then return nil end
  if v[COUNTER][0] ~= v[VALUE] then refuse(v, 0) end
  return v[POINTER], v[COUNT]
end

--- Before and after a user's function is called with views: `enter` returns what `leave` is given. The
--- owner of the memory stays alive meanwhile.
---@param subject string such as "operation swish"
---@param owner any
function view.enter(subject, owner)
  local before = running[0]
  numbers = numbers + 1
  running[0] = numbers
  depth = depth + 1
  subjects[depth], owners[depth] = subject, owner
  return before
end

---@param before number
function view.leave(before)
  running[0] = before
  subjects[depth], owners[depth] = nil, nil
  depth = depth - 1
end

--- What runs now, or nil: a user's operation or optimizer, inside of which nothing may change that it
--- works on.
---@return string|nil
function view.running() return depth > 0 and subjects[depth] or nil end

return view

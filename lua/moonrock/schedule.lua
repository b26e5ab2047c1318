--- Schedules: the learning rate as a factor f(t) of the one that an optimizer was made with; t is the
-- number of steps before, 0 at the first. A pure function of the step, so a run that is resumed goes on
-- to the bit. As text, which a store keeps: "cosine(1000)", "warmup(100, step(500, 0.5))".
local err = require "moonrock.error"

local schedule = {}

---@class Schedule
---@field at fun(t: integer): number
local Schedule = {}
Schedule.__index = Schedule

function Schedule.__tostring(self) return self.text end

--- A factor that leaves nothing of a learning rate.
Schedule.NOTHING = 1e-10

--- Whether nothing is left of the learning rate from step t on.
---@param t integer
---@return boolean
function Schedule:over(t)
  for _, later in ipairs { 0, 1, 7, 100, 1e4, t, 10 * t } do
    if self.at(t + later) >= Schedule.NOTHING then return false end
  end
  return true
end

local function is(value) return getmetatable(value) == Schedule end

-- name -> function of the arguments, after they were checked; and what they are called with their
-- defaults, in order. "steps" and "every" are whole numbers from 1.
local MAKE, ARGUMENTS = {}, {}

local function make(name, ...)
  local parameters, given, shown = ARGUMENTS[name], { ... }, {}
  if #given > #parameters then
    err.raise("schedule %s: %d arguments, expected at most %d", name, #given, #parameters)
  end
  for i, p in ipairs(parameters) do
    local value = given[i]
    if value == nil then value = p[2] end
    if p[1] == "after" then
      value = schedule.of(value)
    elseif type(value) ~= "number" or value ~= value or value < 0 or value == math.huge then
      err.raise("schedule %s: %s is %s, expected a number from 0", name, p[1], tostring(value))
    elseif (p[1] == "steps" or p[1] == "every") and (value < 1 or value % 1 ~= 0) then
      err.raise("schedule %s: %s is %g, expected a whole number from 1", name, p[1], value)
    end
    given[i] = value
    shown[i] = is(value) and value.text or ("%.17g"):format(value)
    local short = not is(value) and ("%.14g"):format(value)
    if short and tonumber(short) == value then shown[i] = short end
  end
  return setmetatable({ text = ("%s(%s)"):format(name, table.concat(shown, ", ")),
    at = MAKE[name](unpack(given)) }, Schedule)
end

local function define(name, parameters, f)
  MAKE[name], ARGUMENTS[name] = f, parameters
  return function(...) return make(name, ...) end
end

--- f = factor.
---@param factor? number 1
schedule.constant = define("constant", { { "factor", 1 } }, function(factor)
  return function() return factor end
end)

--- f = factor ^ floor(t / every).
---@param every integer steps
---@param factor? number 0.1
schedule.step = define("step", { { "every" }, { "factor", 0.1 } }, function(every, factor)
  return function(t) return factor ^ math.floor(t / every) end
end)

--- f = factor ^ (t / steps).
---@param steps integer
---@param factor? number 0.1
schedule.exponential = define("exponential", { { "steps" }, { "factor", 0.1 } }, function(steps, factor)
  return function(t) return factor ^ (t / steps) end
end)

--- f = exp(-rate t / steps).
---@param steps integer
---@param rate? number 1
schedule.natural_exponential = define("natural_exponential", { { "steps" }, { "rate", 1 } },
  function(steps, rate)
    return function(t) return math.exp(-rate * t / steps) end
  end)

--- f = 1 / (1 + rate t / steps). Robbins and Monro, 1951: its sum has no limit, that of its squares has.
---@param steps integer
---@param rate? number 1
schedule.inverse_time = define("inverse_time", { { "steps" }, { "rate", 1 } }, function(steps, rate)
  return function(t) return 1 / (1 + rate * t / steps) end
end)

--- f = last + (1 - last) (1 - t / steps) ^ power, from `steps` on last.
---@param steps integer
---@param last? number 0
---@param power? number 1
schedule.polynomial = define("polynomial", { { "steps" }, { "last", 0 }, { "power", 1 } },
  function(steps, last, power)
    return function(t) return last + (1 - last) * (1 - math.min(t / steps, 1)) ^ power end
  end)

-- From a to b by half a cosine, x from 0 to 1.
local function half_cosine(a, b, x)
  return b + (a - b) * (1 + math.cos(math.pi * math.min(x, 1))) / 2
end

--- f = last + (1 - last) (1 + cos(pi t / steps)) / 2, from `steps` on last. Loshchilov and Hutter, 2017,
--- without restarts.
---@param steps integer
---@param last? number 0
schedule.cosine = define("cosine", { { "steps" }, { "last", 0 } }, function(steps, last)
  return function(t) return half_cosine(1, last, t / steps) end
end)

--- f = (alpha + 1 - x) (1 + cos(2 pi periods x)) / 2 + beta with x = t / steps, at most 1. Bello et al.,
--- 2017.
---@param steps integer
---@param periods? number 0.5
---@param alpha? number 0
---@param beta? number 0.001
schedule.linear_cosine = define("linear_cosine",
  { { "steps" }, { "periods", 0.5 }, { "alpha", 0 }, { "beta", 0.001 } },
  function(steps, periods, alpha, beta)
    return function(t)
      local x = math.min(t / steps, 1)
      return (alpha + 1 - x) * (1 + math.cos(2 * math.pi * periods * x)) / 2 + beta
    end
  end)

--- f = first + (1 - first) (t + 1) / steps, 1 at the last of so many steps; then `after`, whose t begins
--- at 0 there. Goyal et al., 2017.
---@param steps integer
---@param after? Schedule|string constant
---@param first? number 0
schedule.warmup = define("warmup", { { "steps" }, { "after", "constant" }, { "first", 0 } },
  function(steps, after, first)
    return function(t)
      if t < steps then return first + (1 - first) * (t + 1) / steps end
      return after.at(t - steps)
    end
  end)

--- From `first` to 1 in the part `rise` of the steps, then to `last`, each by half a cosine; the learning
--- rate of the optimizer is the largest. Smith and Topin, 2019.
---@param steps integer
---@param rise? number 0.3
---@param first? number 0.04
---@param last? number 4e-6
schedule.one_cycle = define("one_cycle",
  { { "steps" }, { "rise", 0.3 }, { "first", 0.04 }, { "last", 4e-6 } },
  function(steps, rise, first, last)
    local top = steps * math.min(rise, 1)
    return function(t)
      if t < top then return half_cosine(first, 1, t / top) end
      return half_cosine(1, last, top < steps and (t - top) / (steps - top) or 1)
    end
  end)

-- ---- text ------------------------------------------------------------------------------------

local function names()
  local list = {}
  for name in pairs(MAKE) do list[#list + 1] = name end
  table.sort(list)
  return table.concat(list, ", ")
end

-- NAME or NAME(ARGUMENT, ...) from a place on, an argument a number or a schedule. Returns it and the
-- place behind.
local function parse(text, at)
  local name, behind = text:match("^%s*([%a_][%w_]*)%s*()", at)
  if not name then err.raise("schedule %q: expected a name at %q", text, text:sub(at)) end
  if not MAKE[name] then
    err.raise("schedule %q: %q is unknown, expected one of %s", text, name, names())
  end
  local arguments = {}
  at = behind
  local open = text:match("^%(%s*()", at)
  if open then
    at = open
    repeat
      local number, after = text:match("^([-+.%d][-+.%w]*)%s*()", at)
      if number then
        arguments[#arguments + 1] = tonumber(number)
          or err.raise("schedule %q: %q is no number", text, number)
        at = after
      else
        arguments[#arguments + 1], at = parse(text, at)
      end
      local comma = text:match("^,%s*()", at)
      at = comma or at
    until not comma
    at = text:match("^%)%s*()", at)
      or err.raise("schedule %q: expected , or ) at %q", text, text:sub(at))
  end
  return make(name, unpack(arguments)), at
end

--- A schedule from its text; one that is given is returned.
---@param value Schedule|string
---@return Schedule
function schedule.of(value)
  if is(value) then return value end
  if type(value) ~= "string" then
    err.raise('expected a schedule such as mr.schedule.cosine(1000) or "cosine(1000)", got %s', type(value))
  end
  local made, at = parse(value, 1)
  if at <= #value then err.raise("schedule %q: %q stands behind its end", value, value:sub(at)) end
  return made
end

return schedule

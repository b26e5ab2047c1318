--- Element-wise operations from a function of numbers: it is called once, with symbols, and what it does
-- with them becomes a list of steps that C runs over blocks of elements (runtime/tensor/op_element.c), whose
-- gradient is derived.
local ffi = require "ffi"
local C = require "moonrock.ffi"
local err = require "moonrock.error"

local element = {}

local Symbol = {}
Symbol.__index = Symbol
element.Symbol = Symbol

local recorded -- the steps of the function that is being called

local function record(op, a, b, value)
  if #recorded == C.MR_ELEMENT_STEPS then
    err.raise("it takes more than %d steps", C.MR_ELEMENT_STEPS)
  end
  recorded[#recorded + 1] = { op = op, a = a, b = b, value = value }
  return setmetatable({ step = #recorded - 1 }, Symbol)
end

local function step_of(x)
  if getmetatable(x) == Symbol then return x.step end
  if type(x) ~= "number" then err.raise("expected its arguments and numbers, got a %s", type(x)) end
  return record(C.MR_ELEMENT_CONSTANT, 0, 0, x).step
end

local function of_two(op)
  return function(a, b)
    local x, y = step_of(a), step_of(b)
    return record(op, x, y, 0)
  end
end

local function of_one(op)
  return function(a) return record(op, a.step, a.step, 0) end
end

Symbol.__add, Symbol.__sub = of_two(C.MR_ELEMENT_ADD), of_two(C.MR_ELEMENT_SUB)
Symbol.__mul, Symbol.__div = of_two(C.MR_ELEMENT_MUL), of_two(C.MR_ELEMENT_DIV)
Symbol.max, Symbol.min = of_two(C.MR_ELEMENT_MAX), of_two(C.MR_ELEMENT_MIN)
Symbol.exp, Symbol.log = of_one(C.MR_ELEMENT_EXP), of_one(C.MR_ELEMENT_LOG)
Symbol.sqrt = of_one(C.MR_ELEMENT_SQRT)
Symbol.abs, Symbol.relu = of_one(C.MR_ELEMENT_ABS), of_one(C.MR_ELEMENT_RELU)
Symbol.sigmoid, Symbol.tanh = of_one(C.MR_ELEMENT_SIGMOID), of_one(C.MR_ELEMENT_TANH)
function Symbol.__unm(a) return 0 - a end

--- The steps of a function of one to four numbers, and how many numbers.
---@param f function
---@return ffi.cdata* const mr_element_step *
---@return integer steps
---@return integer inputs
function element.trace(f)
  local inputs = debug.getinfo(f, "u").nparams
  if inputs < 1 or inputs > 4 then err.raise("element takes %d arguments, expected 1 to 4", inputs) end
  recorded = {}
  local symbols = {}
  for i = 1, inputs do symbols[i] = record(C.MR_ELEMENT_INPUT, i - 1, i - 1, 0) end
  local result = step_of(f(unpack(symbols)))
  if result ~= #recorded - 1 or result < inputs then record(C.MR_ELEMENT_ADD, result, step_of(0), 0) end
  local steps = ffi.new("mr_element_step[?]", #recorded)
  for i, s in ipairs(recorded) do
    steps[i - 1].op, steps[i - 1].a, steps[i - 1].b, steps[i - 1].value = s.op, s.a, s.b, s.value
  end
  return steps, #recorded, inputs
end

return element

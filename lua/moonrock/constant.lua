--- Tensors from numbers: `mr.tensor { { 1, 2 }, { 3, 4 } }`. They are recorded where the model at hand is;
-- where none is, as at the prompt, they and what is computed of them stay on a tape of their own until they
-- are very many.
local C = require "moonrock.ffi"
local err = require "moonrock.error"
local handle = require "moonrock.handle"
local tape = require "moonrock.tape"

local MOST = 100000 -- tensors outside of a model, then their tape begins anew

-- The shape of nested lists, by their first elements.
local function shape_of(values)
  local shape = {}
  while type(values) == "table" do
    shape[#shape + 1] = #values
    values = values[1]
  end
  return shape
end

-- Appends the numbers of nested lists of a shape.
local function flatten(values, shape, axis, list)
  if axis > #shape then
    if type(values) ~= "number" then err.raise("mr.tensor: expected numbers, got %s", err.show(values)) end
    list[#list + 1] = values
    return
  end
  if type(values) ~= "table" or #values ~= shape[axis] then
    err.raise("mr.tensor: lists of one length were expected, got %s beside one of %d",
      type(values) == "table" and "one of " .. #values or err.show(values), shape[axis])
  end
  for i = 1, #values do flatten(values[i], shape, axis + 1, list) end
end

local scratch

local function ensure_tape()
  local t = tape.current
  if t and t ~= scratch and not handle.closed(t) then return end
  scratch = scratch or tape.new()
  if t ~= scratch or C.mr_tape_nodes(scratch.c) >= MOST then scratch:begin(true, 1) end
end

--- A tensor from numbers: mr.tensor { 1, 2 } is [2], mr.tensor { { 1, 2, 3 }, { 4, 5, 6 } } is [2, 3]; or by
--- shape, mr.tensor({ 2, 3 }, { 1, 2, 3, 4, 5, 6 }). In a model's function it lasts until the step is over.
---@param values table nested lists of numbers, up to four deep; or the shape
---@param list? number[]|ffi.cdata* after a shape: its numbers, row-major; double[]
---@param wants_grad? boolean its gradient is kept, for tensor:gradient(index)
---@return Tensor
local function tensor(values, list, wants_grad)
  local shape = values
  if list == nil then
    shape = type(values) == "table" and not getmetatable(values) and shape_of(values) or {}
    if #shape < 1 or #shape > 4 or shape[#shape] == 0 then
      err.raise("mr.tensor: expected lists of numbers, one to four deep, got %s", err.show(values))
    end
    list = {}
    flatten(values, shape, 1, list)
  end
  ensure_tape()
  return tape.tensor(shape, list, wants_grad)
end

return tensor

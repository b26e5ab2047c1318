--- Params: dense weights with their optimizer (runtime/tensor/param.c). A Param is used as a tensor; its
-- gradient is kept until the model's next step.
local ffi = require "ffi"
local C = require "moonrock.ffi"
local clip = require "moonrock.clip"
local err = require "moonrock.error"
local initializer = require "moonrock.initializer"
local optim = require "moonrock.optim"
local show = require "moonrock.show"
local tape = require "moonrock.tape"

---@class Param: Tensor
---@field name string
---@field shape integer[]
local Param = {}
Param.__index = Param
Param.kind = "param"

---@class ParamOptions
---@field init? table|string zeros; "label": of a bias, the best constant (see moonrock.start)
---@field optim? table
---@field trainable? boolean false: a buffer, saved but not optimized
---@field clip_each? number bound of the gradient's norm; see moonrock.clip

--- Makes a param; models do, by `m:param(name, shape, options)`.
---@param name string
---@param seed integer|ffi.cdata* with the name it decides the fresh weights
---@param shape integer[] one to four dimensions
---@param options? ParamOptions
---@return Param
---@private
function Param.new(name, seed, shape, options)
  local o = options or {}
  if type(shape) ~= "table" or #shape < 1 or #shape > 4 then
    err.raise("param %q: expected a shape of 1 to 4 dimensions, as { 16, 1 }", name)
  end
  for i = 1, #shape do
    local d = shape[i]
    if type(d) ~= "number" or d < 1 or d % 1 ~= 0 then
      err.raise("param %q: dimension %d is %s, expected a whole number from 1", name, i,
        err.show(d))
    end
  end
  local count = 1
  for i = 1, #shape do count = count * shape[i] end
  local init, rule = ffi.new "mr_init", ffi.new "mr_optim"
  local subject = ("param %q"):format(name)
  local optimizer = err.call(subject, optim.over, o.optim, "adam")
  local from_label = err.call(subject, initializer.write, o.init, init, shape)
  err.call(subject, optim.write, optimizer, rule)
  local trainable = o.trainable ~= false
  local c = err.check(C.mr_param_new(name, seed, ffi.new("int32_t[?]", #shape, shape), #shape, init,
    rule, trainable and 1 or 0))
  return setmetatable({ c = ffi.gc(c, C.mr_param_free), name = name, shape = shape,
    clip_each = clip.check(("param %q"):format(name), "clip_each", o.clip_each),
    update = trainable and optim.in_lua(optimizer) and optim.param_update(optimizer, count),
    trainable = trainable, from_label = from_label, base_lr = rule.lr, tape = false, generation = -1,
    id = -1 }, Param)
end

-- The param's node on a tape, one a step.
---@private
function Param:lift(t)
  if self.tape == t and self.generation == t.generation then return self.id end
  if self.tape ~= t then t.kept[self] = true end -- the tape reads and writes its numbers
  local id = C.mr_tape_param(t.c, self.c)
  if id < 0 then err.check(id) end
  self.tape, self.generation, self.id = t, t.generation, id
  return id
end

--- Lets a tensor stand for the param until the step is over, as mr.gradcheck does.
---@param tensor Tensor
---@private
function Param:bind(tensor)
  self.tape, self.generation, self.id = tensor.tape, tensor.tape.generation, tensor.id
end

--- One weight, by its place in row-major order, from 1.
---@param index integer
---@return number
function Param:weight(index)
  local count = tonumber(C.mr_param_count(self.c))
  if type(index) ~= "number" or not (index >= 1 and index <= count) then
    err.raise("param %q: weight %s, expected a number from 1 to %d", self.name, tostring(index), count)
  end
  return C.mr_param_data(self.c)[index - 1]
end

---@return integer number of weights
function Param:size()
  local n = 1
  for i = 1, #self.shape do n = n * self.shape[i] end
  return n
end

--- Scales the learning rate by a factor of the one it was made with.
---@param factor number
---@private
function Param:scale_lr(factor)
  C.mr_param_optim(self.c).lr = self.base_lr * factor
end

--- Weights and optimizer state as bytes, for a store.
---@return string
---@private
function Param:save()
  return ffi.string(C.mr_param_bytes(self.c), C.mr_param_len(self.c))
end

---@param bytes string
---@private
function Param:load(bytes)
  if type(bytes) ~= "string" then
    err.raise("param %q: load: expected bytes, got a %s", self.name, type(bytes))
  end
  err.check(C.mr_param_load(self.c, bytes, #bytes))
end

function Param:__tostring()
  return ("param %q %s"):format(self.name, show.shape(self.shape))
    .. show.array(function(i) return self:weight(i + 1) end, self.shape)
end

tape.operators(Param)
return Param

--- The tape: tensors as handles on nodes in C (runtime/tensor/tape.c), with Lua's operators, and
-- operations that users write.
--
-- A handle is { tape, id, generation }. A tape counts its steps as generations and keeps the
-- handles of the last 16, to use them again: a steady step makes none. A handle that is used after
-- its step raises an error; one that was kept for 16 steps or more may be in use again.
local ffi = require "ffi"
local C = require "moonrock.ffi"
local element = require "moonrock.element"
local err = require "moonrock.error"
local handles = require "moonrock.handle"
local show = require "moonrock.show"
local view = require "moonrock.view"

local tape = {
  current = nil, ---@type Tape? the tape that params and tables record on
}

local GENERATIONS = 16
local DONE = -2

---@class Tape
local Tape = {}
Tape.__index = Tape

---@class Tensor
---@field tape Tape
---@field id integer node on the tape
---@operator add(Tensor|number): Tensor
---@operator sub(Tensor|number): Tensor
---@operator mul(Tensor|number): Tensor
---@operator div(Tensor|number): Tensor
---@operator unm: Tensor
local Tensor = {}
Tensor.__index = Tensor

---@class TapeOptions
---@field seed? integer of dropout; 0
---@field real? integer 4: floats; 8: doubles, to check gradients with

--- A tape of its own; models make theirs.
---@param options? TapeOptions
---@return Tape
function tape.new(options)
  local o = options or {}
  local c = err.check(C.mr_tape_new(o.seed or 0, o.real or 4))
  local self = setmetatable({ c = ffi.gc(c, C.mr_tape_free), generation = 0, handles = nil,
    rings = {}, users = {}, kept = {}, busy = false,
    pointer = ffi.typeof(o.real == 8 and "double *" or "float *"),
    array = o.real == 8 and view.double or view.float, counter = C.mr_tape_generation(c) }, Tape)
  for i = 1, GENERATIONS do self.rings[i] = {} end
  self.handles = self.rings[1]
  return self
end

-- A user's operation works on the tape while it runs.
local function idle(self, what)
  if self.busy then
    err.raise("tape: %s inside of %s, which works on it; do that before or after", what, self.busy)
  end
end

local function next_generation(self)
  self.generation = self.generation + 1
  self.handles = self.rings[self.generation % GENERATIONS + 1]
end

--- Ends the step under way and begins another; what is recorded next goes to this tape.
---@param training boolean
---@param step integer from 1; with the seed it decides dropout
function Tape:begin(training, step)
  if type(step) ~= "number" then err.raise("tape: begin: expected a step, got a %s", type(step)) end
  idle(self, "a step is begun")
  C.mr_tape_begin(self.c, training and 1 or 0, step)
  next_generation(self)
  tape.current = self
end

--- Ends the step: its tensors must not be used any more.
function Tape:reset()
  idle(self, "the step is ended")
  C.mr_tape_reset(self.c)
  next_generation(self)
end

--- Frees it now.
function Tape:free()
  idle(self, "it is freed")
  next_generation(self)
  if tape.current == self then tape.current = nil end
  handles.close(self, self.owner and self.owner.subject .. ": it was closed, and its tapes with it"
    or "tape: it was freed; make another one", C.mr_tape_free)
end

-- The handle of a node, or the error of a failed one; in a layer, `linear "deep.1"`, it is the layer's.
local function handle(t, id, layer)
  if id < 0 then
    if not layer then err.check(id) end
    err.raise("%s: %s", layer, (ffi.string(C.mr_error()):gsub("^[%w_]+: ", "", 1)))
  end
  local h = t.handles[id + 1]
  if h then
    h.generation = t.generation
    return h
  end
  h = setmetatable({ tape = t, id = id, generation = t.generation }, Tensor)
  t.handles[id + 1] = h
  return h
end
tape.handle = handle

local function stale()
  err.raise("tensor: it was computed in a step that is over; compute it again")
end

local function two_tapes(t, other, operation)
  local a, b = t.owner, other.owner
  if a and b and a ~= b then
    err.raise("%s: tensors of two models, %s and %s", operation, a.name, b.name)
  elseif a and b then
    err.raise("%s: a tensor of %s's training and one of its evaluation", operation, a.subject)
  end
  err.raise("%s: tensors of two tapes", operation)
end

local function describe(x)
  if handles.closed(x) then return handles.closed(x) end
  local meta = getmetatable(x)
  if type(meta) == "table" and meta.kind then return meta.kind end
  if type(x) == "table" and x.c and x.label then return "batch; look its keys up in a table first" end
  return type(x)
end

-- The tape of an operation on a (and b).
local function tape_of(a, b)
  if getmetatable(a) == Tensor then return a.tape end
  if getmetatable(b) == Tensor then return b.tape end
  local t = tape.current
  if not t then err.raise("tensor: no tape records; call the model, or tape:begin()") end
  return t
end
tape.of = tape_of

-- The node that x is on tape t: a tensor, a param, a number, batch.label, batch.weight or
-- batch:keys(field).
local function node(t, x, operation)
  if getmetatable(x) == Tensor then
    if x.generation ~= x.tape.generation then stale() end
    if x.tape ~= t then two_tapes(t, x.tape, operation) end
    local number = x.id
    if type(number) ~= "number" or not (number >= 0) then err.raise("%s: this is no tensor", operation) end
    return number
  end
  local id
  if type(x) == "number" then
    id = C.mr_tape_constant(t.c, x)
  elseif type(x) == "table" and x.lift then
    id = x:lift(t, operation)
  elseif type(x) == "table" and x.batch and x.name == "label" then
    id = C.mr_tape_label(t.c, x.batch.c)
  elseif type(x) == "table" and x.batch and x.name == "weight" then
    id = C.mr_tape_weight(t.c, x.batch.c)
  elseif type(x) == "table" and x.batch and x.name == "keys" then
    id = C.mr_tape_keys(t.c, x.batch.c, x.field)
  else
    err.raise("%s: expected a tensor, got a %s", operation, describe(x))
  end
  if type(id) ~= "number" or not (id >= 0) then
    if id == -1 then err.check(id) end
    err.raise("%s: this is no tensor", operation)
  end
  return id
end
tape.node = node

-- ---- operators: shapes as numpy's broadcasting, but [n] and [n, 1] do not mix ------------------

function Tensor.__add(a, b)
  local t = tape_of(a, b)
  if type(b) == "number" then return handle(t, C.mr_tape_affine(t.c, node(t, a, "add"), 1, b)) end
  if type(a) == "number" then return handle(t, C.mr_tape_affine(t.c, node(t, b, "add"), 1, a)) end
  return handle(t, C.mr_tape_add(t.c, node(t, a, "add"), node(t, b, "add")))
end

function Tensor.__sub(a, b)
  local t = tape_of(a, b)
  if type(b) == "number" then return handle(t, C.mr_tape_affine(t.c, node(t, a, "sub"), 1, -b)) end
  if type(a) == "number" then return handle(t, C.mr_tape_affine(t.c, node(t, b, "sub"), -1, a)) end
  return handle(t, C.mr_tape_sub(t.c, node(t, a, "sub"), node(t, b, "sub")))
end

function Tensor.__mul(a, b)
  local t = tape_of(a, b)
  if type(b) == "number" then return handle(t, C.mr_tape_affine(t.c, node(t, a, "mul"), b, 0)) end
  if type(a) == "number" then return handle(t, C.mr_tape_affine(t.c, node(t, b, "mul"), a, 0)) end
  return handle(t, C.mr_tape_mul(t.c, node(t, a, "mul"), node(t, b, "mul")))
end

function Tensor.__div(a, b)
  local t = tape_of(a, b)
  if type(b) == "number" then
    return handle(t, C.mr_tape_affine(t.c, node(t, a, "div"), 1 / b, 0))
  end
  return handle(t, C.mr_tape_div(t.c, node(t, a, "div"), node(t, b, "div")))
end

function Tensor.__unm(a)
  local t = tape_of(a)
  return handle(t, C.mr_tape_affine(t.c, node(t, a, "neg"), -1, 0))
end

local function number_of(operation, what, value)
  if type(value) ~= "number" then err.raise("%s: expected %s, got %s", operation, what, err.show(value)) end
  return value
end

-- An axis as C counts them; 0 has none.
local function place_of(operation, axis)
  if type(axis) ~= "number" or axis % 1 ~= 0 or math.abs(axis) > 2 ^ 30 then
    err.raise("%s: expected an axis, from 1, got %s", operation, tostring(axis))
  end
  return axis - 1
end

--- Sum of all elements: [1]; or along an axis, which is then gone, or (keep) of 1: of [n, f, k],
--- a:sum(2) is [n, k].
---@param axis? integer from 1
---@param keep? boolean
---@return Tensor
function Tensor:sum(axis, keep)
  local t = tape_of(self)
  local id = node(t, self, "sum")
  if axis == nil then return handle(t, C.mr_tape_sum(t.c, id)) end
  return handle(t, C.mr_tape_sum_axis(t.c, id, place_of("sum", axis), keep and 1 or 0))
end

--- Mean of all elements: [1]; or along an axis, as sum.
---@param axis? integer from 1
---@param keep? boolean
---@return Tensor
function Tensor:mean(axis, keep)
  local t = tape_of(self)
  local id = node(t, self, "mean")
  if axis == nil then return handle(t, C.mr_tape_mean(t.c, id)) end
  return handle(t, C.mr_tape_mean_axis(t.c, id, place_of("mean", axis), keep and 1 or 0))
end

--- The largest along an axis, as sum; the gradient goes to the first of them.
---@param axis integer from 1
---@param keep? boolean
---@return Tensor
function Tensor:max(axis, keep)
  local t = tape_of(self)
  local id = node(t, self, "max")
  return handle(t, C.mr_tape_max_axis(t.c, id, place_of("max", axis), keep and 1 or 0))
end

--- exp(a_i) / sum_j exp(a_j) over the last axis. With a mask, which is repeated to the shape of a:
--- over the places where it is not 0; the others are 0, and so is a row that it leaves nothing of.
---@param mask? Tensor gets no gradient
---@return Tensor
function Tensor:softmax(mask)
  local t = tape_of(self)
  local id = node(t, self, "softmax")
  return handle(t, C.mr_tape_softmax(t.c, id, mask and node(t, mask, "softmax") or -1))
end

--- max(a, 0).
---@return Tensor
function Tensor:relu()
  local t = tape_of(self)
  return handle(t, C.mr_tape_relu(t.c, node(t, self, "relu")))
end

--- 1 / (1 + exp(-a)).
---@return Tensor
function Tensor:sigmoid()
  local t = tape_of(self)
  return handle(t, C.mr_tape_sigmoid(t.c, node(t, self, "sigmoid")))
end

---@return Tensor
function Tensor:tanh()
  local t = tape_of(self)
  return handle(t, C.mr_tape_tanh(t.c, node(t, self, "tanh")))
end

--- a where a > 0, else slope a. Maas et al., 2013.
---@param slope? number 0.01
---@return Tensor
function Tensor:leaky_relu(slope)
  local t = tape_of(self)
  return handle(t, C.mr_tape_leaky_relu(t.c, node(t, self, "leaky_relu"),
    number_of("leaky_relu", "a slope", slope or 0.01)))
end

--- a/2 (1 + erf(a / sqrt(2))): the exact form, not the one by tanh. Hendrycks and Gimpel, 2016.
---@return Tensor
function Tensor:gelu()
  local t = tape_of(self)
  return handle(t, C.mr_tape_gelu(t.c, node(t, self, "gelu")))
end

--- a / (1 + exp(-a)), also known as swish. Hendrycks and Gimpel, 2016; Ramachandran et al., 2017.
---@return Tensor
function Tensor:silu()
  local t = tape_of(self)
  return handle(t, C.mr_tape_silu(t.c, node(t, self, "silu")))
end

---@return Tensor
function Tensor:exp()
  local t = tape_of(self)
  return handle(t, C.mr_tape_exp(t.c, node(t, self, "exp")))
end

--- The natural logarithm; NaN below 0.
---@return Tensor
function Tensor:log()
  local t = tape_of(self)
  return handle(t, C.mr_tape_log(t.c, node(t, self, "log")))
end

--- The square root; its gradient at 0 is infinite.
---@return Tensor
function Tensor:sqrt()
  local t = tape_of(self)
  return handle(t, C.mr_tape_sqrt(t.c, node(t, self, "sqrt")))
end

--- |a|; its gradient at 0 is 0.
---@return Tensor
function Tensor:abs()
  local t = tape_of(self)
  return handle(t, C.mr_tape_abs(t.c, node(t, self, "abs")))
end

--- a^2.
---@return Tensor
function Tensor:square()
  local t = tape_of(self)
  return handle(t, C.mr_tape_square(t.c, node(t, self, "square")))
end

--- The matrix product along the last axis: [..., in] by [in, out] is [..., out]; two tensors of one
--- rank above 2 are multiplied matrix by matrix: [..., a, b] by [..., b, c] is [..., a, c], with
--- equal leading dimensions.
---@param right Tensor|Param
---@param transposed? boolean right is [out, in], or [..., c, b]
---@return Tensor
function Tensor:matmul(right, transposed)
  local t = tape_of(self, right)
  return handle(t, C.mr_tape_matmul(t.c, node(t, self, "matmul"), node(t, right, "matmul"),
    transposed and 1 or 0))
end

--- Places first to last, both included, of an axis; all count from 1.
---@param axis integer
---@param first integer
---@param last integer
---@return Tensor
function Tensor:slice(axis, first, last)
  local t = tape_of(self)
  return handle(t, C.mr_tape_slice(t.c, node(t, self, "slice"), place_of("slice", axis),
    number_of("slice", "a first place", first) - 1, number_of("slice", "a last place", last) - 1))
end

--- Two axes change places: of [n, f, k], a:transpose(2, 3) is [n, k, f].
---@param a integer from 1
---@param b integer
---@return Tensor
function Tensor:transpose(a, b)
  local t = tape_of(self)
  return handle(t, C.mr_tape_transpose(t.c, node(t, self, "transpose"), place_of("transpose", a),
    place_of("transpose", b)))
end

--- The same elements in another shape of up to four dimensions, one of which may be -1.
---@param d0 integer
---@param d1? integer
---@param d2? integer
---@param d3? integer
---@return Tensor
function Tensor:reshape(d0, d1, d2, d3)
  local t = tape_of(self)
  local rank = d3 and 4 or d2 and 3 or d1 and 2 or 1
  if type(d0) ~= "number" then err.raise("reshape: expected numbers, got a %s", type(d0)) end
  return handle(t, C.mr_tape_reshape(t.c, node(t, self, "reshape"), rank, d0,
    number_of("reshape", "numbers", d1 or 1), number_of("reshape", "numbers", d2 or 1),
    number_of("reshape", "numbers", d3 or 1)))
end

--- [n, rest].
---@return Tensor
function Tensor:flatten()
  local t = tape_of(self)
  local id = node(t, self, "flatten")
  return handle(t, C.mr_tape_reshape(t.c, id, 2, C.mr_tape_dim(t.c, id, 0), -1, 1, 1))
end

-- ---- what a tensor holds ----------------------------------------------------------------------------

---@return integer dimensions, 1 to 4
function Tensor:rank()
  local t = tape_of(self)
  return C.mr_tape_rank(t.c, node(t, self, "rank"))
end

---@param axis integer from 1
---@return integer
function Tensor:dim(axis)
  local t = tape_of(self)
  return err.check(C.mr_tape_dim(t.c, node(t, self, "dim"), place_of("dim", axis)))
end

--- The dimensions, as so many results.
---@return integer ...
function Tensor:shape()
  local t = tape_of(self)
  local id = node(t, self, "shape")
  local rank = C.mr_tape_rank(t.c, id)
  if rank == 1 then return C.mr_tape_dim(t.c, id, 0) end
  if rank == 2 then return C.mr_tape_dim(t.c, id, 0), C.mr_tape_dim(t.c, id, 1) end
  if rank == 3 then
    return C.mr_tape_dim(t.c, id, 0), C.mr_tape_dim(t.c, id, 1), C.mr_tape_dim(t.c, id, 2)
  end
  return C.mr_tape_dim(t.c, id, 0), C.mr_tape_dim(t.c, id, 1), C.mr_tape_dim(t.c, id, 2),
    C.mr_tape_dim(t.c, id, 3)
end

---@return integer number of elements
function Tensor:count()
  local t = tape_of(self)
  return C.mr_tape_elements(t.c, node(t, self, "count"))
end

--- The number that a tensor of one element holds.
---@return number
function Tensor:value()
  local t = tape_of(self)
  local id = node(t, self, "value")
  if C.mr_tape_elements(t.c, id) ~= 1 then
    err.raise("value: expected a tensor of one element, got %d", C.mr_tape_elements(t.c, id))
  end
  return C.mr_tape_scalar(t.c, id, 0)
end

--- One element, by its place in each dimension, from 1.
---@param i integer
---@param j? integer
---@param k? integer
---@param l? integer
---@return number
function Tensor:get(i, j, k, l)
  local t = tape_of(self)
  local id = node(t, self, "get")
  local rank = C.mr_tape_rank(t.c, id)
  local index = 0
  for axis = 1, rank do
    local at = axis == 1 and i or axis == 2 and j or axis == 3 and k or l or 1
    local dim = C.mr_tape_dim(t.c, id, axis - 1)
    at = number_of("get", "places", at or 1)
    if not (at >= 1 and at <= dim and at % 1 == 0) then
      err.raise("get: place %.14g of dimension %d, which has %d", at, axis, dim)
    end
    index = index * dim + at - 1
  end
  return C.mr_tape_scalar(t.c, id, index)
end

--- The elements as an array, d[0] to d[count - 1], row-major, that can be read until the step is over.
---@return ffi.cdata* array see moonrock.view
---@return integer count
function Tensor:data()
  local t = tape_of(self)
  local id = node(t, self, "data")
  local floats, count = err.check(C.mr_tape_floats(t.c, id)), C.mr_tape_elements(t.c, id)
  return view.set(view.constant(), floats, count, t.counter, t.counter[0]), count
end

--- The same as a pointer, for C.
---@param x Tensor
---@return ffi.cdata* const float *
---@return integer count
function tape.floats(x)
  local t = tape_of(x)
  local id = node(t, x, "data")
  return err.check(C.mr_tape_floats(t.c, id)), C.mr_tape_elements(t.c, id)
end

-- ---- backward -------------------------------------------------------------------------------------------

-- Calls a user's function with views, which are good until it returns; while it runs, the tape does not
-- begin anew. f takes what `inputs` says of a, b, d, e, and as many of da .. de in backward.
local function user_call(t, op, f, given)
  if op.running then err.raise("%s: it is called inside of itself", op.subject) end
  local before = view.enter(op.subject, t)
  local busy = t.busy
  t.busy, op.running = op.subject, true
  local ok, problem = pcall(given, t, op, f)
  t.busy, op.running = busy, false
  view.leave(before)
  if not ok then error(problem, 0) end
end

local function data_of(t, op, place, id)
  return view.point(op.views[t.array][place], ffi.cast(t.pointer, C.mr_tape_data(t.c, id)),
    C.mr_tape_elements(t.c, id))
end

local function sink_of(t, op, place, id, input)
  local to = err.check(C.mr_tape_user_sink(t.c, id, input))
  return view.point(op.views[t.array][place], ffi.cast(t.pointer, to), op.counts[input + 1])
end

-- The views of an operation, made once: the result and four inputs, then the gradients of all.
local function views_of(op, array)
  if op.views[array] then return end
  local list = {}
  for i = 1, 10 do list[i] = array() end
  op.views[array] = list
end

local function counts_of(t, op, nodes)
  local counts = op.counts
  for i = 1, op.inputs do counts[i] = C.mr_tape_elements(t.c, nodes[i]) end
  return counts
end

local function forward_given(t, op, f)
  local id, inputs = op.id, op.inputs
  local nodes = op.nodes[id + 1]
  local n, counts = C.mr_tape_elements(t.c, id), counts_of(t, op, nodes)
  local out, a = data_of(t, op, 1, id), data_of(t, op, 2, nodes[1])
  if inputs == 1 then return f(out, a, n, counts) end
  local b = data_of(t, op, 3, nodes[2])
  if inputs == 2 then return f(out, a, b, n, counts) end
  local d = data_of(t, op, 4, nodes[3])
  if inputs == 3 then return f(out, a, b, d, n, counts) end
  f(out, a, b, d, data_of(t, op, 5, nodes[4]), n, counts)
end

local function backward_given(t, op, f)
  local id, inputs = op.id, op.inputs
  local nodes = op.nodes[id + 1]
  local n, counts = C.mr_tape_elements(t.c, id), counts_of(t, op, nodes)
  local g = view.point(op.views[t.array][6], ffi.cast(t.pointer, C.mr_tape_user_grad(t.c, id)), n)
  local out = data_of(t, op, 1, id)
  local a, da = data_of(t, op, 2, nodes[1]), sink_of(t, op, 7, id, 0)
  if inputs == 1 then return f(g, out, a, da, n, counts) end
  local b, db = data_of(t, op, 3, nodes[2]), sink_of(t, op, 8, id, 1)
  if inputs == 2 then return f(g, out, a, b, da, db, n, counts) end
  local d, dd = data_of(t, op, 4, nodes[3]), sink_of(t, op, 9, id, 2)
  if inputs == 3 then return f(g, out, a, b, d, da, db, dd, n, counts) end
  f(g, out, a, b, d, data_of(t, op, 5, nodes[4]), da, db, dd, sink_of(t, op, 10, id, 3), n, counts)
end

local function user_backward(t, id)
  local op = t.users[id + 1]
  if not op.backward then err.raise("%s: it has no backward", op.subject) end
  op.id = id
  user_call(t, op, op.backward, backward_given)
end

--- Adds the gradients of this loss, [1], to those of the params, rows and leaves below it. Several
--- calls before a step add up. A loss that is not finite is an error, which of a model's tensor names
--- the batch; if the model is to skip such batches, nothing is added.
---@return boolean added
function Tensor:backward()
  local t = tape_of(self)
  local from = node(t, self, "backward")
  idle(t, "backward")
  local id = C.mr_tape_backward(t.c, from)
  if id == -1 and t.owner and C.mr_tape_elements(t.c, from) == 1 then
    local loss = C.mr_tape_scalar(t.c, from, 0)
    if loss - loss ~= 0 then
      t.owner.backwards = t.owner.backwards + 1
      return t.owner:refuse(loss)
    end
  end
  while id >= 0 do
    user_backward(t, id)
    id = C.mr_tape_backward_next(t.c)
  end
  if id ~= DONE then err.check(id) end
  if t.owner then t.owner.backwards = t.owner.backwards + 1 end
  return true
end

--- After backward, an element of the gradient of a leaf that wants one; NaN if it has none.
---@param index integer flat, from 1
---@return number
function Tensor:gradient(index)
  local t = tape_of(self)
  return C.mr_tape_gradient(t.c, node(t, self, "gradient"),
    number_of("gradient", "a place", index) - 1)
end

--- Its shape and first numbers.
function Tensor:__tostring()
  local t = self.tape
  if handles.closed(t) or self.generation ~= t.generation then return "tensor of a step that is over" end
  local shape = { self:shape() }
  return "tensor " .. show.shape(shape)
    .. show.array(function(i) return C.mr_tape_scalar(t.c, self.id, i) end, shape)
end

Tensor.kind = "tensor"

--- Gives another class the operators and methods of tensors; its objects have lift(self, tape).
---@param class table
function tape.operators(class)
  for name, f in pairs(Tensor) do
    if type(f) == "function" and class[name] == nil then class[name] = f end
  end
end

--- A tensor from numbers: `tape.tensor({ 2, 3 }, { 1, 2, 3, 4, 5, 6 })`.
---@param shape integer[]
---@param values number[]|ffi.cdata* row-major; double[]
---@param wants_grad? boolean
---@return Tensor
function tape.tensor(shape, values, wants_grad)
  local t = tape_of(nil)
  if type(shape) ~= "table" or type(values) ~= "table" and type(values) ~= "cdata" then
    err.raise("tensor: expected a shape and numbers, got a %s and a %s", type(shape), type(values))
  end
  local dim, count = ffi.new("int32_t[?]", #shape, shape), 1
  for i = 1, #shape do count = count * shape[i] end
  if type(values) == "table" then
    if #values ~= count then
      err.raise("tensor: %d numbers for a shape of %d", #values, count)
    end
    values = ffi.new("double[?]", count, values)
  end
  return handle(t, C.mr_tape_leaf(t.c, dim, #shape, values, wants_grad and 1 or 0))
end

-- ---- several tensors ------------------------------------------------------------------------------

-- Hands the tensors of a list to the next operation, once all of them are known to be some.
local function arguments(list, operation)
  local t = tape_of(list[1])
  for i = 1, #list do node(t, list[i], operation) end
  for i = 1, #list do C.mr_tape_argument(t.c, node(t, list[i], operation)) end
  return t
end

--- Stacks tensors of one shape along a new axis: two of [n, k] by `stack({ a, b }, 2)` are [n, 2, k].
---@param list Tensor[]
---@param axis? integer from 1; the first
---@return Tensor
function tape.stack(list, axis)
  if type(list) ~= "table" or getmetatable(list) or not list[1] then
    err.raise("stack: expected a list of tensors, got a %s", describe(list))
  end
  local at = place_of("stack", axis or 1)
  local t = arguments(list, "stack")
  return handle(t, C.mr_tape_stack(t.c, at))
end

--- Joins tensors along the last axis: `concat(a, b, ...)`, up to eight, or `concat { a, b, ... }`;
--- along another one: `concat({ a, b, ... }, axis)`.
---@param a Tensor|Tensor[]
---@param ... Tensor
---@return Tensor
function tape.concat(a, b, c, d, e, f, g, h, ninth)
  if ninth then err.raise("concat: more than eight tensors are given as a table") end
  if type(a) == "table" and getmetatable(a) == nil and a[1] then
    local axis = b and place_of("concat", b) or -1
    local t = arguments(a, "concat")
    return handle(t, C.mr_tape_concat(t.c, axis))
  end
  local t = tape_of(a, b)
  local na, nb = node(t, a, "concat"), b and node(t, b, "concat") or -1
  local nc, nd = c and node(t, c, "concat") or -1, d and node(t, d, "concat") or -1
  local ne, nf = e and node(t, e, "concat") or -1, f and node(t, f, "concat") or -1
  local ng, nh = g and node(t, g, "concat") or -1, h and node(t, h, "concat") or -1
  C.mr_tape_argument(t.c, na)
  if b then C.mr_tape_argument(t.c, nb) end
  if c then C.mr_tape_argument(t.c, nc) end
  if d then C.mr_tape_argument(t.c, nd) end
  if e then C.mr_tape_argument(t.c, ne) end
  if f then C.mr_tape_argument(t.c, nf) end
  if g then C.mr_tape_argument(t.c, ng) end
  if h then C.mr_tape_argument(t.c, nh) end
  return handle(t, C.mr_tape_concat(t.c, -1))
end

-- ---- operations written in Lua --------------------------------------------------------------------

-- A node of its own for an input that is given twice: so da and db never are the same array.
local function copy(t, id) return err.check(C.mr_tape_affine(t.c, id, 1, 0)) end

-- An operation of `element`, which C runs.
local function element_wise(spec)
  local subject = "operation " .. spec.name
  local steps, count, inputs = err.call(subject, element.trace, spec.element)
  return function(a, b, c, d)
    local given = d and 4 or c and 3 or b and 2 or 1
    if given ~= inputs then err.raise("%s: %d tensors, expected %d", subject, given, inputs) end
    local t = tape_of(a, b)
    local na, nb = node(t, a, subject), b and node(t, b, subject) or -1
    local nc, nd = c and node(t, c, subject) or -1, d and node(t, d, subject) or -1
    C.mr_tape_argument(t.c, na)
    if b then C.mr_tape_argument(t.c, nb) end
    if c then C.mr_tape_argument(t.c, nc) end
    if d then C.mr_tape_argument(t.c, nd) end
    return handle(t, C.mr_tape_element(t.c, steps, count), subject)
  end
end

---@class Operation
---@field name string
---@field element? fun(a: number, ...): number instead of the others
---@field shape? fun(a: Tensor, ...): integer, ... the result's dimensions; default: those of a
---@field forward fun(out: ffi.cdata*, a: ffi.cdata*, ...) arrays: see moonrock.view
---@field backward? fun(grad: ffi.cdata*, out: ffi.cdata*, a: ffi.cdata*, ...)

--- An operation of one to four tensors, written by the user: `forward(out, a, b, n, counts)` writes
--- out[0 .. n-1] from the elements of its inputs; `backward(grad, out, a, b, da, db, n, counts)`
--- adds to da and db what the gradient `grad` of the result makes there. All are arrays of floats (under
--- mr.gradcheck of doubles), from 0 on, good until it returns; counts[i] is the number of elements of input
--- i. Inside of them the model does not go on: no step, no other batch, no close.
---
--- An element-wise one is better given as `element`, a function of one number of each tensor, all of
--- one shape: it is called once, with symbols that know + - * / and :exp(), :log(), :sqrt(), :abs(),
--- :sigmoid(), :tanh(), :relu(), :max(y), :min(y), and runs on all threads; its gradient is derived.
---@param spec Operation
---@return fun(a: Tensor|Param, ...): Tensor
function tape.operation(spec)
  if type(spec) ~= "table" or type(spec.name) ~= "string"
    or type(spec.forward or spec.element) ~= "function" then
    err.raise("mr.operation: expected { name =, forward =, backward =, shape = } or { name =, element = }")
  end
  if spec.element and not spec.forward then return element_wise(spec) end
  for key in pairs(spec) do
    if key ~= "name" and key ~= "forward" and key ~= "backward" and key ~= "shape" then
      err.raise("mr.operation: %s has no field %q", spec.name, tostring(key))
    end
  end
  local name, forward, shape = spec.name, spec.forward, spec.shape
  local op = { subject = "operation " .. name, backward = spec.backward, inputs = 0, counts = {}, nodes = {},
    views = {}, running = false, id = -1 }

  return function(a, b, c, d)
    local t = tape_of(a, b)
    local inputs = d and 4 or c and 3 or b and 2 or 1
    if op.inputs == 0 then op.inputs = inputs end
    if inputs ~= op.inputs then
      err.raise("operation %s: %d tensors, expected %d", name, inputs, op.inputs)
    end
    local na, nb = node(t, a, name), b and node(t, b, name) or -1
    local nc, nd = c and node(t, c, name) or -1, d and node(t, d, name) or -1
    if nb >= 0 and nb == na then nb = copy(t, nb) end
    if nc >= 0 and (nc == na or nc == nb) then nc = copy(t, nc) end
    if nd >= 0 and (nd == na or nd == nb or nd == nc) then nd = copy(t, nd) end
    local rank, d0, d1, d2, d3
    if shape then
      d0, d1, d2, d3 = shape(a, b, c, d)
      if type(d0) ~= "number" then
        err.raise("operation %s: its shape is a %s, expected numbers", name, type(d0))
      end
    else
      d0, d1, d2, d3 = handle(t, na):shape()
    end
    rank = d3 and 4 or d2 and 3 or d1 and 2 or 1
    C.mr_tape_argument(t.c, na)
    if b then C.mr_tape_argument(t.c, nb) end
    if c then C.mr_tape_argument(t.c, nc) end
    if d then C.mr_tape_argument(t.c, nd) end
    local cp = t.c -- which `shape` may have closed
    local id = C.mr_tape_user(cp, rank, d0, d1 or 1, d2 or 1, d3 or 1)
    local result = handle(t, id, op.subject)
    t.users[id + 1] = op
    local nodes = op.nodes[id + 1]
    if not nodes then
      nodes = {}
      op.nodes[id + 1] = nodes
    end
    nodes[1], nodes[2], nodes[3], nodes[4] = na, nb, nc, nd
    views_of(op, t.array)
    op.id = id
    user_call(t, op, forward, forward_given)
    return result
  end
end

tape.Tensor = Tensor
return tape

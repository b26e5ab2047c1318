--- Layers: functions of tensors, and functions that declare params by name and return one.
local C = require "moonrock.ffi"
local err = require "moonrock.error"
local initializer = require "moonrock.initializer"
local tape = require "moonrock.tape"

local layers = {}

local ACTIVATION = { none = 0, relu = 1, sigmoid = 2, tanh = 3 }

local function known(subject, options, names)
  for name in pairs(options) do
    if not names[name] then err.raise("%s has no option %q", subject, tostring(name)) end
  end
  local act = options.activation
  if act and not ACTIVATION[act] then
    err.raise("%s: activation is %q, expected none, relu, sigmoid or tanh", subject, tostring(act))
  end
end

local function width(subject, what, n)
  if type(n) ~= "number" or n < 1 or n % 1 ~= 0 then
    err.raise("%s: %s is %s, expected a whole number from 1", subject, what, err.show(n))
  end
end

-- How errors call a layer: `linear "deep.1"`.
local function named(kind, m, name)
  if type(m) ~= "table" or type(m.param) ~= "function" or type(name) ~= "string" then
    err.raise("%s: expected the model and a name, got a %s and %s", kind, type(m), err.show(name))
  end
  return ("%s %q"):format(kind, name)
end

--- act(x W + b): x [n, in], or of higher rank with in elements a sample; W [in, out]; b [out] or
--- nil: [n, out].
---@param x Tensor
---@param weights Param|Tensor
---@param bias? Param|Tensor
---@param activation? "none"|"relu"|"sigmoid"|"tanh"
---@param layer? string whose it is, for errors: `linear "deep.1"`
---@return Tensor
function layers.affine(x, weights, bias, activation, layer)
  local t = tape.of(x, weights)
  local act, subject = ACTIVATION[activation or "none"], layer or "linear"
  if not act then err.raise("%s: activation %q is unknown", subject, tostring(activation)) end
  return tape.handle(t, C.mr_tape_linear(t.c, tape.node(t, x, subject),
    tape.node(t, weights, subject), bias and tape.node(t, bias, subject) or -1, act), subject)
end

local LINEAR = { activation = true, bias = true, init = true, optim = true }

---@class LinearOptions
---@field activation? "none"|"relu"|"sigmoid"|"tanh"
---@field bias? boolean true
---@field init? table of W: Glorot and Bengio's uniform
---@field optim? table

--- A fully connected layer: params NAME.w [in, out] and NAME.b [out]; [n, in] -> [n, out].
---@param m table the model
---@param name string
---@param inputs integer
---@param outputs integer
---@param options? LinearOptions
---@return fun(x: Tensor): Tensor
function layers.linear(m, name, inputs, outputs, options)
  local o = options or {}
  local subject = named("linear", m, name)
  known(subject, o, LINEAR)
  width(subject, "inputs", inputs)
  width(subject, "outputs", outputs)
  local w = m:param(name .. ".w", { inputs, outputs },
    { init = o.init or initializer.xavier_uniform(inputs, outputs), optim = o.optim })
  local b = o.bias ~= false and m:param(name .. ".b", { outputs }, { optim = o.optim }) or nil
  local activation = o.activation or "none"
  return function(x) return layers.affine(x, w, b, activation, subject) end
end

local BATCH_NORM = { momentum = true, eps = true, affine = true, optim = true }

---@class BatchNormOptions
---@field momentum? number 0.1: running = 0.9 running + 0.1 batch
---@field eps? number 1e-5
---@field affine? boolean true: learn gamma and beta

--- (a - mean) / sqrt(variance + eps) gamma + beta for each of d columns, by the batch in training,
--- by running statistics otherwise: [n, d] -> [n, d]. Params NAME.gamma, .beta, .mean, .variance.
--- Ioffe and Szegedy, 2015.
---@param m table the model
---@param name string
---@param d integer
---@param options? BatchNormOptions
---@return fun(x: Tensor): Tensor
function layers.batch_norm(m, name, d, options)
  local o = options or {}
  local subject = named("batch_norm", m, name)
  known(subject, o, BATCH_NORM)
  width(subject, "d", d)
  local gamma, beta
  if o.affine ~= false then
    gamma = m:param(name .. ".gamma", { d }, { init = "ones", optim = o.optim })
    beta = m:param(name .. ".beta", { d }, { optim = o.optim })
  end
  local mean = m:param(name .. ".mean", { d }, { trainable = false })
  local variance = m:param(name .. ".variance", { d }, { init = "ones", trainable = false })
  local momentum, eps = o.momentum or 0.1, o.eps or 1e-5
  return function(x)
    local t = tape.of(x)
    return tape.handle(t, C.mr_tape_batch_norm(t.c, tape.node(t, x, subject),
      gamma and tape.node(t, gamma, subject) or -1,
      beta and tape.node(t, beta, subject) or -1, mean.c, variance.c, momentum, eps), subject)
  end
end

--- In training each element is 0 with probability `rate`, else a / (1 - rate); otherwise a itself.
---@param x Tensor
---@param rate number 0 to below 1
---@return Tensor
function layers.dropout(x, rate)
  local t = tape.of(x)
  if type(rate) ~= "number" then err.raise("dropout: rate is a %s, expected a number", type(rate)) end
  return tape.handle(t, C.mr_tape_dropout(t.c, tape.node(t, x, "dropout"), rate))
end

local MLP = { activation = true, last = true, dropout = true, batch_norm = true, init = true,
  optim = true, bias = true }

---@class MlpOptions
---@field activation? string of the hidden layers: relu
---@field last? string of the last one: none
---@field dropout? number rate, behind each hidden layer
---@field batch_norm? boolean in front of each hidden activation
---@field init? table
---@field optim? table

--- Fully connected layers one behind another: NAME.1, NAME.2 ...; [n, in] -> [n, widths[#widths]].
---@param m table the model
---@param name string
---@param inputs integer
---@param widths integer[] outputs of each layer
---@param options? MlpOptions
---@return fun(x: Tensor): Tensor
function layers.mlp(m, name, inputs, widths, options)
  local o = options or {}
  local subject = named("mlp", m, name)
  known(subject, o, MLP)
  if type(widths) ~= "table" or #widths == 0 then
    err.raise("%s: expected widths, as { 256, 128, 1 }", subject)
  end
  if o.last and not ACTIVATION[o.last] then
    err.raise("%s: last is %q, expected none, relu, sigmoid or tanh", subject, tostring(o.last))
  end
  local parts, hidden = {}, o.activation or "relu"
  local from = inputs
  for i, to in ipairs(widths) do
    local at, last = name .. "." .. i, i == #widths
    local act = last and (o.last or "none") or hidden
    local norm = o.batch_norm and not last
    parts[#parts + 1] = layers.linear(m, at, from, to, { init = o.init, optim = o.optim,
      activation = norm and "none" or act, bias = not norm and o.bias })
    if norm then
      parts[#parts + 1] = layers.batch_norm(m, at .. ".norm", to, { optim = o.optim })
      if act ~= "none" then parts[#parts + 1] = layers[act] end
    end
    if o.dropout and o.dropout > 0 and not last then
      local rate = o.dropout
      parts[#parts + 1] = function(x) return layers.dropout(x, rate) end
    end
    from = to
  end
  return function(x)
    for i = 1, #parts do x = parts[i](x) end
    return x
  end
end

--- max(x, 0)
---@return Tensor
function layers.relu(x) return tape.Tensor.relu(x) end
---@return Tensor
function layers.sigmoid(x) return tape.Tensor.sigmoid(x) end
---@return Tensor
function layers.tanh(x) return tape.Tensor.tanh(x) end

layers.concat = tape.concat
layers.tensor = tape.tensor

return layers

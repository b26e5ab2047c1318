--- Layers: functions of tensors, and functions that declare params by name and return one. Those of
-- attention are in attention.lua, those of gates in gates.lua.
local C = require "moonrock.ffi"
local check = require "moonrock.check"
local err = require "moonrock.error"
local initializer = require "moonrock.initializer"
local tape = require "moonrock.tape"

local layers = {}

---@alias Activation "none"|"relu"|"leaky_relu"|"sigmoid"|"tanh"|"gelu"|"silu"|"prelu"|"dice"

-- By how they are applied: within a linear layer, behind it, or with params of their own.
local ACTIVATION = { none = 0, relu = 1, sigmoid = 2, tanh = 3 }
local PLAIN = { leaky_relu = tape.Tensor.leaky_relu, gelu = tape.Tensor.gelu, silu = tape.Tensor.silu }
local LEARNED = {}
local width = check.width

local function known_activation(subject, what, act)
  if act ~= nil and not (ACTIVATION[act] or PLAIN[act] or LEARNED[act]) then
    err.raise("%s: %s is %q, expected none, relu, leaky_relu, sigmoid, tanh, gelu, silu, prelu or dice",
      subject, what, tostring(act))
  end
end

local function known(subject, options, names)
  check.options(subject, options, names)
  known_activation(subject, "activation", options.activation)
end

--- act(x W + b): x [n, in], or of higher rank with in elements a sample; W [in, out]; b [out] or
--- nil: [n, out].
---@param x Tensor
---@param weights Param|Tensor
---@param bias? Param|Tensor
---@param activation? "none"|"relu"|"sigmoid"|"tanh" others are functions of tensors, x:gelu(), and layers
---@param layer? string whose it is, for errors: `linear "deep.1"`
---@return Tensor
function layers.affine(x, weights, bias, activation, layer)
  local t = tape.of(x, weights)
  local act, subject = ACTIVATION[activation or "none"], layer or "linear"
  if not act then err.raise("%s: activation %q is unknown", subject, tostring(activation)) end
  return tape.handle(t, C.mr_tape_linear(t.c, tape.node(t, x, subject),
    tape.node(t, weights, subject), bias and tape.node(t, bias, subject) or -1, act), subject)
end

local LINEAR = { activation = true, bias = "boolean", bias_init = true, init = true, optim = true }

---@class LinearOptions
---@field activation? Activation none; prelu and dice have params, NAME.prelu.alpha and the like
---@field bias? boolean true
---@field bias_init? table|string zeros; "label" where the layer gives the score
---@field init? table of W: Glorot and Bengio's uniform
---@field optim? table

--- A fully connected layer: params NAME.w [in, out] and NAME.b [out]; [n, in] -> [n, out].
---@param m table the model
---@param name string
---@param inputs integer
---@param outputs integer
---@param options? LinearOptions
---@return fun(x: Tensor, mask?: Tensor): Tensor mask: as of batch_norm, for dice
function layers.linear(m, name, inputs, outputs, options)
  local o = options or {}
  local subject = check.layer("linear", m, name)
  known(subject, o, LINEAR)
  width(subject, "inputs", inputs)
  width(subject, "outputs", outputs)
  local w = m:param(name .. ".w", { inputs, outputs },
    { init = o.init or initializer.xavier_uniform(), optim = o.optim })
  local b = o.bias ~= false and m:param(name .. ".b", { outputs }, { init = o.bias_init, optim = o.optim })
    or nil
  local activation = o.activation or "none"
  if ACTIVATION[activation] then
    return function(x) return layers.affine(x, w, b, activation, subject) end
  end
  local act = layers.activation(m, name, activation, outputs, { optim = o.optim })
  return function(x, mask) return act(layers.affine(x, w, b, "none", subject), mask) end
end

-- gamma and beta of a norm.
local function scale_and_shift(m, name, d, o)
  if o.affine == false then return end
  return m:param(name .. ".gamma", { d }, { init = "ones", optim = o.optim }),
    m:param(name .. ".beta", { d }, { optim = o.optim })
end

local BATCH_NORM = { momentum = "number", eps = "positive", affine = "boolean", optim = true }

---@class BatchNormOptions
---@field momentum? number 0.1: running = 0.9 running + 0.1 batch
---@field eps? number 1e-5
---@field affine? boolean true: learn gamma and beta

--- (a - mean) / sqrt(variance + eps) gamma + beta for each of d columns, by the batch in training,
--- by running statistics otherwise: [n, d] -> [n, d]. With a mask, [n] of 1 and 0, the batch is the rows of
--- 1. A batch of one row, which has no variance, is normalised by the running statistics in training, too,
--- and does not change them. Params NAME.gamma, .beta, .mean, .variance. Ioffe and Szegedy, 2015.
---@param m table the model
---@param name string
---@param d integer
---@param options? BatchNormOptions
---@return fun(x: Tensor, mask?: Tensor): Tensor
function layers.batch_norm(m, name, d, options)
  local o = options or {}
  local subject = check.layer("batch_norm", m, name)
  known(subject, o, BATCH_NORM)
  width(subject, "d", d)
  local gamma, beta = scale_and_shift(m, name, d, o)
  local mean = m:param(name .. ".mean", { d }, { trainable = false })
  local variance = m:param(name .. ".variance", { d }, { init = "ones", trainable = false })
  local momentum, eps = o.momentum or 0.1, o.eps or 1e-5
  m.norm_of_batches = subject
  return function(x, mask)
    local t = tape.of(x)
    return tape.handle(t, C.mr_tape_batch_norm(t.c, tape.node(t, x, subject),
      gamma and tape.node(t, gamma, subject) or -1, beta and tape.node(t, beta, subject) or -1,
      mask and tape.node(t, mask, subject) or -1, mean.c, variance.c, momentum, eps), subject)
  end
end

local LAYER_NORM = { eps = "positive", affine = "boolean", optim = true }

---@class LayerNormOptions
---@field eps? number 1e-5
---@field affine? boolean true: learn gamma and beta
---@field optim? table

--- (a - mean) / sqrt(variance + eps) gamma + beta over the d elements of the last axis, of each sample
--- alone: [..., d] -> [..., d]. Params NAME.gamma, .beta. Ba, Kiros and Hinton, "Layer Normalization", 2016.
---@param m table the model
---@param name string
---@param d integer
---@param options? LayerNormOptions
---@return fun(x: Tensor): Tensor
function layers.layer_norm(m, name, d, options)
  local o = options or {}
  local subject = check.layer("layer_norm", m, name)
  known(subject, o, LAYER_NORM)
  width(subject, "d", d)
  local gamma, beta = scale_and_shift(m, name, d, o)
  local eps = o.eps or 1e-5
  return function(x)
    local t = tape.of(x)
    return tape.handle(t, C.mr_tape_layer_norm(t.c, tape.node(t, x, subject),
      gamma and tape.node(t, gamma, subject) or -1, beta and tape.node(t, beta, subject) or -1, eps),
      subject)
  end
end

local PRELU = { init = true, optim = true }

--- max(a, 0) + alpha min(a, 0), alpha learned for each of the d elements of the last axis, from 0.25 on:
--- [..., d] -> [..., d]. Param NAME.alpha. He et al., "Delving Deep into Rectifiers", ICCV 2015.
---@param m table the model
---@param name string
---@param d integer
---@param options? { init?: table, optim?: table } init of alpha
---@return fun(x: Tensor): Tensor
function layers.prelu(m, name, d, options)
  local o = options or {}
  local subject = check.layer("prelu", m, name)
  known(subject, o, PRELU)
  width(subject, "d", d)
  local alpha = m:param(name .. ".alpha", { d },
    { init = o.init or initializer.constant(0.25), optim = o.optim })
  return function(x) return layers.relu(x) - alpha * layers.relu(-x) end
end

local DICE = { momentum = "number", eps = "positive", optim = true }

--- p a + (1 - p) alpha a with p = sigmoid of a's batch norm, alpha learned for each of d columns, from 0
--- on: [n, d] -> [n, d]. A mask and a batch of one row are as in batch_norm. Params NAME.alpha, .mean,
--- .variance. Zhou et al., "Deep Interest Network", KDD 2018, equation (3).
---@param m table the model
---@param name string
---@param d integer
---@param options? { momentum?: number, eps?: number, optim?: table } as of batch_norm; eps 1e-8
---@return fun(x: Tensor, mask?: Tensor): Tensor
function layers.dice(m, name, d, options)
  local o = options or {}
  local subject = check.layer("dice", m, name)
  known(subject, o, DICE)
  width(subject, "d", d)
  local alpha = m:param(name .. ".alpha", { d }, { optim = o.optim })
  local norm = layers.batch_norm(m, name, d, { affine = false, momentum = o.momentum, eps = o.eps or 1e-8 })
  return function(x, mask)
    local idle = alpha * x
    return idle + layers.sigmoid(norm(x, mask)) * (x - idle)
  end
end

LEARNED.prelu, LEARNED.dice = layers.prelu, layers.dice

--- An activation by name, as a function of a tensor whose last axis is d; those that learn declare their
--- params as NAME.prelu.alpha and the like, and take a mask as batch_norm does.
---@param m table the model
---@param name string of what it belongs to
---@param activation Activation
---@param d integer
---@param options? { optim?: table }
---@return fun(x: Tensor, mask?: Tensor): Tensor
function layers.activation(m, name, activation, d, options)
  known_activation(("activation of %q"):format(tostring(name)), "it", activation)
  local make = LEARNED[activation]
  if make then return make(m, name .. "." .. activation, d, options) end
  if activation == "none" then return function(x) return x end end
  local plain = PLAIN[activation] or layers[activation]
  return function(x) return plain(x) end
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

local MLP = { activation = true, last = true, dropout = "rate", batch_norm = "boolean",
  layer_norm = "boolean", init = true, optim = true, bias = "boolean", bias_init = true }

---@class MlpOptions
---@field activation? Activation of the hidden layers: relu
---@field last? Activation of the last one: none
---@field dropout? number rate, behind each hidden layer
---@field batch_norm? boolean in front of each hidden activation
---@field layer_norm? boolean the same, instead
---@field bias_init? table|string of the last layer: zeros; "label" where it gives the score
---@field init? table
---@field optim? table

--- Fully connected layers one behind another: NAME.1, NAME.2 ...; [n, in] -> [n, widths[#widths]]. A
--- mask, [n], says which rows batch norm and dice learn from.
---@param m table the model
---@param name string
---@param inputs integer
---@param widths integer[]|integer outputs of each layer
---@param options? MlpOptions
---@return fun(x: Tensor, mask?: Tensor): Tensor
function layers.mlp(m, name, inputs, widths, options)
  local o = options or {}
  local subject = check.layer("mlp", m, name)
  known(subject, o, MLP)
  widths = check.widths(widths)
  if type(widths) ~= "table" or #widths == 0 then
    err.raise("%s: expected widths, as { 256, 128, 1 }", subject)
  end
  known_activation(subject, "last", o.last)
  if o.batch_norm and o.layer_norm then
    err.raise("%s: batch_norm and layer_norm exclude each other", subject)
  end
  local parts, hidden = {}, o.activation or "relu"
  local from = inputs
  for i, to in ipairs(widths) do
    local at, last = name .. "." .. i, i == #widths
    local act = last and (o.last or "none") or hidden
    local norm = not last and (o.batch_norm and layers.batch_norm or o.layer_norm and layers.layer_norm)
    parts[#parts + 1] = layers.linear(m, at, from, to, { init = o.init, optim = o.optim,
      activation = norm and "none" or act, bias = not norm and o.bias,
      bias_init = last and o.bias_init or nil })
    if norm then
      parts[#parts + 1] = norm(m, at .. ".norm", to, { optim = o.optim })
      parts[#parts + 1] = layers.activation(m, at, act, to, { optim = o.optim })
    end
    if o.dropout and o.dropout > 0 and not last then
      local rate = o.dropout
      parts[#parts + 1] = function(x) return layers.dropout(x, rate) end
    end
    from = to
  end
  return function(x, mask)
    for i = 1, #parts do x = parts[i](x, mask) end
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

--- The products of all pairs of rows, a_i * b_j for i < j, by i and then by j: two of [n, f, k], or one
--- and itself, are [n, f (f - 1) / 2, k].
---@param a Tensor
---@param b? Tensor a
---@return Tensor
function layers.pairs(a, b)
  local t = tape.of(a, b)
  return tape.handle(t, C.mr_tape_pairs(t.c, tape.node(t, a, "pairs"), b and tape.node(t, b, "pairs") or -1))
end

layers.concat = tape.concat
layers.stack = tape.stack
layers.tensor = require "moonrock.constant"

return layers

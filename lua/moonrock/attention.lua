--- Layers of attention: between the fields of a sample, and of a target on a sequence.
local check = require "moonrock.check"
local err = require "moonrock.error"
local initializer = require "moonrock.initializer"
local layers = require "moonrock.layers"

local attention = {}

-- [n, fields, heads dim] -> [n, heads, fields, dim].
local function by_head(x, fields, heads)
  return x:reshape(-1, fields, heads, x:dim(3) / heads):transpose(2, 3)
end

local MULTI_HEAD = { heads = true, dim = true, scale = "boolean", residual = "boolean", relu = "boolean",
  layer_norm = "boolean", dropout = "rate", optim = true }

---@class MultiHeadOptions
---@field heads? integer 2
---@field dim? integer of a head: inputs / heads
---@field scale? boolean true: products are divided by sqrt(dim)
---@field residual? boolean true: x W_r is added
---@field relu? boolean true: on the result
---@field layer_norm? boolean false: of the result
---@field dropout? number rate, of the weights
---@field optim? table

--- Attention of the fields of a sample to one another: softmax(Q K^T / sqrt(dim)) V of each head, side
--- by side, with Q = x W_q, K = x W_k and V = x W_v, and then relu(that + x W_r): [n, fields, inputs] ->
--- [n, fields, heads dim]. With a mask, [n, fields] of 1 and 0, no field attends to those of 0. Params
--- NAME.query, .key, .value, .residual [inputs, heads dim]. Vaswani et al., "Attention Is All You Need",
--- NIPS 2017, as in Song et al., "AutoInt", CIKM 2019, equations (5) to (8).
---@param m table the model
---@param name string
---@param inputs integer
---@param options? MultiHeadOptions
---@return fun(x: Tensor, mask?: Tensor): Tensor
function attention.multi_head_attention(m, name, inputs, options)
  local o = options or {}
  local subject = check.layer("multi_head_attention", m, name)
  check.options(subject, o, MULTI_HEAD)
  check.width(subject, "inputs", inputs)
  local heads = o.heads or 2
  check.width(subject, "heads", heads)
  local dim = o.dim or inputs / heads
  check.width(subject, "dim", dim)
  local outputs = heads * dim
  local function weights(part)
    return m:param(name .. "." .. part, { inputs, outputs },
      { init = initializer.xavier_uniform(inputs, outputs), optim = o.optim })
  end
  local query, key, value = weights "query", weights "key", weights "value"
  local residual = o.residual ~= false and weights "residual" or nil
  local norm = o.layer_norm and layers.layer_norm(m, name .. ".norm", outputs, { optim = o.optim })
  local scale = o.scale ~= false and 1 / math.sqrt(dim) or 1
  local rate, relu = o.dropout or 0, o.relu ~= false
  local expected = ("[n, fields, %d]"):format(inputs)

  return function(x, mask)
    check.shape(subject, expected, x, 3, inputs)
    local fields = x:dim(2)
    if mask then check.shape(subject, "a mask [n, fields]", mask, 2, fields) end
    local q, k = by_head(x:matmul(query), fields, heads), by_head(x:matmul(key), fields, heads)
    local scores = q:matmul(k, true) * scale
    local share = scores:softmax(mask and mask:reshape(-1, 1, 1, fields))
    if rate > 0 then share = layers.dropout(share, rate) end
    local y = share:matmul(by_head(x:matmul(value), fields, heads))
    y = y:transpose(2, 3):reshape(-1, fields, outputs)
    if residual then y = y + x:matmul(residual) end
    if relu then y = y:relu() end
    return norm and norm(y) or y
  end
end

local POOL = { hidden = true, activation = true, weights = true, optim = true }
local WEIGHTS = { linear = true, sigmoid = true, softmax = true }

---@class AttentionPoolOptions
---@field hidden? integer[] widths of the MLP: { 36 }
---@field activation? Activation of them: dice
---@field weights? "linear"|"sigmoid"|"softmax" what is done to its result: linear, as in the paper, so that
--- the weights of a sequence need not add up to 1
---@field optim? table

--- The keys of a sequence, weighted by how they go with a target: sum_i w_i k_i with w_i = MLP(t, k_i,
--- t - k_i, t * k_i): target [n, d], keys [n, length, d] and their mask [n, length], as Column:sequence
--- gives them -> [n, d], whatever the length that they are padded to: Dice's statistics are those of the
--- keys there are. Params NAME.1.w and the like. Zhou et al., "Deep Interest Network", KDD 2018,
--- equation (2).
---@param m table the model
---@param name string
---@param d integer
---@param options? AttentionPoolOptions
---@return fun(target: Tensor, keys: Tensor, mask: Tensor): Tensor
function attention.attention_pool(m, name, d, options)
  local o = options or {}
  local subject = check.layer("attention_pool", m, name)
  check.options(subject, o, POOL)
  check.width(subject, "d", d)
  local kind = o.weights or "linear"
  if not WEIGHTS[kind] then
    err.raise("%s: weights is %q, expected linear, sigmoid or softmax", subject, tostring(kind))
  end
  local widths = {}
  for i, width in ipairs(check.widths(o.hidden or { 36 })) do widths[i] = width end
  widths[#widths + 1] = 1
  local unit = layers.mlp(m, name, 4 * d, widths, { activation = o.activation or "dice", optim = o.optim })
  local target_shape, keys_shape = ("a target [n, %d]"):format(d), ("keys [n, length, %d]"):format(d)

  return function(target, keys, mask)
    check.shape(subject, target_shape, target, 2, d)
    check.shape(subject, keys_shape, keys, 3, d)
    local length = keys:dim(2)
    check.shape(subject, "a mask [n, length] of the keys", mask, 2, length)
    local t = target:reshape(-1, 1, d)
    local present = mask:reshape(-1, length, 1)
    local w = unit(layers.concat(t * present, keys, t - keys, t * keys):reshape(-1, 4 * d),
      mask:reshape(-1))
    w = w:reshape(-1, 1, length)
    if kind == "softmax" then
      w = w:softmax(present:reshape(-1, 1, length))
    else
      if kind == "sigmoid" then w = w:sigmoid() end
      w = w * present:reshape(-1, 1, length)
    end
    return (w:reshape(-1, length, 1) * keys):sum(2)
  end
end

return attention

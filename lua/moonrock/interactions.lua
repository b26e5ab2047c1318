--- How fields' vectors meet: products of pairs, cross networks, compressed interactions. Functions of
-- tensors, and functions that declare params by name and return one, as in layers.lua; interactions
-- that read rows in place are in pool.lua.
local C = require "moonrock.ffi"
local check = require "moonrock.check"
local err = require "moonrock.error"
local initializer = require "moonrock.initializer"
local layers = require "moonrock.layers"
local tape = require "moonrock.tape"

local interactions = {}

--- Inner products of a sample's vectors, x [n, fields, dim]. Alone: <x_i, x_j> of all i < j, in the order
--- 12, 13, ..., 23, ...: [n, fields (fields - 1) / 2]; with y [n, others, dim]: <x_i, y_j> of all i and j:
--- [n, fields others]. Qu et al., "Product-based Neural Networks for User Response Prediction", ICDM
--- 2016, section 3.1.
---@param x Tensor
---@param y? Tensor
---@return Tensor
function interactions.inner_products(x, y)
  local t = tape.of(x, y)
  return tape.handle(t, C.mr_tape_inner(t.c, tape.node(t, x, "inner_products"),
    y and tape.node(t, y, "inner_products") or -1))
end

--- Outer products of all pairs of a sample's vectors, summed: that of their sum with itself, s_a s_b, for
--- s [n, dim], which is column:sum(): [n, dim, dim]. Qu et al., ICDM 2016, section 3.2, equation (11).
---@param s Tensor
---@return Tensor
function interactions.outer_products(s)
  if tape.Tensor.rank(s) ~= 2 then
    err.raise("outer_products: expected the sum of a sample's vectors, [n, dim], got %d dimensions",
      tape.Tensor.rank(s))
  end
  local n, dim = tape.Tensor.shape(s)
  return s:reshape(n, dim, 1) * s:reshape(n, 1, dim)
end

--- Field-weighted FM: sum over pairs of fields i < j of r_ij <x_i, x_j>, for x [n, fields, dim] and r of
--- fields (fields - 1) / 2 weights in the order of mr.inner_products: [n, 1]. Pan et al., "Field-weighted
--- Factorization Machines for Click-Through Rate Prediction in Display Advertising", WWW 2018,
--- equation (7).
---@param x Tensor
---@param r Param|Tensor
---@return Tensor
function interactions.fwfm(x, r)
  return layers.affine(interactions.inner_products(x), r:reshape(-1, 1), nil, "none", "fwfm")
end

local known, whole = check.options, check.width

local CROSS = { kind = true, rank = "count", init = true, optim = true }

---@class CrossOptions
---@field kind? "vector"|"matrix" w [d] of DCN, or W [d, d] of DCN v2; "matrix"
---@field rank? integer of W = V U, V [d, rank] and U [rank, d]; full
---@field init? table of the weights: Glorot and Bengio's uniform
---@field optim? table

--- A cross network of so many layers. With kind "vector" x_{l+1} = x_0 (x_l w) + b + x_l: Wang et al.,
--- "Deep & Cross Network for Ad Click Predictions", ADKDD 2017, equation (3); with "matrix"
--- x_{l+1} = x_0 * (x_l W + b) + x_l, * by elements: Wang et al., "DCN V2", WWW 2021, equations (1) and
--- (2). [n, d], or of higher rank with d elements a sample -> [n, d]. Params NAME.1.w and NAME.1.b, ...;
--- with a rank NAME.1.v and .u in the place of .w.
---@param m table the model
---@param name string
---@param d integer
---@param count integer layers
---@param options? CrossOptions
---@return fun(x: Tensor): Tensor
function interactions.cross_network(m, name, d, count, options)
  local o = options or {}
  local subject = check.layer("cross_network", m, name)
  known(subject, o, CROSS)
  whole(subject, "d", d)
  whole(subject, "the number of layers", count)
  local kind = o.kind or "matrix"
  if kind ~= "vector" and kind ~= "matrix" then
    err.raise("%s: kind is %q, expected vector or matrix", subject, tostring(kind))
  end
    if o.rank and kind == "vector" then err.raise("%s: only a matrix has a rank", subject) end
  local products, biases = {}, {}
  for l = 1, count do
    local at = name .. "." .. l
    local function weights(part, inputs, outputs)
      return m:param(at .. "." .. part, { inputs, outputs },
        { init = o.init or initializer.xavier_uniform(inputs, outputs), optim = o.optim })
    end
    local w = weights(o.rank and "v" or "w", d, o.rank or kind == "matrix" and d or 1)
    local u = o.rank and weights("u", o.rank, d)
    local b = m:param(at .. ".b", { d }, { optim = o.optim })
    if kind == "vector" then
      products[l], biases[l] = function(x) return layers.affine(x, w, nil, "none", subject) end, b
    elseif u then
      products[l] = function(x)
        return layers.affine(layers.affine(x, w, nil, "none", subject), u, b, "none", subject)
      end
    else
      products[l] = function(x) return layers.affine(x, w, b, "none", subject) end
    end
  end
  return function(x0)
    local x, t = x0, tape.of(x0)
    for l = 1, count do
      local z, b = products[l](x), biases[l]
      x = tape.handle(t, C.mr_tape_cross(t.c, tape.node(t, x0, subject), tape.node(t, z, subject),
        tape.node(t, x, subject), b and tape.node(t, b, subject) or -1), subject)
    end
    return x
  end
end

local CIN = { init = true, optim = true }

---@class CinOptions
---@field init? table of the weights: Glorot and Bengio's uniform
---@field optim? table

--- A compressed interaction network over x0 [n, fields, dim]: layer l has sizes[l] vectors a sample,
--- x_l,o = sum_ij W_ij,o (x_{l-1},i * x_0,j), * by elements; the sums of all their coordinates are the
--- result, [n, the sum of sizes]. The last layer's vectors are never made: their sums are those of the inner
--- products <x_{l-1},i, x_0,j>. Params NAME.1.w, ..., [sizes[l-1] fields, sizes[l]]. Lian et al.,
--- "xDeepFM", KDD 2018, equations (6) and (8), without activation.
---@param m table the model
---@param name string
---@param fields integer
---@param sizes integer[] vectors of each layer
---@param options? CinOptions
---@return fun(x: Tensor): Tensor
function interactions.cin(m, name, fields, sizes, options)
  local o = options or {}
  local subject = check.layer("cin", m, name)
  known(subject, o, CIN)
  whole(subject, "fields", fields)
  sizes = check.widths(sizes)
  if type(sizes) ~= "table" or #sizes == 0 then
    err.raise("%s: expected sizes, as { 64, 64 }", subject)
  end
  local weights, from = {}, fields
  for l, size in ipairs(sizes) do
    whole(subject, "size " .. l, size)
    weights[l] = m:param(("%s.%d.w"):format(name, l), { from * fields, size },
      { init = o.init or initializer.xavier_uniform(from * fields, size), optim = o.optim })
    from = size
  end
  local expected = ("[n, %d, dim]"):format(fields)
  return function(x0)
    check.shape(subject, expected, x0, 3, nil, fields)
    local t = tape.of(x0)
    local x, sums = x0, nil
    for l = 1, #weights do
      local w = weights[l]
      local sum = layers.affine(interactions.inner_products(x, x0), w, nil, "none", subject)
      sums = sums and layers.concat(sums, sum) or sum
      if l < #weights then
        x = tape.handle(t, C.mr_tape_cin(t.c, tape.node(t, x, subject), tape.node(t, x0, subject),
          tape.node(t, w, subject)), subject)
      end
    end
    return sums
  end
end

return interactions

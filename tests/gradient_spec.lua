-- Every operation and layer: its gradients against central differences in float64.
local mr = require "moonrock"
local layers = require "moonrock.layers"
local batches = require "tests.support.batches"
local model = require "tests.support.params"

local TOLERANCE = 1e-6 -- central differences in double are good to about 1e-9 here

local function check(f, leaves)
  local e, where = mr.gradcheck(f, leaves)
  assert.is_true(e <= TOLERANCE, ("%g at %s"):format(e, where))
end

local SHAPES = { -- two that broadcast
  { { 3, 4 }, { 3, 4 } }, { { 3, 4 }, { 1 } }, { { 1 }, { 3, 4 } }, { { 3, 4 }, { 1, 4 } },
  { { 3, 4 }, { 4 } }, { { 4 }, { 3, 4 } }, { { 3, 4 }, { 3, 1 } }, { { 3, 1 }, { 3, 4 } },
  { { 3, 1 }, { 1, 4 } }, { { 2, 3, 4 }, { 2, 1, 4 } }, { { 2, 3, 4 }, { 3, 1 } },
  { { 2, 2, 3, 4 }, { 2, 2, 1, 1 } }, { { 5 }, { 5 } }, { { 2, 1, 4 }, { 2, 3, 4 } },
  { { 2, 3, 1 }, { 2, 3, 4 } }, { { 2, 1, 3, 1 }, { 2, 4, 3, 2 } }, { { 1, 4 }, { 2, 3, 4 } },
}

describe("gradients of", function()
  for name, f in pairs {
    add = function(a, b) return a + b end, sub = function(a, b) return a - b end,
    mul = function(a, b) return a * b end, div = function(a, b) return a / (b + 3) end,
  } do
    it(name .. ", over all ways to broadcast", function()
      for _, pair in ipairs(SHAPES) do check(f, pair) end
    end)
  end

  it("arithmetic with numbers", function()
    check(function(a) return 2 - (a * 3 + 1) / 4 + 2 * -a - 5 end, { { 3, 4 } })
    check(function(a) return 2 / (a + 3) end, { { 3, 4 } })
  end)

  it("a tensor used twice", function()
    check(function(a) return a * a + a end, { { 3, 4 } })
    check(function(a) return mr.concat(a, a) * 2 end, { { 3, 4 } })
    check(function(a) return a:reshape(4, 3):sum() * a:mean() + a:reshape(12) end, { { 3, 4 } })
  end)

  it("relu, sigmoid and tanh", function()
    check(function(a) return a:relu() end, { { 3, 4 } })
    check(function(a) return a:sigmoid() end, { { 3, 4 } })
    check(function(a) return a:tanh() end, { { 3, 4 } })
  end)

  it("the other functions of one element", function()
    for _, name in ipairs { "leaky_relu", "gelu", "silu", "exp", "abs", "square" } do
      check(function(a) return a[name](a * 3) end, { { 3, 4 } })
    end
    check(function(a) return a:leaky_relu(0.3) + a:leaky_relu(-2) end, { { 3, 4 } })
    check(function(a) return (a + 2):log() + (a + 2):sqrt() end, { { 3, 4 } })
  end)

  it("softmax, with every kind of mask", function()
    check(function(a) return (a * 3):softmax() end, { { 2, 3, 4 } })
    check(function(a) return a:softmax() + a end, { { 5 } })
    for _, mask in ipairs {
      { shape = { 3, 4 }, values = { 1, 0, 1, 1, 0, 0, 0, 0, 0, 1, 0, 0 } },
      { shape = { 4 }, values = { 1, 0, 0, 1 } }, { shape = { 3, 1 }, values = { 1, 0, 1 } },
    } do
      check(function(a) return (a * 3):softmax(layers.tensor(mask.shape, mask.values)) end, { { 2, 3, 4 } })
    end
  end)

  it("sum, mean and max along every axis", function()
    for _, shape in ipairs { { 3, 4 }, { 2, 3, 4 }, { 2, 1, 3, 2 }, { 2, 3, 70 } } do
      for axis = 1, #shape do
        for _, name in ipairs { "sum", "mean", "max" } do
          check(function(a) return a[name](a, axis) end, { shape })
          check(function(a) return a * a[name](a, axis, true) end, { shape })
        end
      end
    end
  end)

  it("slice, transpose, stack and concat along every axis", function()
    for axis = 1, 3 do
      local shape = { 3, 4, 5 }
      check(function(a) return a:slice(axis, 2, 3) end, { shape })
      check(function(a) return mr.concat({ a, a:slice(axis, 1, 2), a }, axis) end, { shape })
      for other = 1, 3 do
        check(function(a) return a:transpose(axis, other) * 2 + a:transpose(axis, other) end, { shape })
      end
    end
    for axis = 1, 4 do check(function(a, b) return mr.stack({ a, b, a }, axis) end, { { 2, 3, 4 }, { 2, 3, 4 } }) end
    check(function(a) return a:transpose(2, 4) end, { { 2, 3, 2, 4 } })
  end)

  it("products of many matrices", function()
    for _, s in ipairs { { 1, 1, 1 }, { 5, 3, 2 }, { 4, 2, 17 }, { 2, 5, 8 } } do
      local a, b, c = s[1], s[2], s[3]
      check(function(x, y) return x:matmul(y) end, { { 2, a, b }, { 2, b, c } })
      check(function(x, y) return x:matmul(y, true) end, { { 2, 2, a, b }, { 2, 2, c, b } })
      check(function(x, y) return x:matmul(y) end, { { 2, a, b }, { b, c } })
      check(function(x, y) return x:matmul(y, true) end, { { 2, 2, a, b }, { c, b } })
    end
    check(function(x) return x:matmul(x, true):matmul(x) + x end, { { 2, 3, 2 } })
  end)

  it("sum and mean", function()
    check(function(a) return a:sum() end, { { 3, 4 } })
    check(function(a) return a:mean() end, { { 3, 4 } })
  end)

  it("concat and reshape", function()
    check(function(a, b, c) return mr.concat(a, b, c) end, { { 3, 4 }, { 3, 1 }, { 3, 2 } })
    check(function(a, b) return mr.concat { a, b } end, { { 2, 3, 4 }, { 2, 3, 1 } })
    check(function(a) return a:reshape(2, -1):flatten() end, { { 3, 4 } })
  end)

  it("dropout", function()
    check(function(a) return mr.dropout(a, 0.4) end, { { 30, 4 } })
  end)

  it("a linear layer with every activation, with a bias and without", function()
    for _, act in ipairs { "none", "relu", "sigmoid", "tanh" } do
      for _, out in ipairs { 1, 3 } do
        check(function(x, w, b) return layers.affine(x, w, b, act) end, { { 5, 4 }, { 4, out }, { out } })
        check(function(x, w) return layers.affine(x, w, nil, act) end, { { 5, 2, 2 }, { 4, out } })
      end
    end
    check(function(x, w) return x:matmul(w) + x:matmul(w) end, { { 5, 4 }, { 4, 3 } })
  end)

  it("batch norm", function()
    local m = model()
    local norm = mr.batch_norm(m, "norm", 3)
    check(function(x) return norm(x) end, { { 5, 3 }, m.params["norm.gamma"], m.params["norm.beta"] })
    local plain = mr.batch_norm(model(), "norm", 3, { affine = false })
    check(function(x) return plain(x) end, { { 2, 4, 3 } })
  end)

  it("layer norm", function()
    local m = model()
    local norm = mr.layer_norm(m, "norm", 4)
    check(function(x) return norm(x) * x end, { { 3, 4 }, m.params["norm.gamma"], m.params["norm.beta"] })
    local plain = mr.layer_norm(model(), "norm", 5, { affine = false })
    check(function(x) return plain(x) end, { { 2, 3, 5 } })
  end)

  it("every activation of an mlp, alone and behind a norm", function()
    for _, act in ipairs { "none", "relu", "leaky_relu", "sigmoid", "tanh", "gelu", "silu", "prelu", "dice" } do
      for _, o in ipairs { {}, { layer_norm = true }, { batch_norm = true } } do
        local m = model()
        local deep = mr.mlp(m, "deep", 4, { 5, 2 }, { activation = act, last = act, layer_norm = o.layer_norm,
          batch_norm = o.batch_norm })
        local leaves = { { 6, 4 } }
        for _, p in pairs(m.params) do
          if p.trainable then leaves[#leaves + 1] = p end
        end
        check(function(x) return deep(x) end, leaves)
      end
    end
  end)

  it("pairs of rows", function()
    check(function(a) return mr.pairs(a) * 2 + mr.pairs(a) end, { { 2, 4, 3 } })
    check(function(a, b) return mr.pairs(a, b) end, { { 2, 3, 2 }, { 2, 3, 2 } })
  end)

  -- Leaves of a layer: its inputs, and all of its params that learn.
  local function with_params(m, ...)
    local leaves = { ... }
    for _, p in pairs(m.params) do
      if p.trainable then leaves[#leaves + 1] = p end
    end
    return leaves
  end

  it("multi-head attention, with everything and with nothing", function()
    local m = model()
    local attend = mr.multi_head_attention(m, "a", 4, { heads = 2, dim = 3, layer_norm = true, dropout = 0.2 })
    check(function(x) return attend(x) end, with_params(m, { 3, 3, 4 }))
    m = model()
    local plain = mr.multi_head_attention(m, "a", 4, { heads = 1, residual = false, relu = false, scale = false })
    check(function(x) return plain(x, layers.tensor({ 2, 3 }, { 1, 1, 0, 1, 0, 0 })) end,
      with_params(m, { 2, 3, 4 }))
  end)

  it("attention on a sequence, with every kind of weights", function()
    for _, weights in ipairs { "linear", "sigmoid", "softmax" } do
      local m = model()
      local pooled = mr.attention_pool(m, "a", 3, { hidden = { 4 }, weights = weights, activation = "tanh" })
      check(function(t, k) return pooled(t, k, layers.tensor({ 3, 2 }, { 1, 1, 1, 0, 0, 0 })) end,
        with_params(m, { 3, 3 }, { 3, 2, 3 }))
    end
    local m = model()
    local pooled = mr.attention_pool(m, "a", 2)
    check(function(t, k) return pooled(t, k, layers.tensor({ 2, 2 }, { 1, 1, 1, 0 })) end,
      with_params(m, { 2, 2 }, { 2, 2, 2 }))
  end)

  it("squeezed fields and mixed experts", function()
    local m = model()
    local squeeze = mr.squeeze_excitation(m, "s", 6, { activation = "sigmoid" })
    check(function(x) return squeeze(x) end, with_params(m, { 2, 6, 3 }))
    m = model()
    local mixed = mr.mmoe(m, "x", 4, { experts = 3, hidden = { 5, 2 }, activation = "tanh" })
    check(function(x) return mixed(x) end, with_params(m, { 3, 4 }))
  end)

  it("an mlp with batch norm and dropout", function()
    local m = model()
    local deep = mr.mlp(m, "deep", 4, { 5, 3, 1 }, { batch_norm = true, dropout = 0.2,
      activation = "tanh" })
    local leaves = { { 6, 4 } }
    for _, name in ipairs { "deep.1.w", "deep.1.norm.gamma", "deep.1.norm.beta", "deep.2.w",
      "deep.3.w", "deep.3.b" } do
      leaves[#leaves + 1] = assert(m.params[name], name)
    end
    check(function(x) return deep(x) end, leaves)
  end)

  it("binary cross-entropy and squared error", function()
    local y = { shape = { 4 }, values = { 0, 1, 0.3, 1 } }
    for _, loss in ipairs { mr.bce, mr.mse } do
      check(function(z) return loss(z * 4, layers.tensor(y.shape, y.values)) end, { { 4, 1 } })
      check(function(z)
        return loss(z, layers.tensor(y.shape, y.values),
          { weight = layers.tensor({ 4 }, { 1, 0, 2, 0.5 }) })
      end, { { 4 } })
    end
  end)

  it("losses of a score and a label, with weights and settings", function()
    local cases = {
      { "bce", { 0, 1, 0.3, 1 }, {}, { pos_weight = 3 }, { label_smoothing = 0.1, pos_weight = 0.5 } },
      { "mse", { 0.5, -1, 3, 2 }, {} }, { "mae", { 0.5, -1, 3, 2 }, {} },
      { "huber", { 0.5, -1, 3, 2 }, {}, { delta = 0.3 }, { delta = 2.5 } },
      { "hinge", { 0, 1, -1, 1 }, {} }, { "poisson", { 0, 1, 7, 2.5 }, {} },
      { "quantile", { 0.5, -1, 3, 2 }, {}, { q = 0.9 } },
    }
    for _, case in ipairs(cases) do
      for i = 3, #case do
        for _, weights in ipairs { false, { 1, 0, 2, 0.5 } } do
          check(function(z)
            local o = { weight = weights and layers.tensor({ 4 }, weights) }
            for name, setting in pairs(case[i]) do o[name] = setting end
            return mr[case[1]](z * 3, layers.tensor({ 4 }, case[2]), o)
          end, { { 4, 1 } })
        end
      end
    end
  end)

  it("losses of a difference, by both sides", function()
    for _, loss in ipairs { mr.bpr, mr.mse, mr.mae, mr.huber, mr.quantile } do
      check(function(a, b) return loss(a * 3, b * 3) end, { { 4, 1 }, { 4 } })
      check(function(a) return loss(a, a * a * 2) end, { { 4, 1 } })
      check(function(a, b) -- both are of use to others, too
        local x, y = a * 3, b * 3
        return loss(x, y) + (y * y):sum() + (x * x):sum()
      end, { { 4, 1 }, { 4 } })
    end
  end)

  it("softmax cross-entropy, of classes and probabilities", function()
    for _, o in ipairs { {}, { label_smoothing = 0.2 } } do
      for _, weights in ipairs { false, { 2, 0, 0.5 } } do
        check(function(z)
          o.weight = weights and layers.tensor({ 3 }, weights)
          return mr.cross_entropy(z * 3, layers.tensor({ 3 }, { 3, 0, 2 }), o)
        end, { { 3, 4 } })
        check(function(z)
          o.weight = weights and layers.tensor({ 3 }, weights)
          return mr.cross_entropy(z * 3, layers.tensor({ 3, 2 }, { 0.2, 0.8, 1, 0, 0.5, 0.5 }), o)
        end, { { 3, 2 } })
      end
    end
  end)

  it("pairwise and listwise losses within groups", function()
    for _, loss in ipairs { mr.pairwise, mr.listwise } do
      for _, groups in ipairs { false, { 5, 2, 5, 5, 2, 7, 9, 9 } } do
        for _, weights in ipairs { false, { 1, 0.5, 2, 0, 3, 1, 1, 0.2 } } do
          check(function(a)
            return loss(a * 3, layers.tensor({ 8 }, { 1, 0, 0, 2, 3, 1, 0, 0 }), {
              group = groups and layers.tensor({ 8 }, groups),
              weight = weights and layers.tensor({ 8 }, weights) })
          end, { { 8, 1 } })
        end
      end
    end
  end)

  it("the softmax over a batch's items, by users and items", function()
    check(function(u, v) return mr.in_batch_softmax(u, v) end, { { 5, 3 }, { 5, 3 } })
    check(function(u) return mr.in_batch_softmax(u, u * u) end, { { 5, 3 } })
    check(function(u, v)
      return mr.in_batch_softmax(mr.l2_normalize(u), mr.l2_normalize(v), {
        label = layers.tensor({ 5 }, { 1, 0, 1, 0.5, 1 }), weight = layers.tensor({ 5 }, { 1, 1, 2, 3, 0 }),
        log_q = layers.tensor({ 5 }, { -1, -2, -0.5, -1, -3 }), id = layers.tensor({ 5 }, { 1, 2, 1, 1, 3 }),
        temperature = 0.3 })
    end, { { 5, 3 }, { 5, 3 } })
  end)

  it("rows of length 1", function()
    check(function(x) return mr.l2_normalize(x) end, { { 2, 3, 4 } })
    check(function(x) return mr.l2_normalize(x) * x end, { { 4, 3 } })
  end)

  it("losses that are added and scaled", function()
    check(function(a, b)
      local y = layers.tensor({ 3 }, { 1, 0, 1 })
      return mr.bce(a, y) + 0.3 * mr.mse(b, y) - mr.bce(b, y) / 2
    end, { { 3, 1 }, { 3, 1 } })
  end)

  it("sums, means, fields and the FM interaction of rows", function()
    for _, make in ipairs { batches.sets, batches.fielded, batches.valued } do
      local batch, unique = make()
      for _, dim in ipairs { 1, 2, 4, 7, 8, 16, 21, 32 } do
        local rows = { batch = batch.c, unique = unique, dims = { 1, dim, 3 } }
        check(function(r) return r[2]:sum() end, { rows })
        check(function(r) return r[2]:mean() end, { rows })
        check(function(r) return mr.fm(r[2]) end, { rows })
        check(function(r) return r[1]:sum() + mr.fm(r[2]) * 2 + r[3]:sum():sum() end, { rows })
        for _, how in ipairs { "sum", "mean", "sqrtn", "weighted_mean", "max" } do
          check(function(r) return r[2][how](r[2]) + r[2]:sum() end, { rows })
          if batch.c.fields > 0 then check(function(r) return r[2]:fields(how) end, { rows }) end
        end
        for field = 1, batch.c.fields do
          for length = 1, 3 do
            check(function(r)
              local keys, mask = r[2]:sequence(field, length, length == 3)
              return keys * (mask:reshape(-1, keys:dim(2), 1) + 1) + keys
            end, { rows })
          end
        end
      end
    end
  end)

  it("the bi-interaction, and of a column that other operations read as well", function()
    for _, make in ipairs { batches.sets, batches.fielded, batches.valued } do
      local batch, unique = make()
      for _, dim in ipairs { 1, 2, 4, 7, 16, 21 } do
        local rows = { batch = batch.c, unique = unique, dims = { 1, dim } }
        check(function(r) return mr.bi_interaction(r[2]) end, { rows })
        check(function(r) return mr.bi_interaction(r[2]):sum() * mr.fm(r[2]) + r[1]:sum() end, { rows })
      end
    end
  end)

  it("the field-aware interaction", function()
    for _, make in ipairs { batches.fielded, batches.valued, batches.crowded } do
      local batch, unique = make()
      for _, k in ipairs { 1, 2, 4, 5, 8, 16, 18 } do
        local rows = { batch = batch.c, unique = unique, dims = { 1, batch.c.fields * k, 2 } }
        check(function(r) return mr.ffm(r[2], batch.c.fields) end, { rows })
        check(function(r)
          return mr.ffm(r[2], batch.c.fields) * 2 + r[2]:sum():sum() * r[1]:sum() + r[3]:sum():sum()
        end, { rows })
      end
    end
  end)

  it("inner and outer products", function()
    for _, shape in ipairs { { 3, 2, 4 }, { 2, 5, 1 }, { 2, 19, 3 }, { 3, 4, 21 } } do
      check(function(x) return mr.inner_products(x) end, { shape })
      check(function(x) return mr.inner_products(x) * 2 + mr.inner_products(x) end, { shape })
      check(function(x) return mr.inner_products(x, x) end, { shape })
      local pairs_of_fields = shape[2] * (shape[2] - 1) / 2
      check(function(x, r) return mr.fwfm(x, r) end, { shape, { pairs_of_fields } })
      for _, others in ipairs { 1, 3, 17 } do
        check(function(x, y) return mr.inner_products(x, y) end, { shape, { shape[1], others, shape[3] } })
      end
    end
    check(function(s) return mr.outer_products(s) end, { { 3, 4 } })
  end)

  it("cross networks of all kinds", function()
    for _, options in ipairs { { kind = "vector" }, { kind = "matrix" }, { rank = 2 } } do
      for _, shape in ipairs { { 5, 3, 2 }, { 4, 1 } } do
        local m, d = model(), (shape[2] or 1) * (shape[3] or 1)
        local net = mr.cross_network(m, "net", d, 3, { kind = options.kind, rank = options.rank })
        local leaves = { shape }
        for _, p in pairs(m.params) do leaves[#leaves + 1] = p end
        check(function(x) return net(x) end, leaves)
      end
    end
  end)

  it("compressed interactions", function()
    for _, dim in ipairs { 1, 4, 150 } do
      local m = model()
      local net = mr.cin(m, "net", 3, { 5, 2, 3 })
      local leaves = { { dim == 150 and 3 or 40, 3, dim } }
      for _, p in pairs(m.params) do leaves[#leaves + 1] = p end
      check(function(x) return net(x * 0.5) + net(x) end, leaves)
    end
  end)

  it("an operation written in Lua", function()
    local mish = mr.operation {
      name = "softplus",
      forward = function(out, a, n)
        for i = 0, n - 1 do out[i] = math.log(1 + math.exp(a[i])) end
      end,
      backward = function(grad, _, a, da, n)
        for i = 0, n - 1 do da[i] = da[i] + grad[i] / (1 + math.exp(-a[i])) end
      end,
    }
    local dot = mr.operation {
      name = "dot", shape = function(a) return a:dim(1), 1 end,
      forward = function(out, a, b, n, counts)
        local d = counts[1] / n
        for s = 0, n - 1 do
          out[s] = 0
          for i = s * d, s * d + d - 1 do out[s] = out[s] + a[i] * b[i] end
        end
      end,
      backward = function(grad, _, a, b, da, db, n, counts)
        local d = counts[1] / n
        for s = 0, n - 1 do
          for i = s * d, s * d + d - 1 do
            da[i], db[i] = da[i] + grad[s] * b[i], db[i] + grad[s] * a[i]
          end
        end
      end,
    }
    check(function(a) return mish(a) end, { { 3, 4 } })
    check(function(a, b) return mish(dot(a, b)) * dot(a, a) end, { { 3, 4 }, { 3, 4 } })
  end)
end)

-- The options of layers, losses and initializers, each by what it does to numbers or params; in float64 by definition.
local C = require "moonrock.ffi"
local mr = require "moonrock"
local raises = require "tests.support.raises"
local shell = require "tests.support.shell"

local dir = shell.directory()
local path = shell.write(dir .. "/a.svm", "1 1:1\n0 2:1\n1 3:1\n0 1:1\n")
local data = mr.data { files = path, format = "libsvm" }

-- A model whose function is what `declare(m)` returns; it is given tensors made of lists, and returns one.
local function model_of(declare, options)
  local f
  local m = mr.model("layers", function(self, opt)
    f = declare(self, opt)
    local row = self:table("t", { w = { dim = 1 } })
    return function(x) return self.inside and self.inside(f, x) or row(x).w:sum() end
  end, { optim = mr.optim.sgd { lr = 0.1 } })(options or { data = data })
  return m
end

local function flat(tensor)
  local list = {}
  for i = 1, tensor:count() do list[i] = tensor:reshape(-1):get(i) end
  return list
end

-- What a model's function gives for inputs, in training or not; then a step, if there is to be one.
local function values(m, training, inputs, step)
  local got, loss
  m.inside = function(f, x)
    local tensors = {}
    for i, given in ipairs(inputs) do tensors[i] = mr.tensor(given) end
    local result = f(unpack(tensors))
    got, loss = flat(result), step and result:reshape(-1):sum(1)
    return mr.tensor { { x.n } }
  end
  if training then m:train() else m:eval() end
  local it = data:batches(path, { size = 4 })
  m(it())
  if step then
    loss:backward()
    m:step()
  end
  it:close()
  m:train()
  return got
end

local function near(expected, got, tolerance)
  assert.equal(#expected, #got)
  for i = 1, #expected do assert.near(expected[i], got[i], tolerance or 1e-5) end
end

local function param(m, name)
  for _, p in ipairs(m.params) do
    if p.name == name then return p end
  end
end

local function names(m)
  local list = {}
  for i, p in ipairs(m.params) do list[i] = p.name end
  table.sort(list)
  return table.concat(list, " ")
end

local function set(m, name, list)
  local p = assert(param(m, name), name)
  for i, value in ipairs(list) do C.mr_param_data(p.c)[i - 1] = value end
end

local function one(m, name, list) set(m, name, list) return m end

-- Each model is promised memory for as long as it is open.
after_each(function()
  collectgarbage()
  collectgarbage()
end)

describe("a linear layer", function()
  it("adds its bias, which bias = false leaves out", function()
    local m = model_of(function(m) return mr.linear(m, "l", 2, 1) end)
    set(m, "l.w", { 2, 3 })
    set(m, "l.b", { 10 })
    near({ 2 + 6 + 10 }, values(m, true, { { { 1, 2 } } }))
    assert.equal("l.w", names(model_of(function(n) return mr.linear(n, "l", 2, 1, { bias = false }) end)))
  end)
end)

describe("a norm", function()
  local x = { { 1, 2 }, { 3, 6 }, { 8, 10 } }

  it("of batches moves its statistics by its momentum, by the rows that its mask has", function()
    for _, momentum in ipairs { 0.1, 0.4 } do
      local m = model_of(function(m)
        return mr.batch_norm(m, "n", 2, { momentum = momentum ~= 0.1 and momentum or nil })
      end)
      values(m, true, { x }, true)
      assert.near(momentum * 4, param(m, "n.mean"):weight(1), 1e-6)
      assert.near(momentum * 6, param(m, "n.mean"):weight(2), 1e-6)
    end
    local m = model_of(function(m) return mr.batch_norm(m, "n", 2) end)
    values(m, true, { x, { 1, 1, 0 } }, true)
    assert.near(0.1 * 2, param(m, "n.mean"):weight(1), 1e-6)
  end)

  it("of samples adds its eps", function()
    for _, eps in ipairs { 1e-5, 3 } do
      local m = model_of(function(m) return mr.layer_norm(m, "n", 2, { eps = eps ~= 1e-5 and eps or nil }) end)
      near({ -1 / math.sqrt(1 + eps), 1 / math.sqrt(1 + eps) }, values(m, true, { { { 1, 3 } } }))
    end
  end)
end)

describe("activations that learn", function()
  it("scale what is negative, from where they begin", function()
    near({ -0.5, 3 }, values(model_of(function(m) return mr.prelu(m, "p", 2) end), true, { { { -2, 3 } } }))
    local dice = one(model_of(function(m) return mr.dice(m, "d", 1, { eps = 1e-12 }) end), "d.alpha", { 0.5 })
    local got = values(dice, true, { { { -1 }, { 3 } } })
    local p = 1 / (1 + math.exp(1)) -- normalised: -1 and 1
    near({ p * -1 + (1 - p) * 0.5 * -1, (1 - p) * 3 + p * 0.5 * 3 }, got)
  end)
end)

describe("an mlp", function()
  it("has its norm in front of the activation, no bias behind one, and its optimizer for all", function()
    local m = model_of(function(m)
      return mr.mlp(m, "d", 2, { 2, 1 }, { layer_norm = true, optim = mr.optim.sgd { lr = 0.7 } })
    end)
    assert.equal("d.1.norm.beta d.1.norm.gamma d.1.w d.2.b d.2.w", names(m))
    for _, p in ipairs(m.params) do assert.near(0.7, C.mr_param_optim(p.c).lr, 1e-6) end
    set(m, "d.1.w", { 1, 0, 0, 1 })
    set(m, "d.2.w", { 1, 1 })
    near({ 1 }, values(m, true, { { { -3, -1 } } }), 1e-4) -- normalised to -1 and 1, then relu
  end)

  it("keeps its last layer free of the hidden activation and of dropout", function()
    local m = model_of(function(m) return mr.mlp(m, "d", 1, { 1, 1 }) end)
    set(m, "d.1.w", { 1 })
    set(m, "d.2.w", { -1 })
    near({ -2 }, values(m, true, { { { 2 } } }))
    m = model_of(function(n) return mr.mlp(n, "d", 1, { 1, 1 }, { last = "relu" }) end)
    set(m, "d.1.w", { 1 })
    set(m, "d.2.w", { -1 })
    near({ 0 }, values(m, true, { { { 2 } } }))
    m = model_of(function(n) return mr.mlp(n, "d", 1, { 64 }, { dropout = 0.5 }) end)
    local undropped = values(m, false, { { { 1 } } })
    near(undropped, values(m, true, { { { 1 } } }))
    m = model_of(function(n) return mr.mlp(n, "d", 1, { 64, 1 }, { dropout = 0.5 }) end)
    assert.not_same(values(m, false, { { { 1 } } }), values(m, true, { { { 1 } } }))
  end)

  it("leaves biases out, and starts the last by the labels alone", function()
    assert.equal("d.1.w d.2.w", names(model_of(function(m) return mr.mlp(m, "d", 1, { 1, 1 }, { bias = false }) end)))
    local m = model_of(function(n) return mr.mlp(n, "d", 1, { 1, 1 }, { bias_init = "label" }) end)
    assert.is_true(param(m, "d.2.b").from_label)
    assert.is_false(param(m, "d.1.b").from_label)
  end)
end)

describe("attention", function()
  -- Two fields of one number; query, key and value are the identity.
  local function attend(options, mask)
    local o = { heads = 1, residual = false }
    for name, value in pairs(options) do o[name] = value end
    local m = model_of(function(m) return mr.multi_head_attention(m, "a", 4, o) end)
    for _, part in ipairs { "query", "key", "value", "residual" } do
      if param(m, "a." .. part) then set(m, "a." .. part, { 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1 }) end
    end
    return values(m, true, { { { { 1, 0, 0, 0 }, { 0, -2, 0, 0 } } }, mask })
  end
  -- Shares of the two fields for a query, by the products of both with it over `by`.
  local function softmax(a, b) return math.exp(a) / (math.exp(a) + math.exp(b)), math.exp(b) / (math.exp(a) + math.exp(b)) end
  local function by(scale, f)
    local a, b = softmax(1 * scale, 0)
    local c, d = softmax(0, 4 * scale)
    return { f(a), f(-2 * b), 0, 0, f(c), f(-2 * d), 0, 0 }
  end
  local function same(x) return x end
  local function relu(x) return math.max(x, 0) end

  it("divides by the root of its width, unless scale = false; relu = false shows what is negative", function()
    near(by(1 / 2, same), attend { relu = false })
    near(by(1 / 2, relu), attend {})
    near(by(1, same), attend { relu = false, scale = false })
  end)

  it("adds what goes around it, and attends to nothing that is masked", function()
    local expected = by(1 / 2, same)
    for i, x in ipairs { 1, 0, 0, 0, 0, -2, 0, 0 } do expected[i] = expected[i] + x end
    near(expected, attend { relu = false, residual = true })
    near({ 1, 0, 0, 0, 1, 0, 0, 0 }, attend({ relu = false }, { { 1, 0 } }))
  end)

  it("on a sequence leaves out what is padded, by all three kinds of weights", function()
    for _, kind in ipairs { "linear", "sigmoid", "softmax" } do
      local m = model_of(function(m)
        return mr.attention_pool(m, "p", 1, { hidden = { 2 }, activation = "relu", weights = kind })
      end)
      set(m, "p.2.b", { 0.5 })
      local short = values(m, true, { { { 1 } }, { { { 2 } } }, { { 1 } } })
      local padded = values(m, true, { { { 1 } }, { { { 2 }, { 9 } } }, { { 1, 0 } } })
      near(short, padded)
      assert.truthy(math.abs(short[1]) > 1e-3)
    end
  end)
end)

describe("gates", function()
  it("squeeze fields to their means", function()
    local m = model_of(function(m) return mr.squeeze_excitation(m, "s", 2, { ratio = 2, activation = "none" }) end)
    set(m, "s.1.w", { 1, 1 })
    set(m, "s.2.w", { 1, 10 })
    -- means 2 and 4, one number 6, factors 6 and 60
    near({ 6, 18, 180, 300 }, values(m, true, { { { { 1, 3 }, { 3, 5 } } } }))
  end)

  it("of mmoe are shares that add up to 1", function()
    local m = model_of(function(m) return mr.mmoe(m, "e", 1, { experts = 2, tasks = 1, hidden = { 1 }, activation = "none" }) end)
    set(m, "e.1.1.w", { 1 })
    set(m, "e.2.1.w", { 3 })
    set(m, "e.gate.w", { 0, math.log(3) })
    near({ 1 / 4 * 1 + 3 / 4 * 3 }, values(m, true, { { { 1 } } }))
  end)
end)

describe("a cross network", function()
  it("crosses with its first input in every layer, and adds its biases", function()
    local function network(kind, w1, w2, b)
      local m = model_of(function(m) return mr.cross_network(m, "c", 2, 2, { kind = kind }) end)
      set(m, "c.1.w", w1)
      set(m, "c.2.w", w2)
      set(m, "c.1.b", b)
      return values(m, true, { { { 2, 3 } } })
    end
    -- vector: x1 = x0 (x0 w) + b + x0; x2 = x0 (x1 w) + x1
    local x1 = { 2 * 5 + 0.5 + 2, 3 * 5 + 0.25 + 3 }
    local s = x1[1] + x1[2]
    near({ 2 * s + x1[1], 3 * s + x1[2] }, network("vector", { 1, 1 }, { 1, 1 }, { 0.5, 0.25 }))
    -- matrix: x1 = x0 (x0 W + b) + x0
    x1 = { 2 * (2 + 0.5) + 2, 3 * (3 + 0.25) + 3 }
    near({ 2 * x1[1] + x1[1], 3 * x1[2] + x1[2] }, network("matrix", { 1, 0, 0, 1 }, { 1, 0, 0, 1 }, { 0.5, 0.25 }))
  end)
end)

describe("a loss", function()
  local weighted = shell.write(dir .. "/w.csv", "y,c,s\n1,a,5\n0,b,1\n1,c,2\n")
  local schema = mr.schema { name = "w", label = "y", weight = "s", fields = { mr.category "c" } }

  local function loss(f)
    local it = schema:batches(weighted, { size = 3 })
    local m = model_of(function() end, { data = schema, schema = schema })
    local got
    m.inside = function(_, x)
      got = f(mr.tensor { 0.5, -1, 2 }, x.label):value()
      return mr.tensor { { x.n } }
    end
    m(it())
    it:close()
    return got
  end
  local function softplus(z) return math.log(1 + math.exp(z)) end
  local each = { softplus(-0.5), softplus(-1), softplus(-2) }

  it("takes the batch's weights, those that it is given, or none by weight = false", function()
    assert.near((5 * each[1] + each[2] + 2 * each[3]) / 3, loss(mr.bce), 1e-6)
    assert.near((each[1] + each[2] + each[3]) / 3, loss(function(z, y) return mr.bce(z, y, { weight = false }) end), 1e-6)
    assert.near((each[1] + 7 * each[2]) / 3,
      loss(function(z, y) return mr.bce(z, y, { weight = mr.tensor { 1, 7, 0 } }) end), 1e-6)
  end)

  it("checks options for itself, also those that another took before", function()
    local o = { delta = 2 }
    loss(function(z, y) return mr.huber(z, y, o) end)
    raises('mse has no option "delta"', loss, function(z, y) return mr.mse(z, y, o) end)
  end)

  it("divides by its temperature, and takes logarithms of frequencies off", function()
    local function in_batch(o)
      return loss(function() return mr.in_batch_softmax(mr.tensor { { 1 }, { 2 } }, mr.tensor { { 1 }, { -1 } }, o and o()) end)
    end
    local function expected(t, q1, q2)
      local function ce(own, other) return softplus(other - own) end
      return (ce(1 / t - q1, -1 / t - q2) + ce(-2 / t - q2, 2 / t - q1)) / 2
    end
    assert.near(expected(1, 0, 0), in_batch(), 1e-6)
    assert.near(expected(4, 0, 0), in_batch(function() return { temperature = 4 } end), 1e-6)
    assert.near(expected(1, -1, -3), in_batch(function() return { log_q = mr.tensor { -1, -3 } } end), 1e-6)
  end)

  it("knows how often keys come by the rate it is told", function()
    local function after(rate)
      local m = model_of(function(m) return mr.frequency(m, "q", { rate = rate, buckets = 64 }) end)
      local got
      m.inside = function(f, x)
        got = f(x:keys(1)):get(1)
        return mr.tensor { { x.n } }
      end
      local fields = mr.data { files = path, format = "libsvm", fields = 1 }
      local it = fields:batches(path, { size = 1, epochs = 8 })
      for batch in it do
        mr.bce(m(batch), batch.label)
        m:step()
      end
      it:close()
      return got
    end
    assert.truthy(math.abs(after(0.05) - after(0.9)) > 0.1)
  end)
end)

describe("an initializer", function()
  it("by a param's shape has the variance of its formula", function()
    local function deviation(init)
      local m = model_of(function(m) m:param("p", { 40, 1000 }, { init = init }) end)
      local p, sum = C.mr_param_data(m.params[1].c), 0
      for i = 0, 39999 do sum = sum + p[i] ^ 2 end
      return math.sqrt(sum / 40000)
    end
    -- 40,000 numbers: a relative error of the deviation of 0.0035
    assert.near(1, deviation "xavier_uniform" / math.sqrt(2 / 1040), 0.02)
    assert.near(1, deviation "xavier_normal" / math.sqrt(2 / 1040), 0.02)
    assert.near(1, deviation "he_uniform" / math.sqrt(2 / 40), 0.02)
    assert.near(1, deviation "he_normal" / math.sqrt(2 / 40), 0.02)
  end)

  it("of a quantile function asks for the middles of its parts", function()
    local asked = {}
    mr.init.quantile(function(u)
      asked[#asked + 1] = u
      return u
    end)
    assert.equal(65536, #asked)
    assert.equal(0.5 / 65536, asked[1])
    assert.equal(1 - 0.5 / 65536, asked[65536])
  end)
end)

describe("an optimizer in Lua", function()
  it("has the rate of the step, on rows and dense weights of any size, and views that end with it", function()
    local rates, kept, n = {}, nil, 0
    local mine = mr.optimizer { name = "mine", lr = 1, state = 2, update = function(w, g, state, count, _, o)
      rates[#rates + 1] = o.lr
      kept = w
      for i = 0, count - 1 do
        w[i] = w[i] - o.lr
        state[count + i] = state[count + i] + g[i] * 0 + 1
      end
      n = n + count
    end }
    local m = mr.model("mine", function(self)
      local row = self:table("t", { w = { dim = 1 } })
      local big = self:param("big", { 40000 })
      return function(x) return row(x).w:sum() + big:sum() * 0 end
    end, { optim = mine, data = data }) { data = data, schedule = "step(1, 0.5)" }
    local it = m:batches(path, { size = 2 })
    for batch in it do
      mr.bce(m(batch), batch.label):backward()
      m:step()
    end
    assert.equal(2 + 2 + 40000 * 2, n)
    for i, rate in ipairs(rates) do assert.equal(i <= #rates / 2 and 1 or 0.5, rate) end
    local big = C.mr_param_data(m.params[1].c)
    for _, i in ipairs { 0, 16383, 16384, 32768, 39999 } do assert.equal(-1.5, big[i]) end
    raises("", function() return kept[0] end)
  end)
end)

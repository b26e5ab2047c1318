-- Operations, layers and losses on more than one piece of work: gradients along random directions in double,
-- and in floats against those in double, at sizes below, at and beyond each piece, block and lane. Then the same
-- under every instruction set. Small shapes, element by element, are in gradient_spec.lua; definitions in
-- op_spec.lua.
local mr = require "moonrock"
local layers = require "moonrock.layers"
local tape = require "moonrock.tape"
local batches = require "tests.support.batches"
local model = require "tests.support.params"
local shell = require "tests.support.shell"

local LEVEL = os.getenv "MOONROCK_KERNELS"
local DIRECTIONS = 2
local TOLERANCE = 2e-6  -- of slopes in double: differences of a step of 1e-5
local SINGLE = 3e-4     -- of floats: sums of hundreds of products, divided by their largest

-- So many numbers between low and high, none near the middle.
local function numbers(n, low, high, seed)
  local list, state = {}, seed or 17
  for i = 1, n do
    state = (state * 16807) % 2147483647
    list[i] = low + (high - low) * (state / 2147483647)
  end
  return list
end

local function whole(n, count, seed)
  local list = numbers(n, 0, count, seed)
  for i = 1, n do list[i] = math.min(math.floor(list[i]), count - 1) end
  return list
end

local function check(what, f, leaves, floats)
  -- A maximum has corners, and between them no curve that a small step would lose.
  local e, where = mr.gradcheck(f, leaves, { directions = DIRECTIONS, step = what:find "max " and 1e-8 or nil })
  assert.is_true(e <= TOLERANCE, ("%s: %g at %s"):format(what, e, where))
  if floats ~= false then
    e, where = mr.gradcheck(f, leaves, { floats = true })
    assert.is_true(e <= (floats or SINGLE), ("%s, floats: %g at %s"):format(what, e, where))
  end
end

local function with_params(m, ...)
  local leaves = { ... }
  for _, p in pairs(m.params) do
    if p.trainable then leaves[#leaves + 1] = p end
  end
  return leaves
end

-- Samples and columns: at the edges of lanes (8, 16), columns (32, 64), samples (32, 64, 128, 512, 1024) and
-- elements (1024, 16384) of a piece.
local SIZES = { { 1, 1 }, { 1, 200 }, { 63, 7 }, { 64, 8 }, { 65, 17 }, { 127, 3 }, { 129, 65 }, { 200, 33 },
  { 33, 64 }, { 513, 5 }, { 1100, 2 }, { 129, 130 } }

local function each_size(f)
  for _, size in ipairs(SIZES) do f(size[1], size[2], ("%d x %d"):format(size[1], size[2])) end
end

describe("beyond one piece of work, gradients of", function()
  it("arithmetic, whatever is repeated", function()
    each_size(function(n, d, what)
      for _, other in ipairs { { n, d }, { d }, { 1, d }, { n, 1 }, { 1 } } do
        check("add " .. what, function(a, b) return a + b * 3 end, { { n, d }, other })
        check("mul " .. what, function(a, b) return a * b end, { { n, d }, other })
        check("sub and div " .. what, function(a, b) return b - a / (b + 3) end, { { n, d }, other })
      end
    end)
  end)

  it("functions of one element", function()
    each_size(function(n, d, what)
      for _, name in ipairs { "relu", "leaky_relu", "sigmoid", "tanh", "gelu", "silu", "exp", "abs", "square" } do
        check(name .. " " .. what, function(a) return a[name](a * 2) end, { { n, d } })
      end
      check("log and sqrt " .. what, function(a) return (a + 2):log() + (a + 2):sqrt() end, { { n, d } })
      check("dropout " .. what, function(a) return mr.dropout(a, 0.4) * a end, { { n, d } })
    end)
  end)

  it("a function of one element in Lua", function()
    local curve = mr.operation { name = "curve", element = function(x) return x * x / (1 + x * x) end }
    each_size(function(n, d, what) check("curve " .. what, function(a) return curve(a) end, { { n, d } }) end)
  end)

  it("sums, means, maxima and softmax along both axes", function()
    each_size(function(n, d, what)
      for axis = 1, 2 do
        for _, name in ipairs { "sum", "mean", "max" } do
          check(name .. " " .. what, function(a) return a[name](a, axis, true) * a end, { { n, d } })
        end
      end
      check("sum of all " .. what, function(a) return (a * a):sum() * (a * 3):mean() end, { { n, d } })
      check("softmax " .. what, function(a) return (a * 3):softmax() end, { { n, d } })
      check("masked softmax " .. what, function(a)
        return (a * 3):softmax(layers.tensor({ n, d }, whole(n * d, 2)))
      end, { { n, d } })
    end)
  end)

  it("what moves elements", function()
    each_size(function(n, d, what)
      check("transpose " .. what, function(a) return a:transpose(1, 2) * 2 end, { { n, d } })
      check("concat " .. what, function(a, b) return mr.concat(a, b, a) end, { { n, d }, { n, 3 } })
      check("stack " .. what, function(a, b) return mr.stack({ a, b, a }, 2) end, { { n, d }, { n, d } })
      if n > 1 then check("slice " .. what, function(a) return a:slice(1, 2, n) end, { { n, d } }) end
      if d > 1 then check("slice " .. what, function(a) return a:slice(2, 2, d) end, { { n, d } }) end
      check("reshape " .. what, function(a) return a:reshape(d, n) * a:reshape(d, n) end, { { n, d } })
    end)
  end)

  it("products of matrices", function()
    for _, s in ipairs { { 1, 65, 1 }, { 63, 8, 17 }, { 65, 200, 33 }, { 129, 7, 64 }, { 130, 64, 65 } } do
      local a, b, c = s[1], s[2], s[3]
      local what = table.concat(s, " x ")
      check(what, function(x, y) return x:matmul(y) end, { { 2, a, b }, { 2, b, c } })
      check(what, function(x, y) return x:matmul(y, true) end, { { 3, a, b }, { 3, c, b } })
      check(what, function(x, y) return x:matmul(y) end, { { 2, a, b }, { b, c } })
    end
  end)

  it("a linear layer, with and without bias and activation", function()
    for _, s in ipairs { { 1, 200, 65 }, { 65, 129, 64 }, { 129, 64, 1 }, { 200, 5, 130 }, { 1100, 7, 65 },
      { 1537, 130, 3 } } do
      local n, d, out = s[1], s[2], s[3]
      for _, act in ipairs { "none", "relu", "sigmoid", "tanh" } do
        local what = ("%s %s"):format(act, table.concat(s, " x "))
        -- Pushed from 0, so that no step of a difference crosses relu's corner.
        local shift = act == "relu" and 1e3 or 0
        check(what, function(x, w, b) return layers.affine(x, w, b + shift, act) * 0.1 end,
          { { n, d }, { d, out }, { out } }, act ~= "relu" and SINGLE or 1e-2)
        if act ~= "relu" then
          check(what, function(x, w) return layers.affine(x, w, nil, act) end, { { n, d }, { d, out } })
        end
      end
    end
  end)

  it("batch norm and layer norm", function()
    each_size(function(n, d, what)
      for _, affine in ipairs { true, false } do
        local m = model()
        local norm = n > 1 and mr.batch_norm(m, "norm", d, { affine = affine })
        if norm then check("batch norm " .. what, function(x) return norm(x) * x end, with_params(m, { n, d }), 2e-3) end
        m = model()
        local layer = d > 2 and mr.layer_norm(m, "norm", d, { affine = affine })
        if layer then check("layer norm " .. what, function(x) return layer(x) * x end, with_params(m, { n, d }), 2e-3) end
      end
    end)
  end)

  it("prelu and dice", function()
    each_size(function(n, d, what)
      local m = model()
      local act = mr.prelu(m, "act", d)
      check("prelu " .. what, function(x) return act(x) end, with_params(m, { n, d }))
      if n > 1 then
        m = model()
        act = mr.dice(m, "act", d)
        check("dice " .. what, function(x) return act(x) end, with_params(m, { n, d }), 2e-3)
      end
    end)
  end)
end)

describe("beyond one piece of work, gradients of losses,", function()
  local N = { 1, 63, 64, 65, 200, 513, 1100 }

  it("of a score and a label, with weights", function()
    for _, n in ipairs(N) do
      local some = numbers(n, 0.5, 3)
      local weight = numbers(n, 0, 2, 5)
      for name, case in pairs {
        bce = { whole(n, 2), { pos_weight = 3, label_smoothing = 0.1 } }, mse = { some, {} }, mae = { some, {} },
        huber = { some, { delta = 0.7 } }, hinge = { whole(n, 2), {} }, poisson = { some, {} },
        quantile = { some, { q = 0.8 } },
      } do
        for _, weighted in ipairs { true, false } do
          check(("%s of %d"):format(name, n), function(z)
            local o = { weight = weighted and layers.tensor({ n }, weight) or nil }
            for key, value in pairs(case[2]) do o[key] = value end
            return mr[name](z * 0.4, layers.tensor({ n }, case[1]), o)
          end, { { n, 1 } })
        end
      end
      check("bpr of " .. n, function(a, b) return mr.bpr(a * 3, b * 3) end, { { n, 1 }, { n } })
    end
  end)

  it("of classes and probabilities, with weights", function()
    for _, n in ipairs(N) do
      for _, c in ipairs { 2, 17, 65 } do
        local weight = numbers(n, 0, 2, 5)
        check(("classes %d x %d"):format(n, c), function(z)
          return mr.cross_entropy(z * 3, layers.tensor({ n }, whole(n, c)),
            { weight = layers.tensor({ n }, weight), label_smoothing = 0.2 })
        end, { { n, c } })
        check(("classes %d x %d, all alike"):format(n, c), function(z)
          return mr.cross_entropy(z * 3, layers.tensor({ n }, whole(n, c)))
        end, { { n, c } })
      end
    end
  end)

  it("of pairs and lists within groups, with weights", function()
    for _, n in ipairs { 2, 63, 65, 200, 300 } do
      for _, groups in ipairs { 1, 7, 130 } do
        for _, name in ipairs { "pairwise", "listwise" } do
          check(("%s of %d in %d"):format(name, n, groups), function(a)
            return mr[name](a * 3, layers.tensor({ n }, whole(n, 4)), {
              group = layers.tensor({ n }, whole(n, groups, 99)), weight = layers.tensor({ n }, numbers(n, 0, 2, 5)) })
          end, { { n, 1 } })
        end
      end
    end
  end)

  it("of users and the items of a batch", function()
    for _, n in ipairs { 2, 63, 64, 65, 129, 200 } do
      check("in-batch softmax of " .. n, function(u, v)
        return mr.in_batch_softmax(mr.l2_normalize(u), v, {
          label = layers.tensor({ n }, whole(n, 2)), weight = layers.tensor({ n }, numbers(n, 0.1, 2, 5)),
          log_q = layers.tensor({ n }, numbers(n, -3, 0)), id = layers.tensor({ n }, whole(n, 40, 3)),
          temperature = 0.7 })
      end, { { n, 9 }, { n, 9 } })
    end
  end)
end)

describe("beyond one piece of work, gradients of interactions,", function()
  it("products of fields", function()
    for _, s in ipairs { { 1, 3, 16 }, { 33, 19, 17 }, { 65, 5, 8 }, { 200, 4, 33 }, { 130, 39, 4 } } do
      local what, m = table.concat(s, " x "), model()
      local n, f, d = s[1], s[2], s[3]
      check("inner " .. what, function(x) return mr.inner_products(x) end, { s })
      check("fwfm " .. what, function(x, r) return mr.fwfm(x, r) end, { s, { f * (f - 1) / 2 } })
      check("between " .. what, function(x, y) return mr.inner_products(x, y) end, { s, { n, 5, d } })
      check("pairs " .. what, function(x) return mr.pairs(x) end, { s })
      check("outer " .. what, function(x) return mr.outer_products(x) end, { { n, d } })
      check("length 1 " .. what, function(x) return mr.l2_normalize(x) * x end, { s })
      local net = mr.cin(m, "net", f, { 7, 5 })
      check("cin " .. what, function(x) return net(x * 0.5) end, with_params(m, s))
      for _, options in ipairs { { kind = "vector" }, { kind = "matrix" }, { rank = 3 } } do
        m = model()
        local cross = mr.cross_network(m, "cross", f * d, 2, options)
        check("cross " .. what, function(x) return cross(x) end, with_params(m, s))
      end
    end
  end)

  it("attention", function()
    for _, n in ipairs { 1, 65, 200 } do
      local m = model()
      local attend = mr.multi_head_attention(m, "a", 8, { heads = 2, dim = 5, relu = false })
      check("heads of " .. n, function(x) return attend(x) end, with_params(m, { n, 7, 8 }))
      m = model()
      local pooled = mr.attention_pool(m, "p", 6, { hidden = { 9 }, weights = "softmax", activation = "tanh" })
      check("pool of " .. n, function(target, keys)
        return pooled(target, keys, layers.tensor({ n, 9 }, whole(n * 9, 2)))
      end, with_params(m, { n, 6 }, { n, 9, 6 }))
      m = model()
      local squeeze = mr.squeeze_excitation(m, "s", 9, { activation = "sigmoid" })
      check("squeeze of " .. n, function(x) return squeeze(x) end, with_params(m, { n, 9, 5 }))
      m = model()
      local mixed = mr.mmoe(m, "x", 9, { experts = 3, hidden = { 7, 5 }, activation = "tanh" })
      check("experts of " .. n, function(x) return mixed(x) end, with_params(m, { n, 9 }))
    end
  end)
end)

-- What f gives for the samples first to last alone, as a list of numbers; leaves are { shape, numbers }.
local function results(f, leaves, first, last)
  local t = tape.new { seed = 7 }
  t:begin(false, 1)
  local tensors = {}
  for i, leaf in ipairs(leaves) do
    local shape, each, part = { unpack(leaf[1]) }, 1, {}
    for axis = 2, #shape do each = each * shape[axis] end
    for e = (first - 1) * each + 1, last * each do part[#part + 1] = leaf[2][e] end
    shape[1] = last - first + 1
    tensors[i] = tape.tensor(shape, part)
  end
  local out = f(unpack(tensors))
  local data, n = out:data()
  local list = {}
  for i = 0, n - 1 do list[i + 1] = data[i] end
  t:free()
  return list
end

describe("beyond one piece of work, results of a sample", function()
  -- The whole batch against each of its samples alone.
  local function alone(what, n, f, ...)
    local leaves = {}
    for i, shape in ipairs { ... } do
      local count = n
      for axis = 2, #shape do count = count * shape[axis] end
      leaves[i] = { shape, numbers(count, -1, 1, 100 + i) }
    end
    local all = results(f, leaves, 1, n)
    local each = #all / n
    for s = 1, n do
      local one = results(f, leaves, s, s)
      assert(#one == each)
      for i = 1, each do
        local expected, got = one[i], all[(s - 1) * each + i]
        if not (math.abs(expected - got) <= 1e-5 * math.max(1, math.abs(expected))) then
          error(("%s: element %d of sample %d is %g in the batch, %g alone"):format(what, i, s, got, expected))
        end
      end
    end
  end

  it("do not depend on the others", function()
    for _, size in ipairs { { 65, 65 }, { 200, 33 }, { 1100, 3 }, { 129, 130 } } do
      local n, d = size[1], size[2]
      local what = ("%d x %d"):format(n, d)
      alone("arithmetic " .. what, n, function(a, b) return a * b - a / (b + 3) + 1 end, { n, d }, { n, d })
      alone("repeated " .. what, n, function(a, b) return a * b + b end, { n, d }, { n, 1 })
      for _, name in ipairs { "relu", "leaky_relu", "sigmoid", "tanh", "gelu", "silu", "exp", "abs", "square",
        "softmax" } do
        alone(name .. " " .. what, n, function(a) return a[name](a * 2) end, { n, d })
      end
      alone("reductions " .. what, n, function(a) return a:sum(2, true) + a:mean(2, true) * a:max(2, true) end, { n, d })
      alone("transpose " .. what, n, function(a) return a:reshape(-1, d, 1):transpose(2, 3) end, { n, d })
      alone("concat " .. what, n, function(a, b) return mr.concat(a, b, a) end, { n, d }, { n, 2 })
      alone("slice " .. what, n, function(a) return a:slice(2, 2, d) end, { n, d })
      local m = model()
      local deep = mr.mlp(m, "deep", d, { 65, 9, 1 }, { activation = "tanh" })
      alone("linear " .. what, n, function(a) return deep(a) end, { n, d })
      local norm, batch_norm = mr.layer_norm(m, "norm", d), mr.batch_norm(m, "batch", d)
      alone("norms " .. what, n, function(a) return norm(a) + batch_norm(a) end, { n, d })
      local act, dice = mr.prelu(m, "act", d), mr.dice(m, "dice", d)
      alone("prelu and dice " .. what, n, function(a) return act(a) + dice(a) end, { n, d })
      alone("outer " .. what, n, function(a, b) return mr.outer_products(a) + b:sum(2, true):reshape(-1, 1, 1) end,
        { n, 9 }, { n, 1 })
    end
    for _, s in ipairs { { 65, 5, 17 }, { 200, 19, 3 } } do
      local n, fields, d = s[1], s[2], s[3]
      local m, what = model(), table.concat(s, " x ")
      local cin, cross = mr.cin(m, "cin", fields, { 7, 5 }), mr.cross_network(m, "cross", fields * d, 2)
      local low = mr.cross_network(m, "low", fields * d, 2, { rank = 3 })
      local attend = mr.multi_head_attention(m, "a", d, { heads = 2, dim = 5 })
      local squeeze = mr.squeeze_excitation(m, "s", fields)
      local pool = mr.attention_pool(m, "p", d, { hidden = { 9 }, weights = "softmax" })
      local mixed = mr.mmoe(m, "x", fields * d, { experts = 3, hidden = { 7, 5 } })
      for name, f in pairs {
        inner = function(x) return mr.inner_products(x) end, pairs = function(x) return mr.pairs(x) end,
        matmul = function(x) return x:matmul(x, true) end, cin = function(x) return cin(x) end,
        cross = function(x) return cross(x) + low(x) end, heads = function(x) return attend(x) end,
        squeeze = function(x) return squeeze(x) end, experts = function(x) return mixed(x:flatten()) end,
        length = function(x) return mr.l2_normalize(x) end,
        pool = function(x) return pool(x:sum(2), x, x:max(3):relu() - x:max(3):relu() + 1) end,
      } do
        alone(name .. " " .. what, n, f, { n, fields, d })
      end
    end
  end)

  it("make up the loss of the batch", function()
    for _, n in ipairs { 63, 65, 200, 513, 1100 } do
      local z, weight = numbers(n, -2, 2), numbers(n, 0, 2, 5)
      for name, label in pairs { bce = whole(n, 2), mse = numbers(n, 0, 3, 9), mae = numbers(n, 0, 3, 9),
        huber = numbers(n, 0, 3, 9), hinge = whole(n, 2), poisson = numbers(n, 0, 3, 9),
        quantile = numbers(n, 0, 3, 9) } do
        local function loss(a, y, w) return mr[name](a, y:reshape(-1), { weight = w:reshape(-1) }) end
        local leaves, sum = { { { n, 1 }, z }, { { n, 1 }, label }, { { n, 1 }, weight } }, 0
        for s = 1, n do sum = sum + results(loss, leaves, s, s)[1] end
        assert.near(sum / n, results(loss, leaves, 1, n)[1], 1e-5, name)
      end
      local logits, classes = { { n, 7 }, numbers(n * 7, -2, 2) }, { { n, 1 }, whole(n, 7) }
      local function entropy(a, y, w) return mr.cross_entropy(a, y:reshape(-1), { weight = w:reshape(-1) }) end
      local leaves, sum = { logits, classes, { { n, 1 }, weight } }, 0
      for s = 1, n do sum = sum + results(entropy, leaves, s, s)[1] end
      assert.near(sum / n, results(entropy, leaves, 1, n)[1], 1e-5)
    end
  end)
end)

-- So many samples of `fields` fields, with up to three keys in each, of frequent and rare keys.
local function samples(n, fields, options)
  local list, draw = {}, numbers(n * fields * 8, 0, 1, 4242)
  local at = 0
  local function random()
    at = at % #draw + 1
    return draw[at]
  end
  for s = 1, n do
    list[s] = {}
    for j = 1, fields do
      local count = options.field and math.floor(random() * 4) or 1
      for _ = 1, count do
        list[s][#list[s] + 1] = { j * 1000 + math.floor(random() ^ 3 * 90), random() * 2 - 0.9, j - 1 }
      end
    end
  end
  return batches.build(list, { fields = fields, values = options.values, field = options.field })
end

describe("beyond one piece of work, gradients of rows,", function()
  for name, options in pairs { plain = {}, valued = { values = true },
    ["of several keys a field"] = { values = true, field = true } } do
    it("pooled: " .. name, function()
      for _, size in ipairs { { 1, 3 }, { 63, 5 }, { 65, 7 }, { 200, 4 }, { 700, 5 } } do
        local batch, unique = samples(size[1], size[2], options)
        for _, dim in ipairs { 1, 7, 16, 33 } do
          local rows = { batch = batch.c, unique = unique, dims = { 1, dim } }
          local what = ("%d x %d, dim %d"):format(size[1], size[2], dim)
          for _, how in ipairs { "sum", "mean", "sqrtn", "weighted_mean", "max" } do
            check(how .. " " .. what, function(r) return r[2][how](r[2]) + r[1]:sum() end, { rows }, 2e-3)
            check("fields " .. how .. " " .. what, function(r) return r[2]:fields(how) end, { rows }, 2e-3)
          end
          check("sequence " .. what, function(r)
            local keys, mask = r[2]:sequence(2, 3)
            return keys * (mask:reshape(-1, keys:dim(2), 1) + 1)
          end, { rows })
          check("fm " .. what, function(r) return mr.fm(r[2]) + r[1]:sum() end, { rows }, 2e-3)
          check("bi-interaction " .. what, function(r) return mr.bi_interaction(r[2]) end, { rows }, 2e-3)
        end
      end
    end)

    it("field-aware: " .. name, function()
      for _, size in ipairs { { 1, 3 }, { 33, 5 }, { 65, 4 }, { 200, 7 } } do
        local batch, unique = samples(size[1], size[2], options)
        for _, k in ipairs { 1, 4, 5, 16 } do
          local rows = { batch = batch.c, unique = unique, dims = { 1, size[2] * k } }
          check(("ffm %d x %d, %d"):format(size[1], size[2], k),
            function(r) return mr.ffm(r[2], size[2]) + r[1]:sum() end, { rows }, 2e-3)
        end
      end
    end)
  end

  it("of two lookups of one batch, and of two backward passes", function()
    local batch, unique = samples(130, 5, { values = true })
    local rows = { batch = batch.c, unique = unique, dims = { 1, 9 } }
    check("both", function(a, b) return mr.fm(a[2]) + (b[2]:sum() * 2):sum(2, true) + a[1]:sum() * b[1]:sum() end,
      { rows, rows }, 2e-3)
  end)
end)

if not LEVEL then
  describe("under the instruction set", function()
    for _, level in ipairs { "base", "v3", "v4" } do
      it(level .. ", all of this holds", function()
        local status, out = shell.run(("env MOONROCK_KERNELS=%s %s tests/run.lua --spec tests/pieces_spec.lua")
          :format(level, shell.program))
        assert.equal(0, status, out:match "not ok[^\n]*\n[^\n]*" or out)
        assert.matches("ok beyond one piece", out, 1, true)
      end)
    end
  end)
end

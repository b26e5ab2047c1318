-- Every operation and layer: gradients against central differences in float64, and results
-- against their definition computed in Lua's doubles.
local ffi = require "ffi"
local mr = require "moonrock"
local C = require "moonrock.ffi"
local layers = require "moonrock.layers"
local pool = require "moonrock.pool"
local tape = require "moonrock.tape"
local Param = require "moonrock.param"
local batches = require "tests.support.batches"

local TOLERANCE = 1e-6 -- central differences in double are good to about 1e-9 here

local function check(f, leaves)
  local e, where = mr.gradcheck(f, leaves)
  assert.is_true(e <= TOLERANCE, ("%g at %s"):format(e, where))
end

local function close(expected, actual, tolerance, what)
  local scale = math.max(1, math.abs(expected))
  if not (math.abs(expected - actual) <= tolerance * scale) then
    error(("%s: expected %.9g, got %.9g"):format(what or "", expected, actual), 2)
  end
end

-- A stand-in for a model: params by name.
local function model()
  local m = { params = {} }
  function m:param(name, shape, options)
    local p = Param.new(name, 11, shape, options)
    self.params[name] = p
    return p
  end
  return m
end

local SHAPES = { -- two that broadcast
  { { 3, 4 }, { 3, 4 } }, { { 3, 4 }, { 1 } }, { { 1 }, { 3, 4 } }, { { 3, 4 }, { 1, 4 } },
  { { 3, 4 }, { 4 } }, { { 4 }, { 3, 4 } }, { { 3, 4 }, { 3, 1 } }, { { 3, 1 }, { 3, 4 } },
  { { 3, 1 }, { 1, 4 } }, { { 2, 3, 4 }, { 2, 1, 4 } }, { { 2, 3, 4 }, { 3, 1 } },
  { { 2, 2, 3, 4 }, { 2, 2, 1, 1 } }, { { 5 }, { 5 } },
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

  it("sums, means, fields and the FM interaction of rows", function()
    for _, make in ipairs { batches.sets, batches.fielded, batches.valued } do
      local batch, unique = make()
      for _, dim in ipairs { 1, 2, 4, 7, 8, 16, 21, 32 } do
        local rows = { batch = batch.c, unique = unique, dims = { 1, dim, 3 } }
        check(function(r) return r[2]:sum() end, { rows })
        check(function(r) return r[2]:mean() end, { rows })
        check(function(r) return mr.fm(r[2]) end, { rows })
        check(function(r) return r[1]:sum() + mr.fm(r[2]) * 2 + r[3]:sum():sum() end, { rows })
        if batch.c.fields > 0 then check(function(r) return r[2]:fields() end, { rows }) end
      end
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

describe("results of", function()
  local t
  before_each(function()
    t = tape.new { seed = 3 }
    t:begin(true, 1)
  end)
  after_each(function() t:free() end)

  -- Rows of a batch as a function of (unique, k), in order of the keys.
  local function value(u, k) return math.sin(u * 13.7 + k * 1.3) end

  local function bound(batch, unique, dim, on)
    local data = ffi.new("double[?]", unique * dim)
    for u = 0, unique - 1 do
      for k = 0, dim - 1 do data[u * dim + k] = value(u, k) end
    end
    local lookup = C.mr_tape_lookup(on.c, batch.c, ffi.new("int32_t[1]", dim), 1, data, unique)
    assert(lookup >= 0, ffi.string(C.mr_error()))
    local column = pool.column("given", "v", 0, dim)
    pool.bind(column, on, lookup)
    return column
  end

  -- f(s, x, u, field) for every entry.
  local function entries(batch, f)
    local order, keys = {}, {}
    local c = batch.c
    for e = 0, c.entries - 1 do
      local key = tonumber(c.keys[e])
      if not order[key] then
        order[key] = true
        keys[#keys + 1] = key
      end
    end
    table.sort(keys)
    for u, key in ipairs(keys) do order[key] = u - 1 end
    for s = 0, c.n - 1 do
      for e = c.offsets[s], c.offsets[s + 1] - 1 do
        local field = c.field ~= nil and c.field[e] or e - c.offsets[s]
        f(s, c.values ~= nil and c.values[e] or 1, order[tonumber(c.keys[e])], field)
      end
    end
  end

  it("pooling agree with their definition", function()
    for _, make in ipairs { batches.sets, batches.fielded, batches.valued, batches.large } do
      local batch, unique = make()
      local n = batch.c.n
      for _, dim in ipairs { 1, 3, 16, 33 } do
        t:begin(true, 1)
        local column = bound(batch, unique, dim, t)
        local sum, square, count, by_field = {}, {}, {}, {}
        for i = 0, n * dim - 1 do sum[i], square[i] = 0, 0 end
        for s = 0, n - 1 do count[s] = 0 end
        entries(batch, function(s, x, u, field)
          count[s] = count[s] + 1
          for k = 0, dim - 1 do
            local xv = x * value(u, k)
            sum[s * dim + k] = sum[s * dim + k] + xv
            square[s * dim + k] = square[s * dim + k] + xv * xv
            local at = (s * math.max(1, batch.c.fields) + field) * dim + k
            by_field[at] = (by_field[at] or 0) + xv
          end
        end)
        local pooled, mean, fm = column:sum(), column:mean(), mr.fm(column)
        for s = 0, n - 1 do
          local pair = 0
          for k = 0, dim - 1 do
            local at = s * dim + k
            pair = pair + 0.5 * (sum[at] ^ 2 - square[at])
            close(sum[at], pooled:get(s + 1, k + 1), 1e-5, "sum")
            close(count[s] > 0 and sum[at] / count[s] or 0, mean:get(s + 1, k + 1), 1e-5, "mean")
          end
          close(pair, fm:get(s + 1, 1), 1e-4, "fm") -- a difference of two sums of floats
        end
        if batch.c.fields > 0 then
          local fields = column:fields()
          for s = 0, n - 1 do
            for f = 0, batch.c.fields - 1 do
              for k = 0, dim - 1 do
                close(by_field[(s * batch.c.fields + f) * dim + k] or 0,
                  fields:get(s + 1, f + 1, k + 1), 1e-5, "fields")
              end
            end
          end
        end
      end
    end
  end)

  it("a linear layer agree with their definition", function()
    local n, inputs = 300, 40
    for _, outputs in ipairs { 1, 24 } do
      local function list(count, phase)
        local values = {}
        for i = 1, count do values[i] = math.sin(i * 1.7 + phase) end
        return values
      end
      local xs, ws, bs = list(n * inputs, 0), list(inputs * outputs, 1), list(outputs, 2)
      local x = layers.tensor({ n, inputs }, xs)
      local w, b = layers.tensor({ inputs, outputs }, ws), layers.tensor({ outputs }, bs)
      local y = layers.affine(x, w, b, "relu")
      for s = 1, n do
        for j = 1, outputs do
          local z = bs[j]
          for i = 1, inputs do z = z + xs[(s - 1) * inputs + i] * ws[(i - 1) * outputs + j] end
          close(math.max(z, 0), y:get(s, j), 1e-5)
        end
      end
    end
  end)

  it("BCE neither overflow nor lose what is small", function()
    local z = layers.tensor({ 4 }, { 1000, -1000, 1000, -30 })
    local y = layers.tensor({ 4 }, { 1, 0, 0, 0 })
    close((0 + 0 + 1000 + math.exp(-30)) / 4, mr.bce(z, y):value(), 1e-6)
    local tiny = layers.tensor({ 1 }, { -30 })
    close(1, mr.bce(tiny, layers.tensor({ 1 }, { 0 })):value() / math.exp(-30), 1e-6)
  end)

  it("dropout keep the expectation, repeat for a step, and change with it", function()
    local n = 100000
    local function drawn(step)
      t:begin(true, step)
      local ones = {}
      for i = 1, n do ones[i] = 1 end
      local out = mr.dropout(layers.tensor({ n }, ones), 0.3)
      local kept = {}
      for i = 1, n do kept[i] = out:get(i) end
      return kept
    end
    local a, b, c = drawn(1), drawn(1), drawn(2)
    local sum, same = 0, 0
    for i = 1, n do
      sum = sum + a[i]
      assert.equal(a[i], b[i])
      if a[i] == c[i] then same = same + 1 end
    end
    -- five standard deviations of a mean of n draws, each of deviation sqrt(0.3 / 0.7)
    close(1, sum / n, 5 * math.sqrt(0.3 / 0.7 / n))
    close(0.7 ^ 2 + 0.3 ^ 2, same / n, 5 * math.sqrt(0.25 / n))
    t:begin(false, 1)
    local x = layers.tensor({ 2 }, { 1, 2 })
    assert.equal(2, mr.dropout(x, 0.3):get(2))
  end)

  it("batch norm use the batch in training, running statistics otherwise", function()
    local m = model()
    local norm = mr.batch_norm(m, "norm", 2, { momentum = 0.25 })
    local x = { 1, 10, 2, 30, 6, 20 }
    local y = norm(layers.tensor({ 3, 2 }, x, true))
    local mean, variance = 3, (4 + 1 + 9) / 3
    close((6 - mean) / math.sqrt(variance + 1e-5), y:get(3, 1), 1e-5)
    assert.equal(0, m.params["norm.mean"]:weight(1)) -- only looked at
    y:sum():backward()
    y:sum():backward()
    close(0.25 * mean, m.params["norm.mean"]:weight(1), 1e-6)
    close(0.75 + 0.25 * variance * 3 / 2, m.params["norm.variance"]:weight(1), 1e-6)
    t:begin(false, 1)
    local z = norm(layers.tensor({ 1, 2 }, { 6, 20 }))
    close((6 - 0.75) / math.sqrt(0.75 + 0.25 * 7 + 1e-5), z:get(1, 1), 1e-5)
  end)

  it("all of them are the same to the bit at one thread and two", function()
    local function run(threads)
      C.mr_threads_set(threads)
      local batch, unique = batches.large()
      t:begin(true, 1)
      local m = model()
      local deep = mr.mlp(m, "deep", batch.c.fields * 16, { 64, 1 }, { batch_norm = true, dropout = 0.1 })
      local v = bound(batch, unique, 16, t)
      local loss = mr.bce(deep(v:fields()) + mr.fm(v) * 0.01, batch.label)
      loss:backward()
      local bits = { loss:value() }
      for i = 0, unique * 16 - 1 do bits[#bits + 1] = C.mr_tape_lookup_gradient(t.c, 0, i) end
      C.mr_param_step(m.params["deep.1.w"].c, 1)
      bits[#bits + 1] = m.params["deep.1.w"]:save()
      return bits
    end
    local kept = C.mr_threads()
    local one, two = run(1), run(2)
    C.mr_threads_set(kept)
    assert.equal(#one, #two)
    for i = 1, #one do
      if one[i] ~= two[i] then error("differs at " .. i) end
    end
  end)
end)

describe("a wrong", function()
  local t
  before_each(function()
    t = tape.new()
    t:begin(true, 1)
  end)
  after_each(function() t:free() end)

  local function fails(f, message)
    local ok, problem = pcall(f)
    assert.is_false(ok)
    assert.equal("op_spec.lua", problem:match("([%w_]+%.lua):%d+: "))
    assert.equal(message, problem:match("op_spec%.lua:%d+: (.*)$"))
  end

  local function zeros(...)
    local n, values = 1, {}
    for _, d in ipairs { ... } do n = n * d end
    for i = 1, n do values[i] = 0 end
    return layers.tensor({ ... }, values)
  end

  it("shape is an error that names the operation and both shapes", function()
    fails(function() return zeros(3, 4) + zeros(3, 5) end,
      "add: shapes [3, 4] and [3, 5] do not fit")
    fails(function() return zeros(3) - zeros(3, 1) end,
      "sub: shapes [3] and [3, 1] would both be repeated, to [3, 3]; reshape one of them")
    fails(function() return layers.affine(zeros(3, 4), zeros(5, 2)) end,
      "linear: weights [5, 2] expect an input of 5 a sample, got [3, 4]")
    fails(function() return layers.affine(zeros(3, 4), zeros(4, 2), zeros(3)) end,
      "linear: weights [4, 2] expect a bias of 2, got [3]")
    fails(function() return mr.concat(zeros(3, 4), zeros(2, 4)) end,
      "concat: tensor 2 is [2, 4], which does not fit [3, 4] beside the last axis")
    fails(function() return zeros(3, 4):reshape(5, -1) end,
      "reshape: [3, 4] has 12 elements, which [5, 2] does not")
    fails(function() return mr.bce(zeros(3, 4), zeros(3)) end,
      "bce: expected scores [n, 1], got [3, 4]")
    fails(function() return mr.bce(zeros(3, 1), zeros(4)) end,
      "bce: labels are [4], expected [3] as of the scores")
    fails(function() return mr.batch_norm(model(), "norm", 3)(zeros(3, 4)) end,
      'batch_norm "norm": gamma is [3], expected [4] for an input [3, 4]')
    fails(function() zeros(3, 4):backward() end, "backward: expected a loss of shape [1], got [3, 4]")
  end)

  it("label or loss is an error", function()
    fails(function() return mr.bce(zeros(2), layers.tensor({ 2 }, { 0, 2 })) end,
      "bce: the label of sample 2 of the batch is 2, expected 0 to 1")
    fails(function() return mr.bce(zeros(2), layers.tensor({ 2 }, { 0, 0 / 0 })) end,
      "bce: the label of sample 2 of the batch is nan, expected 0 to 1")
    fails(function() (zeros(1) / 0):sum():backward() end, "backward: the loss is nan")
  end)

  it("argument is an error that says what was expected", function()
    fails(function() return zeros(1) + {} end, "add: expected a tensor, got a table")
    fails(function() return mr.dropout(zeros(2), 1) end, "dropout: rate is 1, expected 0 to below 1")
    local batch, unique = batches.sets()
    local lookup = C.mr_tape_lookup(t.c, batch.c, ffi.new("int32_t[1]", 1), 1,
      ffi.new("double[?]", unique), unique)
    local w = pool.column("features", "w", 0, 1)
    pool.bind(w, t, lookup)
    fails(function() return w + 1 end, "arithmetic: table \"features\", column \"w\": pool it first, "
      .. "with :sum(), :mean(), :fields() or mr.fm()")
    fails(function() return w:fields() end, "fields: table given, column : the samples are plain "
      .. "sets of keys, without fields; pool them by sum or mean")
    t:begin(true, 2)
    fails(function() return w:sum() end,
      "table \"features\": column \"w\" was looked up in a step that is over; look it up again")
  end)
end)

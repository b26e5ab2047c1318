-- Sums whose terms cancel: one large value beside small ones, a small variance about a large mean. What
-- floats give is held against doubles that follow the definition, pair by pair, at every sample.
local ffi = require "ffi"
local mr = require "moonrock"
local C = require "moonrock.ffi"
local layers = require "moonrock.layers"
local pool = require "moonrock.pool"
local tape = require "moonrock.tape"
local batches = require "tests.support.batches"
local model = require "tests.support.params"
local shell = require "tests.support.shell"

local DIMS = { 1, 7, 8, 16, 17, 64 }
local SIZES = { 1, 63, 64, 65, 200 }

-- Reproducible numbers from 0 to 1.
local function generator(state)
  return function()
    state = (state * 16807) % 2147483647
    return state / 2147483647
  end
end

local float = ffi.new "float[1]"
local function as_float(x)
  float[0] = x
  return float[0]
end

-- Values from 1e-3 to 1e8 and either sign, one of the largest in each sample.
local function mixed(random)
  local x = 10 ^ (random() * 11 - 3)
  return as_float(random() < 0.5 and -x or x)
end

-- n samples of up to `most` entries. each(field or nil): a sample's entries have keys 1 to `keys`.
local function samples(n, most, fields, random, value)
  local list = {}
  for s = 1, n do
    list[s] = {}
    for e = 1, s % 7 == 3 and 1 or 2 + math.floor(random() * (most - 1)) do
      list[s][e] = { 1 + math.floor(random() * 40), value(random), math.floor(random() * fields) }
    end
    list[s][1][2] = value == mixed and as_float(1e8) or list[s][1][2]
  end
  return list, batches.build(list, { fields = fields, values = true, field = true })
end

-- Of what is expected, relative to the largest of its sample or row: 1e-5 is a hundred roundings of a float.
local function close(expected, actual, size, what)
  if not (math.abs(expected - actual) <= 1e-5 * size) then
    error(("%s: expected %.9g, got %.9g"):format(what, expected, actual), 2)
  end
  assert(true) -- it was compared
end

describe("with values from 1e-3 to 1e8", function()
  local t
  before_each(function()
    t = tape.new { seed = 3 }
    t:begin(true, 1)
  end)
  after_each(function() t:free() end)

  -- A column of a lookup, the rows of its keys (floats), and the number of each key's row.
  local function bound(list, batch, dim, random)
    local keys, number = {}, {}
    for _, sample in ipairs(list) do
      for _, entry in ipairs(sample) do
        if not number[entry[1]] then
          number[entry[1]] = true
          keys[#keys + 1] = entry[1]
        end
      end
    end
    table.sort(keys)
    local data = ffi.new("double[?]", #keys * dim)
    for i = 0, #keys * dim - 1 do data[i] = as_float(random() - 0.5) end
    for u, key in ipairs(keys) do number[key] = u - 1 end
    local lookup = C.mr_tape_lookup(t.c, batch.c, ffi.new("int32_t[1]", dim), 1, data, #keys)
    assert(lookup >= 0, ffi.string(C.mr_error()))
    local column = pool.column("given", "v", 0, dim)
    pool.bind(column, t, lookup)
    return column, data, number, #keys, lookup
  end

  -- Runs `f(list, data, row, dim)` -> expected scores, their sizes and gradients, over all sizes and dims.
  local function each(most, fields, width, test)
    for _, n in ipairs(SIZES) do
      for _, dim in ipairs(DIMS) do
        local random = generator(n * 100 + dim)
        local list, batch = samples(n, most, fields, random, mixed)
        t:begin(true, 1)
        local column, data, row, unique, lookup = bound(list, batch, dim * width, random)
        test(column, list, data, row, dim, unique, function(i)
          return C.mr_tape_lookup_gradient(t.c, lookup, i)
        end, ("%d samples, dim %d"):format(n, dim))
      end
    end
  end

  -- Pairs of an FM by definition: out[s][k], and the gradient of sum_s,k weight(s, k) out[s][k] by rows.
  local function pairs_of(list, data, row, dim, unique, weight)
    local out, sizes, gradient, gradient_size = {}, {}, ffi.new("double[?]", unique * dim), 0
    for s, sample in ipairs(list) do
      out[s], sizes[s] = {}, {}
      for k = 0, dim - 1 do
        local sum, size = 0, 0
        for i = 1, #sample do
          local rest = 0
          local u = row[sample[i][1]] * dim + k
          for j = 1, #sample do
            local xv = sample[j][2] * data[row[sample[j][1]] * dim + k]
            if j ~= i then rest = rest + xv end
            if j > i then
              sum = sum + sample[i][2] * data[u] * xv
              size = math.max(size, math.abs(sample[i][2] * data[u] * xv))
            end
          end
          gradient[u] = gradient[u] + weight(s, k) * sample[i][2] * rest
        end
        out[s][k], sizes[s][k] = sum, size
      end
    end
    for i = 0, unique * dim - 1 do gradient_size = math.max(gradient_size, math.abs(gradient[i])) end
    return out, sizes, gradient
  end

  -- Of one coordinate: what is expected is itself a sum of terms that cancel, seldom to a hundredth.
  local function same_gradient(gradient, got, n, what)
    for i = 0, n - 1 do
      close(gradient[i], got(i), math.max(math.abs(gradient[i]), 1e-30) * 100, what .. ", a gradient")
    end
  end

  it("an FM is the sum of the products of its pairs, and so are its gradients", function()
    each(12, 1, 1, function(column, list, data, row, dim, unique, got, what)
      local scores = mr.fm(column)
      local out, sizes, gradient = pairs_of(list, data, row, dim, unique, function() return 1 end)
      for s = 1, #list do
        local sum, size = 0, 0
        for k = 0, dim - 1 do sum, size = sum + out[s][k], math.max(size, sizes[s][k]) end
        close(sum, scores:get(s, 1), size, what)
        -- the issue's own measure, where the pairs do not happen to cancel by themselves
        if math.abs(sum) > 0.01 * size then close(sum, scores:get(s, 1), 1000 * math.abs(sum), what) end
      end
      scores:sum():backward()
      same_gradient(gradient, got, unique * dim, what)
    end)
  end)

  it("so is the bi-interaction of a neural FM", function()
    each(12, 1, 1, function(column, list, data, row, dim, unique, got, what)
      local vectors = mr.bi_interaction(column)
      local function weight(s, k) return as_float(math.sin(s * 3.1 + k)) end
      local out, sizes, gradient = pairs_of(list, data, row, dim, unique, weight)
      local weights = {}
      for s = 1, #list do
        for k = 0, dim - 1 do
          close(out[s][k], vectors:get(s, k + 1), sizes[s][k], what)
          weights[#weights + 1] = weight(s, k)
        end
      end
      (vectors * layers.tensor({ #list, dim }, weights)):sum():backward()
      same_gradient(gradient, got, unique * dim, what)
    end)
  end)

  it("so is a field-aware FM whose fields have several entries", function()
    local F = 3
    for _, n in ipairs { 1, 64, 65 } do
      for _, dim in ipairs { 1, 4, 7, 8, 16 } do
        local random = generator(n * 100 + dim)
        local list, batch = samples(n, 9, F, random, mixed)
        t:begin(true, 1)
        local column, data, row, unique, lookup = bound(list, batch, dim * F, random)
        local scores = mr.ffm(column, F)
        local gradient = ffi.new("double[?]", unique * dim * F)
        for s, sample in ipairs(list) do
          local sum, size = 0, 0
          for i = 1, #sample do
            for j = i + 1, #sample do
              local a, b = sample[i], sample[j]
              local u, v = (row[a[1]] * F + b[3]) * dim, (row[b[1]] * F + a[3]) * dim
              for k = 0, dim - 1 do
                local x = a[2] * b[2]
                sum = sum + x * data[u + k] * data[v + k]
                size = math.max(size, math.abs(x * data[u + k] * data[v + k]))
                gradient[u + k] = gradient[u + k] + x * data[v + k]
                gradient[v + k] = gradient[v + k] + x * data[u + k]
              end
            end
          end
          close(sum, scores:get(s, 1), size, ("%d samples, dim %d"):format(n, dim))
        end
        scores:sum():backward()
        same_gradient(gradient, function(i) return C.mr_tape_lookup_gradient(t.c, lookup, i) end,
          unique * dim * F, ("ffm of %d samples, dim %d"):format(n, dim))
      end
    end
  end)

  it("sums, means and weighted means of rows keep what the large values leave", function()
    local batch = batches.build({ { { 1, 1e8 }, { 2, 3 }, { 1, -1e8 } }, { { 1, 1e8 }, { 2, 1 }, { 3, -1e8 } } },
      { values = true })
    for _, dim in ipairs(DIMS) do
      t:begin(true, 1)
      local data = ffi.new("double[?]", 3 * dim)
      for i = 0, 3 * dim - 1 do data[i] = 1 + (i % dim) / 8 end
      local lookup = C.mr_tape_lookup(t.c, batch.c, ffi.new("int32_t[1]", dim), 1, data, 3)
      local column = pool.column("given", "v", 0, dim)
      pool.bind(column, t, lookup)
      for s, x in ipairs { 3, 1 } do
        for k = 1, dim do
          local v = 1 + (k - 1) / 8
          assert.near(x * v, column:sum():get(s, k), 1e-5)
          assert.near(x * v / 3, column:mean():get(s, k), 1e-5)
          assert.near(v, column:weighted_mean():get(s, k), 1e-5)
        end
      end
    end
  end)
end)

describe("about a large mean", function()
  local t
  before_each(function()
    t = tape.new { seed = 3 }
    t:begin(true, 1)
  end)
  after_each(function() t:free() end)

  -- Two numbers of the last float's place, or a few of them, about 1e8.
  local function values(n, random)
    local x = {}
    for i = 1, n do x[i] = as_float(1e8 + 8 * math.floor(random() * 4)) end
    return x
  end

  -- h, and the gradient of sum_i g_i h_i, of values x by definition.
  local function normalized(x, g, eps)
    local n, mean, variance, h, da = #x, 0, 0, {}, {}
    for i = 1, n do mean = mean + x[i] / n end
    for i = 1, n do variance = variance + (x[i] - mean) ^ 2 / n end
    local r, sum, along = 1 / math.sqrt(variance + eps), 0, 0
    for i = 1, n do
      h[i] = (x[i] - mean) * r
      sum, along = sum + g[i] / n, along + g[i] * h[i] / n
    end
    for i = 1, n do da[i] = r * (g[i] - sum - h[i] * along) end
    return h, da
  end

  it("batch norm and layer norm agree with doubles, and so do their gradients", function()
    for _, n in ipairs { 2, 63, 64, 65, 200 } do
      local random = generator(n)
      local x, g = values(n, random), {}
      for i = 1, n do g[i] = as_float(1 + random()) end
      local h, da = normalized(x, g, 1e-5)
      for _, shape in ipairs { { n, 1 }, { 1, n } } do
        t:begin(true, 1)
        local m = model()
        local norm = shape[2] == 1 and mr.batch_norm(m, "norm", 1) or mr.layer_norm(m, "norm", n)
        local a = layers.tensor(shape, x, true)
        local y = norm(a);
        (y * layers.tensor(shape, g)):sum():backward()
        for i = 1, n do
          assert.near(h[i], y:get(math.min(i, shape[1]), math.min(i, shape[2])), 1e-4)
          assert.near(da[i], a:gradient(i), 1e-4 * 2)
        end
      end
    end
  end)

  it("the gradient of cross-entropy is the softmax less the label", function()
    local z = { 1e8, 1e8 + 8, 1e8 - 16 }
    t:begin(true, 1)
    local a = layers.tensor({ 1, 3 }, z, true)
    local loss = mr.cross_entropy(a, layers.tensor({ 1 }, { 0 }))
    local sum = 1 + math.exp(8) + math.exp(-16)
    assert.near(math.log(sum), loss:value(), 1e-5)
    loss:backward()
    for i, d in ipairs { 0, 8, -16 } do
      assert.near(math.exp(d) / sum - (i == 1 and 1 or 0), a:gradient(i), 1e-6)
    end
  end)

  it("so is that of the softmax over the items of a batch", function()
    t:begin(true, 1)
    local u = layers.tensor({ 2, 1 }, { 1, 1 }, true)
    local v = layers.tensor({ 2, 1 }, { 1e7, 1e7 + 1 }, true)
    mr.in_batch_softmax(u, v, { temperature = 1 }):backward()
    local p = 1 / (1 + math.exp(1)) -- of the first item, for either user
    assert.near((p - 1 + p) / 2, v:gradient(1), 1e-6)
    assert.near((2 * (1 - p) - 1) / 2, v:gradient(2), 1e-6)
  end)

  it("the gradient of softmax does not lose small differences of large gradients", function()
    t:begin(true, 1)
    local a = layers.tensor({ 1, 3 }, { 0.1, 0.2, 0.3 }, true)
    local g = { 1e7, 1e7 + 1, 1e7 + 3 };
    (a:softmax() * layers.tensor({ 1, 3 }, g)):sum():backward()
    local e, sum, along = {}, 0, 0
    for i = 1, 3 do
      e[i] = math.exp(i / 10)
      sum = sum + e[i]
    end
    for i = 1, 3 do along = along + e[i] / sum * (g[i] - 1e7) end
    for i = 1, 3 do assert.near(e[i] / sum * (g[i] - 1e7 - along), a:gradient(i), 1e-5) end
  end)

  it("the loss of a sure and right logit is its exponential", function()
    t:begin(true, 1)
    for _, a in ipairs { 30, 40, 80 } do
      local loss = mr.bce(layers.tensor({ 1, 1 }, { a }), layers.tensor({ 1 }, { 1 })):value()
      assert.near(1, loss / math.exp(-a), 1e-6)
    end
  end)
end)

if not os.getenv "MOONROCK_KERNELS" then
  describe("all of that", function()
    for _, kernels in ipairs { "base", "v3", "v4" } do
      it("holds with the instructions of " .. kernels, function()
        local status, out, errors = shell.run(("MOONROCK_KERNELS=%s %s tests/run.lua --spec "
          .. "tests/cancellation_spec.lua"):format(kernels, shell.program))
        assert.equal(0, status, out .. errors)
      end)
    end
  end)
end

-- Batches of one sample, and of none that is left: every shipped model trains and is evaluated on any number
-- of rows, under every loss, whatever the last batch holds.
local ffi = require "ffi"
local mr = require "moonrock"
local C = require "moonrock.ffi"
local layers = require "moonrock.layers"
local tape = require "moonrock.tape"
local batches = require "tests.support.batches"
local params = require "tests.support.params"
local shell = require "tests.support.shell"

local dir = shell.directory()

-- So many rows of fields as libffm text; field 2 is a history of one to three entries.
local function rows(n, fields)
  local lines = {}
  for s = 1, n do
    local line = { s % 3 == 0 and "1" or "0" }
    for f = 0, fields - 1 do
      for i = 1, f == 1 and fields > 2 and 1 + s % 3 or 1 do
        line[#line + 1] = ("%d:%d:%g"):format(f, f * 100 + (s * 7 + i) % 13, f == 0 and 0.5 or 1)
      end
    end
    lines[s] = table.concat(line, " ")
  end
  return shell.write(("%s/%d-%d.ffm"):format(dir, n, fields), table.concat(lines, "\n") .. "\n")
end

local SMALL = { dim = 4, hidden = { 6, 4 }, batch_norm = true, dropout = 0.1 }
local NARROW = { dim = 1, hidden = { 1 }, batch_norm = true }
local MODELS = { "afm", "autoint", "dcn", "dcnv2", "deepfm", "din", "ensemble", "ffm", "fibinet", "finalmlp",
  "fm", "fwfm", "lr", "mf", "mmoe", "nfm", "two_tower", "wide_deep", "xdeepfm" }
local FIELDS = { mf = 2 }
local LOSSES = { "bce", "hinge", "mse", "mae", "huber", { name = "quantile", q = 0.9 }, "poisson" }
local BATCH = 4

local function fit(name, n, options, fit_options)
  local fields = FIELDS[name] or 3
  local data = mr.data { files = rows(n, fields), format = "libffm", fields = fields, task = options.task }
  local o = { data = data }
  for _, given in ipairs { SMALL, options } do
    for key, value in pairs(given) do o[key] = value end
  end
  local model = mr.find(name)(o)
  local f = { train = "train", epochs = 2, size = BATCH }
  for key, value in pairs(fit_options or {}) do f[key] = value end
  local result = mr.fit(model, f)
  local scores = mr.evaluate(model, data:batches("train", { size = BATCH }))
  assert.equal(n, scores.rows)
  assert.is_true(scores.prediction == scores.prediction, "a score is nan")
  model:close()
  return result
end

describe("on one row, two, and one more than a batch holds", function()
  for _, name in ipairs(MODELS) do
    it(name .. " trains under every loss, and is evaluated", function()
      for _, loss in ipairs(LOSSES) do
        for _, n in ipairs { 1, 2, BATCH, BATCH + 1 } do
          local binary = loss == "bce" or loss == "hinge"
          local result = fit(name, n, { loss = loss, task = not binary and "regression" or nil })
          assert.equal(2 * math.ceil(n / BATCH), result.steps)
        end
      end
    end)
  end

  it("so do layers of width 1, with batch norm, layer norm and dice", function()
    for _, name in ipairs { "nfm", "deepfm", "din", "wide_deep" } do
      for _, n in ipairs { 1, 2, BATCH + 1 } do fit(name, n, NARROW) end
      fit(name, BATCH + 1, NARROW, { size = 1 })
    end
  end)

  it("every model trains in batches of one", function()
    for _, name in ipairs(MODELS) do
      assert.equal(10, fit(name, 5, {}, { size = 1 }).steps)
    end
  end)

  it("what negatives that were dropped, and steps of several batches, leave is trained on", function()
    for _, name in ipairs { "din", "nfm", "deepfm", "two_tower" } do
      for _, correction in ipairs { "shift", "weight", "q" } do
        for seed = 1, 4 do
          fit(name, 3 * BATCH + 1, { seed = seed }, { negative_rate = 0.3, correction = correction })
        end
      end
      for _, n in ipairs { 1, BATCH + 1, 2 * BATCH + 1 } do
        fit(name, n, {}, { accumulate = 2 })
        fit(name, n, {}, { accumulate = 3, negative_rate = 0.2 })
      end
    end
  end)

  it("losses of samples against each other are 0 where there is only one", function()
    local t = tape.new { seed = 1 }
    t:begin(true, 1)
    local label = layers.tensor({ 1 }, { 1 })
    local function check(loss, ...)
      assert.near(0, loss:value(), 1e-7)
      loss:backward()
      for _, leaf in ipairs { ... } do
        for i = 1, leaf:count() do assert.near(0, leaf:gradient(i), 1e-7) end
      end
    end
    local a = layers.tensor({ 1, 1 }, { 0.7 }, true)
    check(mr.pairwise(a, label), a)
    check(mr.listwise(a, label), a)
    local u, v = layers.tensor({ 1, 3 }, { 1, 2, 3 }, true), layers.tensor({ 1, 3 }, { 3, -1, 2 }, true)
    check(mr.in_batch_softmax(u, v), u, v)
    t:free()
  end)

  it("the statistics of a norm are the same to the bit after any stop, and at any number of threads", function()
    local file = rows(129, 3)
    local function digest(name, ...)
      local store = ("%s/resumed-%s"):format(dir, name)
      local status, _, errors = shell.moonrock("train", "din", "--data", file, "--fields", "3", "--batch", "16",
        "--store", store, ...)
      assert.equal(0, status, errors)
      local _, out = shell.moonrock("info", "--store", store, "--json")
      return (out:match '"digest":"(%x+)"')
    end
    local whole = digest("whole", "--epochs", "2", "--threads", "1")
    assert.truthy(whole)
    digest("parts", "--epochs", "1", "--threads", "2")
    assert.equal(whole, digest("parts", "--epochs", "2", "--threads", "2"))
  end)

  it("the program trains and evaluates DIN", function()
    local file = rows(257, 3)
    local store = dir .. "/din"
    local status, out, errors = shell.moonrock("train", "din", "--data", file, "--fields", "3", "--store", store,
      "--epochs", "2")
    assert.equal(0, status, out .. errors)
    for _, n in ipairs { 1, 257 } do
      status, out, errors = shell.moonrock("eval", "--store", store, "--data", rows(n, 3))
      assert.equal(0, status, out .. errors)
    end
  end)
end)

describe("batch norm of one row", function()
  local EPS = 1e-5

  -- A norm of width 2 that has learned from one batch: running mean and variance.
  local function learned(t)
    local m = params()
    local norm = mr.batch_norm(m, "norm", 2, { momentum = 0.5, eps = EPS })
    t:begin(true, 1)
    norm(layers.tensor({ 3, 2 }, { 1, 10, 2, 30, 6, 20 })):sum():backward()
    local mean, variance = {}, {}
    for j = 1, 2 do
      mean[j], variance[j] = m.params["norm.mean"]:weight(j), m.params["norm.variance"]:weight(j)
    end
    assert.near(1.5, mean[1], 1e-6)
    assert.near(0.5 + 0.5 * 7, variance[1], 1e-6)
    return m, norm, mean, variance
  end

  it("is by the running statistics, which it leaves as they are", function()
    local t = tape.new { seed = 1 }
    local m, norm, mean, variance = learned(t)
    for _, x in ipairs { { 4, 11 }, { -1e8, 0.5 } } do
      t:begin(true, 2)
      local a, g = layers.tensor({ 1, 2 }, x, true), { 3, -2 }
      local y = norm(a);
      (y * layers.tensor({ 1, 2 }, g)):sum():backward()
      for j = 1, 2 do
        local r = 1 / math.sqrt(variance[j] + EPS)
        assert.near(1, y:get(1, j) / ((x[j] - mean[j]) * r), 1e-6)
        assert.near(g[j] * r, a:gradient(j), 1e-6)
        assert.equal(mean[j], m.params["norm.mean"]:weight(j))
        assert.equal(variance[j], m.params["norm.variance"]:weight(j))
      end
    end
    t:free()
  end)

  it("has the gradients that central differences in float64 have, with a mask or without", function()
    for _, case in ipairs {
      { n = 1 }, { n = 1, mask = { 1 } }, { n = 1, mask = { 0 } }, { n = 4, mask = { 1, 0, 1, 1 } },
      { n = 4, mask = { 0, 0, 1, 0 } }, { n = 4, mask = { 0, 0, 0, 0 } }, { n = 4 },
    } do
      local m = params()
      local norm = mr.batch_norm(m, "norm", 3)
      local dice = mr.dice(m, "dice", 3)
      for _, layer in ipairs { norm, dice } do
        local e, where = mr.gradcheck(function(a)
          return layer(a * 2, case.mask and layers.tensor({ case.n }, case.mask)):square()
        end, { { case.n, 3 } })
        assert.is_true(e <= 1e-6, ("%d rows: %g at %s"):format(case.n, e, where))
      end
      local e, where = mr.gradcheck(function(a, gamma, beta)
        local t = tape.of(a)
        local mask = case.mask and tape.node(t, layers.tensor({ case.n }, case.mask), "mask") or -1
        return tape.handle(t, C.mr_tape_batch_norm(t.c, tape.node(t, a, "a"), tape.node(t, gamma, "gamma"),
          tape.node(t, beta, "beta"), mask, m.params["norm.mean"].c, m.params["norm.variance"].c, 0.1, EPS),
          "batch_norm")
      end, { { case.n, 3 }, { 3 }, { 3 } })
      assert.is_true(e <= 1e-6, ("%d rows: %g at %s"):format(case.n, e, where))
    end
  end)

  it("with a mask learns from the rows of 1 alone", function()
    local t = tape.new { seed = 1 }
    local masked, plain = params(), params()
    local a = mr.batch_norm(masked, "norm", 1)
    local b = mr.batch_norm(plain, "norm", 1)
    t:begin(true, 1)
    local some = a(layers.tensor({ 5, 1 }, { 1, 900, 2, 6, -900 }), layers.tensor({ 5 }, { 1, 0, 1, 1, 0 }))
    local all = b(layers.tensor({ 3, 1 }, { 1, 2, 6 }))
    some:sum():backward()
    all:sum():backward()
    for i, at in ipairs { 1, 3, 4 } do assert.equal(all:get(i, 1), some:get(at, 1)) end
    for _, name in ipairs { "norm.mean", "norm.variance" } do
      assert.equal(plain.params[name]:weight(1), masked.params[name]:weight(1))
    end
    assert.has_error(function() a(layers.tensor({ 2, 1 }, { 1, 2 }), layers.tensor({ 3 }, { 1, 1, 1 })) end,
      'batch_norm "norm": a mask [3] does not fit [2, 1], expected [2]')
    t:free()
  end)
end)

describe("the attention of DIN", function()
  -- Scores and statistics of a model whose histories are padded to `length` always, or to the longest.
  local function run(padded, n, length, hidden)
    local random = 1
    local samples = {}
    for s = 1, n do
      samples[s] = { { 1 + s % 5, 1, 0 } }
      for i = 1, s % 4 do
        random = random * 16807 % 2147483647
        samples[s][1 + i] = { 1 + random % 9, 1, 1 }
      end
    end
    local batch = batches.build(samples, { fields = 2, field = true })
    local model = mr.model("attention", function(m)
      local row = m:table("features", { v = { dim = 8, init = mr.init.normal(1) } })
      local pool = mr.attention_pool(m, "pool", 8, { hidden = { hidden } })
      local out = mr.linear(m, "out", 8, 1)
      return function(x)
        local v = row(x).v
        local keys, mask = v:sequence(2, length, padded)
        assert.equal(padded and length or math.min(3, length), keys:dim(2))
        return out(pool(v:fields():slice(2, 1, 1):flatten(), keys, mask))
      end
    end) { seed = 5 }
    local values = {}
    for _, training in ipairs { true, false } do
      if not training then model:eval() end
      local scores = model(batch)
      for s = 1, n do values[#values + 1] = scores:get(s, 1) end
      if training then mr.bce(scores, batch.label):backward() end
    end
    for _, p in ipairs(model.params) do
      if not p.trainable then
        for i = 1, p:size() do values[#values + 1] = p:weight(i) end
      end
    end
    model:close()
    return values
  end

  local function same(expected, got, tolerance)
    assert.equal(#expected, #got)
    for i, x in ipairs(expected) do
      if not (math.abs(x - got[i]) <= tolerance) then
        error(("number %d of %d: expected %.9g, got %.9g"):format(i, #got, x, got[i]), 2)
      end
    end
  end

  -- Layers of one column are dot products, row by row; the rows of wider ones are OpenBLAS's, which adds
  -- them up in an order that depends on how many there are, on some processors.
  it("gives the bits of padded histories, however far they are padded, and learns the same statistics", function()
    for width, tolerance in pairs { [1] = 0, [36] = 2e-5 } do
      for _, n in ipairs { 3, 4, 65, 200 } do
        local short = run(false, n, 50, width)
        assert.is_true(#short >= 2 * n)
        same(short, run(true, n, 50, width), tolerance)
        same(short, run(true, n, 7, width), tolerance)
        same(run(false, n, 2, width), run(true, n, 2, width), tolerance) -- longer ones are cut
      end
    end
  end)

  it("takes a batch in which no history has an entry", function()
    local batch = batches.build({ { { 1, 1, 0 } }, { { 2, 1, 0 } } }, { fields = 2, field = true })
    local t = tape.new { seed = 1 }
    t:begin(true, 1)
    local pool = require "moonrock.pool"
    local lookup = C.mr_tape_lookup(t.c, batch.c, ffi.new("int32_t[1]", 2), 1, ffi.new("double[4]", 1, 2, 3, 4), 2)
    local column = pool.column("given", "v", 0, 2)
    pool.bind(column, t, lookup)
    local keys, mask = column:sequence(2, 50)
    assert.equal(1, keys:dim(2))
    local y = mr.attention_pool(params(), "a", 2)(column:fields():slice(2, 1, 1):flatten(), keys, mask)
    for s = 1, 2 do assert.equal(0, y:get(s, 1)) end
    y:sum():backward()
    t:free()
  end)
end)

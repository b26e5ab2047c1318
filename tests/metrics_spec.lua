local ffi = require "ffi"
local C = require "moonrock.ffi"
local metrics = require "moonrock.metrics"

-- A batch of Lua arrays, as the reader would make it; what it points at is kept beside it.
local function batch_of(label, weight)
  local b = { n = #label, keep = {} }
  b.c = ffi.new("mr_batch")
  b.c.n = #label
  b.keep.label = ffi.new("float[?]", math.max(#label, 1), label)
  b.c.label = b.keep.label
  if weight then
    b.keep.weight = ffi.new("float[?]", math.max(#weight, 1), weight)
    b.c.weight = b.keep.weight
  end
  b.label = { batch = b, name = "label" }
  return b
end

local function floats(t) return ffi.new("float[?]", math.max(#t, 1), t) end

local function metrics_of(score, label, weight, options)
  local m = metrics.new(options)
  m:add(floats(score), batch_of(label, weight).label)
  return m:result(), m
end

-- The definition: over all pairs, a positive above a negative, ties half.
local function auc_of(score, label, weight)
  local won, pairs_weight = 0, 0
  for i = 1, #score do
    for j = 1, #score do
      if label[i] > 0 and label[j] <= 0 then
        local w = weight and weight[i] * weight[j] or 1
        pairs_weight = pairs_weight + w
        if score[i] > score[j] then won = won + w end
        if score[i] == score[j] then won = won + w / 2 end
      end
    end
  end
  return won / pairs_weight
end

-- The sums by definition, in float64.
local function means_of(score, label, weight)
  local w, loss, right, square, p, y = 0, 0, 0, 0, 0, 0
  for i = 1, #score do
    local wi = weight and weight[i] or 1
    local yi, pi = label[i] > 0 and 1 or 0, 1 / (1 + math.exp(-score[i]))
    w = w + wi
    loss = loss - wi * (yi * math.log(pi) + (1 - yi) * math.log(1 - pi))
    right = right + ((pi > 0.5) == (yi == 1) and wi or 0)
    square = square + wi * (pi - yi) ^ 2
    p, y = p + wi * pi, y + wi * yi
  end
  return { logloss = loss / w, accuracy = right / w, rmse = math.sqrt(square / w),
    prediction = p / w, label = y / w }
end

-- Scores on a grid, so that many are equal; exact in float.
local function sample(n, grid)
  local score, label, weight = {}, {}, {}
  for i = 1, n do
    score[i] = math.floor(math.random() * grid) / 32 - grid / 64
    label[i] = math.random() < 1 / (1 + math.exp(-score[i])) and 1 or 0
    weight[i] = math.floor(math.random() * 4)
  end
  return score, label, weight
end

local function near(expected, got, tolerance)
  assert.is_true(math.abs(expected - got) <= tolerance,
    ("expected %.17g, got %.17g"):format(expected, got))
end

local function is_nan(x) assert.is_true(x ~= x, "expected NaN, got " .. tostring(x)) end

describe("mr.metrics", function()
  before_each(function() math.randomseed(7) end)

  it("gives the AUC of the definition, ties counted half", function()
    for _, grid in ipairs { 2, 7, 200, 1e6 } do
      local score, label = sample(400, grid)
      -- Both are ratios of whole numbers and halves below 2^53: one rounding apart.
      if grid == 1e6 then for i = 1, 400 do score[i] = score[i] / 4096 end end
      for i = 1, 400 do score[i] = tonumber(ffi.cast("float", score[i])) end
      near(auc_of(score, label), metrics_of(score, label).auc, 1e-15)
    end
  end)

  it("weighs pairs by both samples", function()
    local score, label, weight = sample(300, 20)
    near(auc_of(score, label, weight), metrics_of(score, label, weight).auc, 1e-14)
  end)

  it("gives the means of the definition", function()
    local score, label, weight = sample(500, 300)
    for _, w in ipairs { false, weight } do
      local expected, got = means_of(score, label, w or nil), metrics_of(score, label, w or nil)
      -- 500 terms of about 1 in float64, in another order of operations.
      for name, value in pairs(expected) do near(value, got[name], 1e-12) end
      assert.equal(500, got.rows)
    end
  end)

  it("takes a weight of 3 for a sample that occurs three times", function()
    local score, label, weight = sample(200, 30)
    local score2, label2 = {}, {}
    for i = 1, 200 do
      for _ = 1, weight[i] do
        score2[#score2 + 1], label2[#label2 + 1] = score[i], label[i]
      end
    end
    local a, b = metrics_of(score, label, weight), metrics_of(score2, label2)
    for _, name in ipairs { "auc", "logloss", "accuracy", "rmse", "label", "prediction" } do
      near(b[name], a[name], 1e-12)
    end
  end)

  it("does not depend on how samples are cut into batches, or on being read between", function()
    local score, label, weight = sample(1000, 50)
    local whole = metrics_of(score, label, weight)
    local m = metrics.new()
    for i = 1, 1000, 125 do
      local s, l, w = {}, {}, {}
      for j = i, i + 124 do s[#s + 1], l[#l + 1], w[#w + 1] = score[j], label[j], weight[j] end
      m:add(floats(s), batch_of(l, w).label)
      m:result()
    end
    assert.same(whole, m:result())
  end)

  it("has no AUC where there is one class, and no mean of nothing", function()
    is_nan(metrics_of({ 1, 2, 3 }, { 1, 1, 1 }).auc)
    is_nan(metrics_of({ 1, 2, 3 }, { 0, 0, 0 }, nil, { bins = 64 }).auc)
    local empty = metrics.new():result()
    is_nan(empty.auc)
    is_nan(empty.logloss)
    assert.equal(0, empty.rows)
    is_nan(metrics_of({ 1, 2 }, { 1, 0 }, { 0, 0 }).rmse)
  end)

  it("keeps logloss exact at extreme logits", function()
    -- ln(1 + e^-z) is e^-z to 1e-22 at 50, and z at the wrong end.
    near(math.exp(-50), metrics_of({ 50 }, { 1 }).logloss, 1e-30)
    assert.equal(1000, metrics_of({ -1000 }, { 1 }).logloss)
    assert.equal(3e38, tonumber(("%.0e"):format(metrics_of({ 3e38 }, { 0 }).logloss)))
    assert.equal(0, metrics_of({ math.huge }, { 1 }).logloss)
    assert.equal(math.huge, metrics_of({ math.huge }, { 0 }).logloss)
    local r = metrics_of({ -math.huge, math.huge, -3e38, 3e38 }, { 0, 1, 0, 1 })
    assert.equal(1, r.auc)
    assert.equal(1, r.accuracy)
  end)

  it("takes both zeros for one score, and -1 for 0 as a label", function()
    assert.equal(0.5, metrics_of({ 0, -0.0 }, { 1, 0 }).auc)
    assert.equal(0.5, metrics_of({ -0.0, 0 }, { 1, -1 }).auc)
    assert.same(metrics_of({ 1, 2, 3 }, { 0, 1, 0 }), metrics_of({ 1, 2, 3 }, { -1, 1, -1 }))
  end)

  it("bounds the error of the AUC by bins, in fixed memory", function()
    local score, label, weight = sample(3000, 1e6)
    for i = 1, 3000 do
      score[i] = tonumber(ffi.cast("float", score[i] / 8192))
      label[i] = math.random() < 1 / (1 + math.exp(-score[i])) and 1 or 0
    end
    local exact = metrics_of(score, label, weight).auc
    local before
    for _, bins in ipairs { 32, 256, 4096, 65536 } do
      local calls
      local r, m = metrics_of(score, label, weight, { bins = bins })
      local bound = m:auc_error()
      assert.is_true(math.abs(r.auc - exact) <= bound + 1e-15,
        ("%d bins: off by %g, bound %g"):format(bins, math.abs(r.auc - exact), bound))
      assert.is_true(bound < (before or 1), ("%d bins: bound %g"):format(bins, bound))
      before, calls = bound, C.mr_memory_calls()
      m:add(floats(score), batch_of(label, weight).label)
      m:result()
      assert.equal(calls, C.mr_memory_calls())
    end
    assert.is_true(before < 1e-4)
  end)

  it("gives RMSE of raw values for a regression", function()
    local r = metrics_of({ 1.5, -2, 10 }, { 2, -2, 7 }, { 1, 5, 2 }, { loss = "mse" })
    near(math.sqrt((0.25 + 0 + 18) / 8), r.rmse, 1e-15)
    near((2 - 10 + 14) / 8, r.label, 1e-15)
    near((1.5 - 10 + 20) / 8, r.prediction, 1e-15)
    assert.is_nil(r.auc)
    assert.is_nil(r.logloss)
  end)

  it("refuses what is no score, label or weight, and then counts nothing", function()
    local m = metrics.new()
    local function add(score, label, weight)
      return function() m:add(floats(score), batch_of(label, weight).label) end
    end
    assert.error_matches(add({ 1, 0 / 0 }, { 0, 1 }),
      "metrics: the score of sample 2 of 2 is not a number")
    assert.error_matches(add({ 1, 2 }, { 0, 3 }),
      "metrics: the label of sample 2 of 2 is 3, expected 0 or 1 %(or %-1 or 1%)")
    assert.error_matches(add({ 1, 2 }, { 0, 1 }, { -1, 1 }),
      "metrics: the weight of sample 1 of 2 is %-1, expected one of at least 0")
    assert.error_matches(function() m:add({}, batch_of({ 1 }).label) end,
      "mr.metrics: expected logits and a label, got a table")
    assert.error_matches(function() m:add(floats { 1 }, nil) end,
      "mr.metrics: expected batch.label, got a nil")
    assert.error_matches(function() metrics.new { bins = 100 } end,
      "metrics: 100 bins, expected 0 or a power of two from 32 to 1048576")
    assert.error_matches(function() metrics.new { bin = 64 } end, "mr.metrics has no option \"bin\"")
    local unlabelled = batch_of { 1 }
    unlabelled.c.label = nil
    assert.error_matches(function() m:add(floats { 1 }, unlabelled.label) end,
      "metrics: the data has no label")
    assert.equal(0, m:result().rows)
  end)
end)

describe("mr.watch", function()
  before_each(function() math.randomseed(11) end)

  local function slice(t, from, to)
    local r = {}
    for i = from, to do r[#r + 1] = t[i] end
    return r
  end

  local function feed(watch, score, label, weight, from, to, size)
    for i = from, to, size do
      local last = math.min(i + size - 1, to)
      watch:add(floats(slice(score, i, last)),
        batch_of(slice(label, i, last), weight and slice(weight, i, last)).label)
    end
  end

  it("gives the exact metrics of the last samples, and those of all", function()
    local score, label, weight = sample(700, 40)
    local watch = metrics.watch { window = 150 }
    for _, stage in ipairs { { 1, 100 }, { 101, 200 }, { 201, 700 } } do
      feed(watch, score, label, weight, stage[1], stage[2], 32)
      local to = stage[2]
      local from = math.max(1, to - 149)
      local r = watch:result()
      local function exact(a, b)
        return metrics_of(slice(score, a, b), slice(label, a, b), slice(weight, a, b))
      end
      assert.same(exact(from, to), r.window)
      local all = exact(1, to)
      assert.equal(all.logloss, r.total.logloss)
      near(all.auc, r.total.auc, 2e-3) -- 4096 bins; the scores here are on a grid of 1/32
      assert.equal(to, r.rows)
    end
  end)

  it("continues from saved bytes as if never stopped", function()
    local score, label, weight = sample(500, 1000)
    for _, cut in ipairs { 0, 60, 100, 340, 500 } do
      local a = metrics.watch { window = 100, every = 70 }
      local b = metrics.watch { window = 100, every = 70 }
      feed(a, score, label, weight, 1, cut, 20)
      b:load(a:save())
      assert.equal(a:save(), b:save())
      feed(a, score, label, weight, cut + 1, 500, 20)
      feed(b, score, label, weight, cut + 1, 500, 20)
      assert.equal(a:line(), b:line())
      assert.equal(a:save(), b:save())
    end
  end)

  it("refuses bytes of another watch, and damaged ones", function()
    local watch = metrics.watch { window = 10 }
    feed(watch, { 1, 2 }, { 0, 1 }, nil, 1, 2, 2)
    local bytes = watch:save()
    assert.error_matches(function() metrics.watch({ window = 20 }):load(bytes) end,
      "watch: saved with a window of 10 samples, expected 20")
    assert.error_matches(function() metrics.watch({ window = 10, loss = "mse" }):load(bytes) end,
      "watch: saved for labels, expected regression")
    for len = 0, #bytes - 1 do
      assert.error_matches(function() watch:load(bytes:sub(1, len)) end, "saved")
    end
    assert.error_matches(function() watch:load(bytes .. "x") end, "watch: %d+ saved bytes, expected")
    assert.equal(0, watch:result().rows)
  end)

  it("is due each time the samples or batches pass a multiple", function()
    for every, expected in pairs { ["3 batches"] = "001001001", [50] = "001010010" } do
      local watch, seen = metrics.watch { every = every }, ""
      for _ = 1, 9 do
        watch:add(floats(slice({}, 1, 0)), batch_of({}).label)
        feed(watch, sample(20, 10), select(2, sample(20, 10)), nil, 1, 20, 20)
        watch.batches = watch.batches - 1 -- the empty one
        seen = seen .. (watch:due() and "1" or "0")
        assert.is_false(watch:due())
      end
      assert.equal(expected, seen)
    end
  end)

  it("is due by the clock when every is in seconds", function()
    local watch = metrics.watch { every = "0.02s" }
    assert.is_false(watch:due())
    local until_then = C.mr_clock() + 0.03
    while C.mr_clock() < until_then do end
    assert.is_true(watch:due())
    assert.is_false(watch:due())
    assert.error_matches(function() metrics.watch { every = "soon" } end,
      "mr.watch: every is \"soon\", expected as \"10s\", \"100 batches\" or a number of samples")
  end)

  it("writes a line, with a dash for what is not defined", function()
    local watch = metrics.watch { window = 2 }
    assert.equal("rows 0   last 0: logloss - auc -   all: logloss - auc -", watch:line())
    feed(watch, { 0, 0, 0 }, { 0, 1, 1 }, nil, 1, 3, 1)
    assert.equal("rows 3   last 2: logloss 0.6931 auc -   all: logloss 0.6931 auc 0.5000",
      watch:line())
  end)

  it("adds batches without garbage or allocation", function()
    local watch, m = metrics.watch {}, metrics.new { bins = 4096 }
    local score, label = sample(256, 100)
    local scores, batch = floats(score), batch_of(label)
    local function work(n)
      for _ = 1, n do
        watch:add(scores, batch.label)
        m:add(scores, batch.label)
        watch:due()
      end
    end
    work(200)
    collectgarbage()
    collectgarbage "stop"
    local kb, calls = collectgarbage "count", C.mr_memory_calls()
    work(1000)
    kb = collectgarbage "count" - kb
    collectgarbage "restart"
    assert.equal(calls, C.mr_memory_calls())
    assert.is_true(kb < 64, kb .. " KB")
  end)
end)

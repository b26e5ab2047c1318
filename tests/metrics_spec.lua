local ffi = require "ffi"
local C = require "moonrock.ffi"
local metrics = require "moonrock.metrics"
local reader = require "moonrock.reader"

-- A batch of Lua arrays, as the reader would make it; what it points at is kept beside it. Its fields
-- are lists of keys.
local function batch_of(label, weight, fields)
  local c = ffi.new("mr_batch")
  c.n = #label
  local b = reader.batch(c)
  b.keep = {}
  if fields then
    local n = #label * #fields
    b.keep.keys, b.keep.offsets = ffi.new("uint64_t[?]", n + 1), ffi.new("uint32_t[?]", #label + 1)
    for s = 0, #label - 1 do
      b.keep.offsets[s + 1] = (s + 1) * #fields
      for f = 1, #fields do b.keep.keys[s * #fields + f - 1] = fields[f][s + 1] end
    end
    c.fields, c.entries, c.keys, c.offsets = #fields, n, b.keep.keys, b.keep.offsets
  end
  b.keep.label = ffi.new("float[?]", math.max(#label, 1), label)
  b.c.label = b.keep.label
  if weight then
    b.keep.weight = ffi.new("float[?]", math.max(#weight, 1), weight)
    b.c.weight = b.keep.weight
  end
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
  local w, loss, right, square, p, y, off = 0, 0, 0, 0, 0, 0, 0
  for i = 1, #score do
    local wi = weight and weight[i] or 1
    local yi, pi = label[i] > 0 and 1 or 0, 1 / (1 + math.exp(-score[i]))
    w = w + wi
    loss = loss - wi * (yi * math.log(pi) + (1 - yi) * math.log(1 - pi))
    right = right + ((pi > 0.5) == (yi == 1) and wi or 0)
    square = square + wi * (pi - yi) ^ 2
    off = off + wi * math.abs(pi - yi)
    p, y = p + wi * pi, y + wi * yi
  end
  local rate = y / w
  local entropy = -rate * math.log(rate) - (1 - rate) * math.log(1 - rate)
  return { logloss = loss / w, accuracy = right / w, rmse = math.sqrt(square / w), mae = off / w,
    prediction = p / w, label = rate, calibration = p / y, ne = loss / w / entropy }
end

-- Average precision: at each distinct score the precision down to it, times the positives there.
local function pr_auc_of(score, label, weight)
  local total, sum = 0, 0
  for i = 1, #score do total = total + (label[i] > 0 and (weight and weight[i] or 1) or 0) end
  for i = 1, #score do
    if label[i] > 0 then
      local positive, all = 0, 0
      for j = 1, #score do
        if score[j] >= score[i] then
          local w = weight and weight[j] or 1
          positive, all = positive + (label[j] > 0 and w or 0), all + w
        end
      end
      if all > 0 then sum = sum + (weight and weight[i] or 1) * positive / all end
    end
  end
  return sum / total
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

  it("gives the PR-AUC of the definition, equal scores one threshold", function()
    for _, grid in ipairs { 2, 20, 1000 } do
      local score, label, weight = sample(300, grid)
      near(pr_auc_of(score, label), metrics_of(score, label).pr_auc, 1e-13)
      near(pr_auc_of(score, label, weight), metrics_of(score, label, weight).pr_auc, 1e-13)
    end
    is_nan(metrics_of({ 1, 2 }, { 0, 0 }).pr_auc)
  end)

  it("gives the calibration of each tenth of the probability", function()
    local score, label, weight = sample(500, 300)
    local r, m = metrics_of(score, label, weight)
    local all, gap = 0, 0
    for b, got in ipairs(m:buckets()) do
      local w, p, y = 0, 0, 0
      for i = 1, 500 do
        local pi = 1 / (1 + math.exp(-score[i]))
        if math.min(9, math.floor(pi * 10)) == b - 1 then
          w, p, y = w + weight[i], p + weight[i] * pi, y + weight[i] * label[i]
        end
      end
      near(w, got.weight, 0)
      if w > 0 then
        near(p / w, got.prediction, 1e-12)
        near(y / w, got.label, 1e-12)
      end
      all, gap = all + w, gap + math.abs(p - y)
    end
    assert.equal(10, #m:buckets())
    near(gap / all, r.ece, 1e-12)
  end)

  it("reads scores of counts as logarithms", function()
    local r = metrics_of({ 0, math.log(3) }, { 2, 3 }, nil, { loss = "poisson" })
    near(math.sqrt(0.5), r.rmse, 1e-7) -- of a float's logarithm
    near(0.5, r.mae, 1e-7)
    near(0.8, r.calibration, 1e-7)
    assert.is_nil(r.auc)
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
    local whole = metrics_of(score, label, weight)
    local exact, exact_pr = whole.auc, whole.pr_auc
    local before
    for _, bins in ipairs { 32, 256, 4096, 65536 } do
      local calls
      local r, m = metrics_of(score, label, weight, { bins = bins })
      local bound = m:auc_error()
      local pr_bound = select(2, m:auc_error())
      assert.is_true(math.abs(r.pr_auc - exact_pr) <= pr_bound + 1e-12 and pr_bound < 1)
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

  it("bounds the error of the PR-AUC where the negatives of a bin come first, too", function()
    local score, label = {}, {}
    for i = 1, 1000 do score[i], label[i] = 5, 0 end
    for i = 1, 10 do score[1000 + i], label[1000 + i] = 1 - i / 1e5, 1 end
    score[1011], label[1011] = 1.001, 0 -- of the bin of the positives
    local exact = metrics_of(score, label).pr_auc
    local r, m = metrics_of(score, label, nil, { bins = 32 })
    local off, bound = math.abs(r.pr_auc - exact), select(2, m:auc_error())
    assert.is_true(off > 1e-3 and off <= bound + 1e-12, ("off by %g, bound %g"):format(off, bound))
  end)

  it("begins anew after a reset, by bins too", function()
    for _, bins in ipairs { false, 64 } do
      local o = { bins = bins or nil, slice = 1, group = 1 }
      local again, fresh = metrics.new(o), metrics.new(o)
      local score, label, weight = sample(300, 30)
      local key = {}
      for i = 1, 300 do key[i] = i % 3 end
      again:add(floats(score), batch_of(label, weight, { key }).label)
      again:reset()
      score, label, weight = sample(200, 30)
      for i = 1, 300 do key[i] = i <= 200 and 1 + i % 2 or nil end
      for _, m in ipairs { again, fresh } do m:add(floats(score), batch_of(label, weight, { key }).label) end
      assert.same(fresh:result(), again:result())
      assert.equal(2, #again:result().slices)
    end
  end)

  it("does not look at the scores of samples of weight 0", function()
    for _, o in ipairs { {}, { bins = 64 }, { slice = 1 } } do
      local with, without = metrics.new(o), metrics.new(o)
      with:add(floats { 1, math.huge, -1, -math.huge, 0.5 },
        batch_of({ 1, 0, 0, 1, 1 }, { 2, 0, 1, 0, 1 }, { { 7, 7, 7, 7, 7 } }).label)
      without:add(floats { 1, -1, 0.5 }, batch_of({ 1, 0, 1 }, { 2, 1, 1 }, { { 7, 7, 7 } }).label)
      local got, expected = with:result(), without:result()
      for _, name in ipairs { "auc", "pr_auc", "logloss", "accuracy", "rmse", "mae", "prediction", "ece" } do
        assert.equal(expected[name], got[name], name)
        if o.slice then assert.equal(expected.slices[1][name], got.slices[1][name], name) end
      end
    end
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

-- All orders of a list of samples that a ranking by score allows.
local function orders(samples)
  local found = {}
  local function place(chosen, left)
    if #left == 0 then
      found[#found + 1] = { unpack(chosen) }
      return
    end
    local top = -math.huge
    for _, s in ipairs(left) do top = math.max(top, s.score) end
    for i, s in ipairs(left) do
      if s.score == top then
        local rest = { unpack(left) }
        table.remove(rest, i)
        chosen[#chosen + 1] = s
        place(chosen, rest)
        chosen[#chosen] = nil
      end
    end
  end
  place({}, samples)
  return found
end

-- What one order is worth, by definition.
local function worth(order, k)
  local gains, dcg, best, hits, relevant, ap, rr = {}, 0, 0, 0, 0, 0, 0
  for rank, s in ipairs(order) do
    gains[rank] = 2 ^ math.max(0, s.label) - 1
    if rank <= k then dcg = dcg + gains[rank] * math.log(2) / math.log(rank + 1) end
    if s.label > 0 then
      relevant = relevant + 1
      if rank <= k then hits = hits + 1 end
      ap = ap + relevant / rank
      if rr == 0 then rr = 1 / rank end
    end
  end
  table.sort(gains, function(a, b) return a > b end)
  for rank = 1, math.min(k, #gains) do best = best + gains[rank] * math.log(2) / math.log(rank + 1) end
  if relevant == 0 then return nil end
  return { ndcg = dcg / best, precision = hits / k, recall = hits / relevant,
    hit_rate = hits > 0 and 1 or 0, map = ap / relevant, mrr = rr }
end

describe("mr.metrics with groups", function()
  before_each(function() math.randomseed(13) end)

  -- Groups of 1 to 7 samples, in any order, with many equal scores.
  local function grouped(loss)
    local score, label, weight, key, by = {}, {}, {}, {}, {}
    for _ = 1, 120 do
      local g = math.random(30)
      by[g] = by[g] or {}
      if #by[g] < 7 then
        local s = { score = math.random(4) / 4,
          label = loss and math.random(0, 3) or math.random(0, 1), weight = math.random(3) }
        table.insert(by[g], s)
        score[#score + 1], label[#label + 1], weight[#weight + 1] = s.score, s.label, s.weight
        key[#key + 1] = g * 2 ^ 40
      end
    end
    return score, label, weight, key, by
  end

  it("means over all orders of equal scores, by definition", function()
    for _, loss in ipairs { false, "mse" } do
      for _, k in ipairs { 1, 2, 3, 10 } do
        local score, label, weight, key, by = grouped(loss)
        local m = metrics.new { group = 1, k = k, loss = loss or "bce" }
        m:add(floats(score), batch_of(label, weight, { key }).label)
        local r = m:result()
        local sum, groups = {}, 0
        for _, samples in pairs(by) do
          local all = orders(samples)
          for _, order in ipairs(all) do
            for name, x in pairs(worth(order, k) or {}) do sum[name] = (sum[name] or 0) + x / #all end
          end
          groups = groups + (worth(samples, k) and 1 or 0)
        end
        assert.equal(groups, r.groups)
        for name, x in pairs(sum) do near(x / groups, r[name], 1e-12) end
      end
    end
  end)

  it("leaves samples of weight 0 out", function()
    local score, label, weight, key = grouped()
    local kept = { {}, {}, {}, {} }
    for i = 1, #score do
      if math.random(3) == 1 then weight[i] = 0
      else
        for at, list in ipairs { score, label, weight, key } do table.insert(kept[at], list[i]) end
      end
    end
    local all, some = metrics.new { group = 1, k = 2 }, metrics.new { group = 1, k = 2 }
    all:add(floats(score), batch_of(label, weight, { key }).label)
    some:add(floats(kept[1]), batch_of(kept[2], kept[3], { kept[4] }).label)
    local expected, got = some:result(), all:result()
    for _, name in ipairs { "groups", "gauc", "ndcg", "precision", "recall", "hit_rate", "map", "mrr" } do
      assert.equal(expected[name], got[name], name)
    end
  end)

  it("weighs the AUC of a group by its samples: GAUC", function()
    local score, label, weight, key, by = grouped()
    local sum, total = 0, 0
    for _, samples in pairs(by) do
      local s, l, w, n = {}, {}, {}, 0
      for i, x in ipairs(samples) do s[i], l[i], w[i], n = x.score, x.label, x.weight, n + x.weight end
      local auc = auc_of(s, l, w)
      if auc == auc then sum, total = sum + n * auc, total + n end
    end
    local m = metrics.new { group = 1 }
    local half = {}
    for i = 1, 2 do -- however samples are cut into batches
      half[i] = { {}, {}, {}, {} }
      for j = i, #score, 2 do
        for at, list in ipairs { score, label, weight, key } do
          table.insert(half[i][at], list[j])
        end
      end
      local h = half[i]
      m:add(floats(h[1]), batch_of(h[2], h[3], { h[4] }).label)
    end
    near(sum / total, m:result().gauc, 1e-13)
    m:reset()
    is_nan(m:result().gauc)
    is_nan(m:result().ndcg)
  end)

  it("gives each slice the metrics that its samples alone would have", function()
    local score, label, weight = sample(400, 30)
    local key, parts = {}, {}
    for i = 1, 400 do
      local at = math.random(3) ^ 20
      key[i] = at
      parts[at] = parts[at] or { {}, {}, {} }
      for j, list in ipairs { score, label, weight } do table.insert(parts[at][j], list[i]) end
    end
    local m = metrics.new { slice = 2 }
    m:add(floats(score), batch_of(label, weight, { label, key }).label)
    local slices = m:result().slices
    assert.equal(3, #slices)
    for i, slice in ipairs(slices) do
      local part = parts[tonumber(slice.key, 16)]
      assert.equal(("%d"):format(tonumber(slice.key, 16)), slice.value)
      slice.key, slice.value = nil, nil
      assert.same(metrics_of(part[1], part[2], part[3]), slice)
      assert.is_true(i == 1 or slices[i - 1].rows >= slice.rows)
    end
  end)

  it("refuses fields that are not there", function()
    local m = metrics.new { group = 2 }
    assert.error_matches(function() m:add(floats { 1 }, batch_of({ 1 }, nil, { { 7 } }).label) end,
      "batch: field 2 is not among its 1")
    assert.error_matches(function() m:add(floats { 1 }, batch_of({ 1 }).label) end,
      "batch: its samples are plain sets of keys, without fields to take one from")
    local named = metrics.new { slice = "country" }
    assert.error_matches(function() named:add(floats { 1 }, batch_of({ 1 }, nil, { { 7 } }).label) end,
      'field "country": the data has no schema that names fields; give its number, from 1')
    assert.error_matches(function() metrics.new { group = 1, k = 0 } end,
      "metrics: k is 0, expected a number from 1")
    assert.error_matches(function() metrics.new { loss = "bpr" } end,
      'mr.metrics: loss is "bpr", expected bce, hinge, mse, mae, huber, quantile or poisson')
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
      -- Step by step: once a whole window is new, what was loaded no longer shows.
      for from = cut + 1, 500, 20 do
        for _, watch in ipairs { a, b } do feed(watch, score, label, weight, from, math.min(from + 19, 500), 20) end
        assert.same(a:result().window, b:result().window)
        assert.equal(a:line(), b:line())
      end
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
      "mr.watch: every is \"soon\", expected as \"10s\", \"100 batches\" or \"5000 samples\"")
  end)

  it("writes a line, with a dash for what is not defined", function()
    local watch = metrics.watch { window = 2 }
    assert.equal("rows 0   last 0: logloss - auc - accuracy -   all: logloss - auc_all - accuracy -", watch:line())
    feed(watch, { 0, 0, 0 }, { 0, 1, 1 }, nil, 1, 3, 1)
    assert.equal("rows 3   last 2: logloss 0.6931 auc - accuracy 0.0000   "
      .. "all: logloss 0.6931 auc_all 0.5000 accuracy 0.3333", watch:line())
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

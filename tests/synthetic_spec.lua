local ffi = require "ffi"
local synthetic = require "datasets.synthetic"
local metrics = require "moonrock.metrics"

describe("the synthetic data", function()
  local data = synthetic.new(42)
  local BLOCK, WIDTH = 100, 40

  -- Calls each(ids of a row as a pointer, logit, label) for rows of a part.
  local function visit(from, rows, each, source)
    local ids, logit = ffi.new("int64_t[?]", BLOCK * WIDTH), ffi.new("float[?]", BLOCK)
    local label = ffi.new("float[?]", BLOCK)
    for at = from, from + rows - 1, BLOCK do
      (source or data):rows("train", at, BLOCK, ids, logit, label)
      for r = 0, BLOCK - 1 do each(ids + r * WIDTH, logit[r], label[r]) end
    end
  end

  it("has 39 fields, 13 of 50 values and 26 that grow from 10 to a million", function()
    assert.equal(39, #data.vocabulary)
    for f = 1, 13 do assert.equal(50, data.vocabulary[f]) end
    assert.equal(10, data.vocabulary[14])
    assert.equal(1e6, data.vocabulary[39])
    for f = 15, 39 do
      local growth = data.vocabulary[f] / data.vocabulary[f - 1]
      assert.is_true(growth > 1.5 and growth < 1.65) -- 10^(5/25) = 1.585, rounded to whole values
    end
  end)

  it("is a function of seed, part and row alone", function()
    local function read(source, part, from, n)
      local ids, logit = ffi.new("int64_t[?]", n * WIDTH), ffi.new("float[?]", n)
      source:rows(part, from, n, ids, logit, ffi.new("float[?]", n))
      return ffi.string(ids, n * WIDTH * 8), ffi.string(logit, n * 4)
    end
    local whole = read(data, "train", 1000, 60)
    local a, b = read(data, "train", 1000, 25), read(data, "train", 1025, 35)
    assert.is_true(whole == a .. b)
    assert.is_true(whole == (read(synthetic.new(42), "train", 1000, 60)))
    assert.is_false(whole == (read(data, "test", 1000, 60)))
    assert.is_false(whole == (read(synthetic.new(43), "train", 1000, 60)))
  end)

  it("draws each field's values by Zipf's law", function()
    local rows, seen = 40000, {}
    visit(0, rows, function(ids)
      local first = 1
      for f = 1, 39 do
        local id = tonumber(ids[f - 1])
        assert(id >= first and id < first + data.vocabulary[f])
        seen[id] = (seen[id] or 0) + 1
        first = first + data.vocabulary[f]
      end
    end)
    local first = 1
    for f = 1, 39 do
      local n, counts, total = data.vocabulary[f], {}, 0
      for id = first, first + n - 1 do counts[#counts + 1] = seen[id] end
      table.sort(counts, function(a, b) return a > b end)
      local exponent = f <= 13 and 0.5 or 1.1
      for i = 1, n do total = total + i ^ -exponent end
      for rank = 1, 3 do
        -- Binomial, within five deviations; the order statistics of near ranks shift a little,
        -- which the wider band of the counts allows for.
        local p = rank ^ -exponent / total
        local band = 5 * math.sqrt(p * (1 - p) / rows) + (f <= 13 and 0.1 * p or 0)
        local share = counts[rank] / rows
        assert.is_true(math.abs(share - p) < band,
          ("field %d rank %d: %.4f of the rows, expected %.4f"):format(f, rank, share, p))
      end
      first = first + n
    end
  end)

  it("has a quarter of positive labels, that its true logits predict with AUC 0.83", function()
    local rows = 60000
    local m, score = metrics.new { bins = 65536 }, ffi.new "float[1]"
    local label = ffi.new "float[1]"
    visit(0, rows, function(_, z, y)
      score[0], label[0] = z, y
      m:add(score, label, 1)
    end)
    local r = m:result()
    -- Binomial deviation 0.0018; that of the AUC about 0.002; the fit of the intercept on
    -- 20000 rows adds 0.003.
    assert.is_true(math.abs(r.label - 0.25) < 0.015, "label rate " .. r.label)
    assert.is_true(math.abs(r.prediction - r.label) < 0.008, "mean p " .. r.prediction)
    assert.is_true(math.abs(r.auc - 0.83) < 0.01, "auc " .. r.auc)
  end)

  it("writes bin, libsvm and libffm with the same samples", function()
    local ids = ffi.new("int64_t[?]", 3 * WIDTH)
    data:rows("test", 0, 3, ids, ffi.new "float[3]", ffi.new "float[3]")
    local path = os.tmpname()
    local function written(format)
      assert(data:write("test", 3, path, format))
      local file = assert(io.open(path, "rb"))
      local bytes = file:read "*a"
      file:close()
      return bytes
    end
    assert.is_true(written "bin" == ffi.string(ids, 3 * WIDTH * 8))
    local svm, ffm = {}, {}
    for r = 0, 2 do
      svm[#svm + 1] = tostring(tonumber(ids[r * WIDTH + 39]))
      ffm[#ffm + 1] = svm[#svm]
      for f = 0, 38 do
        svm[#svm + 1] = (" %d:1"):format(tonumber(ids[r * WIDTH + f]))
        ffm[#ffm + 1] = (" %d:%d:1"):format(f, tonumber(ids[r * WIDTH + f]))
      end
      svm[#svm + 1], ffm[#ffm + 1] = "\n", "\n"
    end
    assert.equal(table.concat(svm), written "libsvm")
    assert.equal(table.concat(ffm), written "libffm")
    os.remove(path)
    local done, message = data:write("test", 3, "/nowhere/test.bin", "bin")
    assert.is_nil(done)
    assert.matches("/nowhere/test.bin: No such file or directory", message, 1, true)
  end)
end)

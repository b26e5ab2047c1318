-- Values of any scale: normalized by sample and by key, kept in the store, and what is said where they are not.
local ffi = require "ffi"
local json = require "dkjson"
local mr = require "moonrock"
local C = require "moonrock.ffi"
local normalize = require "moonrock.normalize"
local tape = require "moonrock.tape"
local batches = require "tests.support.batches"
local shell = require "tests.support.shell"

local dir = shell.directory()
local made = 0
local function fresh()
  made = made + 1
  return ("%s/%d"):format(dir, made)
end

local function generator(state)
  return function()
    state = (state * 16807) % 2147483647
    return state / 2147483647
  end
end

-- Clicks that depend on an item and on a number; each line has a time beside them, of about `time`.
local function clicks(path, n, time, seed)
  local random, lines = generator(seed or 7), {}
  for s = 1, n do
    local item, number = math.floor(random() * 20), math.floor(random() * 200) - 100
    local z = (item - 10) / 4 + number / 40
    lines[s] = ("%d %d:1 900:%d 999:%d"):format(random() < 1 / (1 + math.exp(-z)) and 1 or 0, 1 + item, number,
      time * (0.9 + 0.1 * random()))
  end
  return shell.write(path, table.concat(lines, "\n") .. "\n")
end

-- The score of a sample is the sum of its values, as all weights are 1.
local function summing(options)
  return mr.model("summing", function(m)
    local row = m:table("features", { w = { dim = 1, init = "ones", optim = mr.optim.sgd { lr = 0 } } })
    return function(x) return row(x).w:sum() end
  end)(options)
end

local function scores(model, batch)
  local out, list = model(batch), {}
  for s = 1, batch.n do list[s] = out:get(s, 1) end
  return list
end

local function near(expected, got)
  assert.equal(#expected, #got)
  for i, x in ipairs(expected) do assert.near(x, got[i], 1e-6) end
end

local SAMPLES = { { { 1, 3 }, { 2, -4 } }, {}, { { 1, 0 } }, { { 7, 1e8 }, { 7, 1e8 }, { 3, 1 } }, { { 5, 1 } } }

describe("normalized by sample, values", function()
  it("are divided by the norm of their sample", function()
    local model = summing { data = mr.data { normalize = "sample" } }
    local expected = { -1 / 5, 0, 0, 2 / math.sqrt(2), 1 }
    near(expected, scores(model, batches.build(SAMPLES, { values = true })))
    model:eval()
    near(expected, scores(model, batches.build(SAMPLES, { values = true })))
    near({ 3 / math.sqrt(3), 0, 3 / math.sqrt(3), 1 }, scores(model, (batches.sets()))) -- all are 1
    model:close()
  end)
end)

describe("normalized by key, values", function()
  -- The first batch, and what follows from it.
  local BATCH = { { { 1, 2 }, { 2, -4 } }, { { 1, 1 }, { 3, 1 } }, { { 1, -8 }, { 2, 1 } }, { { 1, 4 }, { 3, 1 } } }
  local EXPECTED = { 1 - 1, 1 / 2 + 1, -1 + 1 / 4, 4 / 8 + 1 }

  it("are divided by the largest of their key so far, their own included", function()
    local model = summing { data = mr.data { normalize = "key" } }
    near(EXPECTED, scores(model, batches.build(BATCH, { values = true })))
    assert.same({ 8, 4, 0 }, { model.normalize:of(1), model.normalize:of(2), model.normalize:of(3) })
    model:close()
  end)

  it("do not depend on the other samples of a batch in evaluation, which changes nothing", function()
    local model = summing { data = mr.data { normalize = "key" } }
    scores(model, batches.build(BATCH, { values = true }))
    model:eval()
    local unseen = { { { 1, 16 } }, { { 1, 4 } }, { { 9, 1e6 } }, { { 9, -3 } }, { { 3, 5 } }, { { 2, 0 } } }
    local expected = { 1, 4 / 8, 1, -1, 1, 0 }
    for _ = 1, 2 do near(expected, scores(model, batches.build(unseen, { values = true }))) end
    for s, sample in ipairs(unseen) do
      near({ expected[s] }, scores(model, batches.build({ sample }, { values = true })))
    end
    near({ 1 / 8, 1 / 4, 1 }, scores(model, batches.build({ { { 1 } }, { { 2 } }, { { 3 } } }, {}))) -- all are 1
    assert.equal(2, C.mr_scales_count(model.normalize.c))
    model:close()
  end)

  it("are those that were read, however often a batch is applied to", function()
    local model = summing { data = mr.data { normalize = "key" } }
    local batch = batches.build({ { { 1, 2 } }, { { 1, 4 } } }, { values = true })
    model:eval()
    for _ = 1, 3 do near({ 1, 1 }, scores(model, batch)) end
    model:train()
    near({ 1, 1 }, scores(model, batch))
    near({ 2 / 4, 1 }, scores(model, batch))
    model:close()
  end)

  it("have a scale for thousands of keys, in ascending order as bytes, which come back", function()
    local how, samples, random = normalize.new "key", { {} }, generator(5)
    for k = 1, 5000 do samples[1][k] = { 5001 - k, 0.5 + 1000 * random() } end
    local t = tape.new { seed = 1 }
    t:begin(true, 1)
    how:apply(t, batches.build(samples, { values = true }))
    local saved = ffi.string(C.mr_scales_bytes(how.c), C.mr_scales_len(how.c))
    assert.equal(12 * 5000, #saved)
    local again = normalize.new "key"
    again:load { get = function() return saved end }
    for k = 1, 5000 do
      assert.near(samples[1][k][2], again:of(5001 - k), 1e-4)
      assert.equal(k, ffi.cast("const uint64_t *", ffi.cast("const char *", saved) + 12 * (k - 1))[0])
    end
    assert.equal(saved, ffi.string(C.mr_scales_bytes(again.c), C.mr_scales_len(again.c)))
    assert.has_error(function() again:load { get = function() return saved:sub(1, -2) end } end,
      "record normalize: has 59999 bytes, expected a multiple of 12")
    assert.has_error(function() again:load { get = function() return ("\0"):rep(12) end } end,
      "record normalize: the scale of key 0 is 0, expected a number above 0")
    t:free()
  end)

  it("say so when their scales outgrow the memory limit", function()
    local how, limit = normalize.new "key", C.mr_memory_limit()
    local t = tape.new { seed = 1 }
    t:begin(true, 1)
    local ok, problem = pcall(function()
      assert(C.mr_memory_limit_set(64e6) == 0, ffi.string(C.mr_error()))
      for part = 0, 9 do
        local samples = { {} }
        for k = 1, 50000 do samples[1][k] = { part * 50000 + k, 2 } end
        how:apply(t, batches.build(samples, { values = true }))
      end
    end)
    C.mr_memory_limit_set(limit)
    assert.is_false(ok)
    assert.truthy(problem:find("take over an eighth of the memory limit of 64 MB; raise it (--memory), or normalize "
      .. "by sample", 1, true), problem)
    t:free()
  end)

  it("go back with the state that a store goes back to", function()
    local model = summing { data = mr.data { normalize = "key" }, store = fresh() }
    local function train(x)
      local batch = batches.build({ { { 1, x } } }, { values = true })
      mr.mse(model(batch), batch.label):backward()
      model:step()
    end
    train(3)
    model:commit()
    model.store:checkpoint "best"
    train(300)
    model:commit()
    model:restore "best"
    assert.equal(3, model.normalize:of(1))
    model:close()
    local again = summing { data = mr.data { normalize = "key" }, store = model.directory, read_only = true }
    assert.equal(3, again.normalize:of(1))
    again:close()
  end)
end)

describe("the program, with --normalize", function()
  local file = clicks(dir .. "/clicks.svm", 3000, 1e9)

  local function run(...)
    local status, out, errors = shell.moonrock(...)
    assert.equal(0, status, errors)
    return out, errors
  end
  local function digest(store) return json.decode((run("info", "--store", store, "--json"))).digest end
  local function auc(store, data)
    return json.decode((run("eval", "--store", store, "--data", data, "--json"))).test.auc
  end

  it("key learns from the other values beside a time, and the store keeps it", function()
    local store, plain, none = fresh(), fresh(), fresh()
    run("train", "lr", "--data", file, "--store", store, "--epochs", "5", "--normalize", "key")
    local _, errors = run("train", "lr", "--data", file, "--store", plain, "--epochs", "5")
    assert.truthy(errors:find "key 999 has values up to 1e%+09; scale them %(%-%-normalize key%)", errors)
    assert.is_nil(errors:find("scale them.*scale them"), "said twice")
    -- the same data whose values are in proportion by themselves
    local text = shell.read(file):gsub("900:(%-?%d+)", function(x) return ("900:%.6g"):format(x / 100) end)
      :gsub(" 999:%d+", "")
    run("train", "lr", "--data", shell.write(dir .. "/scaled.svm", text), "--store", none, "--epochs", "5")
    local best = auc(none, dir .. "/scaled.svm")
    assert.is_true(best > 0.75)
    assert.near(best, auc(store, file), 0.02)
    assert.is_true(auc(plain, file) < 0.6)
    local before = digest(store)
    auc(store, file)
    run("predict", "--store", store, "--data", file, "--out", dir .. "/scores")
    assert.equal(before, digest(store))
  end)

  it("is the same at any number of threads and after any stop", function()
    for _, how in ipairs { "key", "sample" } do
      local one, two, resumed = fresh(), fresh(), fresh()
      local function train(store, ...)
        run("train", "fm", "--data", file, "--store", store, "--set", "dim=4", "--window", "500", ...)
      end
      train(one, "--epochs", "3", "--normalize", how, "--threads", "1")
      train(two, "--epochs", "3", "--normalize", how, "--threads", "2", "--commit-every", "1")
      train(resumed, "--epochs", "1", "--normalize", how)
      train(resumed, "--epochs", "3")                        -- the store knows
      assert.equal(digest(one), digest(two))
      assert.equal(digest(one), digest(resumed))
    end
  end)

  it("learns from a stream, and goes on with its scales", function()
    local whole, halves = fresh(), fresh()
    local lines = {}
    for line in io.lines(file) do lines[#lines + 1] = line end
    local half = shell.write(dir .. "/half.svm", table.concat(lines, "\n", 1, 1536) .. "\n")
    run("learn", "lr", "--source", file, "--store", whole, "--normalize", "key")
    run("learn", "lr", "--source", half, "--store", halves, "--normalize", "key")
    shell.write(half, shell.read(file))
    run("learn", "lr", "--source", half, "--store", halves)
    local model, other = mr.reopen(whole, { read_only = true }), mr.reopen(halves, { read_only = true })
    for _, key in ipairs { 1, 900, 999 } do assert.equal(model.normalize:of(key), other.normalize:of(key)) end
    assert.equal(100, model.normalize:of(900))
    model:close()
    other:close()
  end)

  it("refuses what the store was not made with, and data that has no such values", function()
    local store = fresh()
    run("train", "lr", "--data", file, "--store", store, "--normalize", "key")
    local status, _, errors = shell.moonrock("train", "lr", "--data", file, "--store", store, "--normalize", "sample")
    assert.equal(1, status)
    assert.truthy(errors:find('its model was made with normalize = "key", not normalize = "sample"', 1, true), errors)
    run("train", "lr", "--data", file, "--store", fresh())
    status, _, errors = shell.moonrock("train", "lr", "--schema", "census", "--store", fresh(), "--normalize", "key")
    assert.equal(2, status)
    assert.truthy(errors:find("numbers of a schema have a scale of their own", 1, true), errors)
    status, _, errors = shell.moonrock("train", "lr", "--data", file, "--store", fresh(), "--normalize", "keys")
    assert.equal(2, status)
    assert.truthy(errors:find("did you mean key?", 1, true), errors)
    assert.has_error(function() mr.data { normalize = "both" } end,
      'mr.data: normalize is "both", expected sample or key')
  end)
end)

describe("a training loss far above a constant's", function()
  local function notices(model, text, options)
    local said, file = {}, shell.write(fresh() .. ".svm", text)
    local o = { data = mr.data { files = file, format = "libsvm", task = options.task },
      on_notice = function(notice) said[#said + 1] = notice end }
    for name, value in pairs(options) do o[name] = value end
    local m = mr.find(model)(o)
    mr.fit(m, { train = "train", epochs = 3, size = options.size or 32 })
    m:close()
    return said
  end

  local function lines(n, format)
    local list, random = {}, generator(11)
    for i = 1, n do list[i] = format(i, random) end
    return table.concat(list, "\n") .. "\n"
  end

  it("is told once, with the key of the largest value", function()
    local said = notices("lr", lines(500, function(i, random)
      return ("%d %d:1 18446744073709551615:%d 5:-70"):format(i % 2, 10 + i % 7, 1e6 * random())
    end), {})
    assert.equal(1, #said)
    assert.truthy(said[1]:find("is far above 0.6931, that of a constant: key 18446744073709551615 has values up to "
      .. "1e+06; scale them (--normalize key)", 1, true), said[1])
  end)

  it("is told of squared errors", function()
    local said = notices("lr", lines(500, function(i, random)
      return ("%d %d:1 9:-%d"):format(i % 5, 10 + i % 7, 1e6 * random())
    end), { loss = "mse", task = "regression" })
    assert.equal(1, #said)
    assert.truthy(said[1]:find("^train mse [%d.]+ is far above 2.0000, that of a constant: key 9 has"), said[1])
  end)

  it("is told with another reason where values are small", function()
    local said = notices("fm", lines(500, function(i) return ("%d %d:1 %d:1"):format(i * 7 % 2, i % 9, 10 + i % 7) end),
      { lr = 500 })
    assert.equal(1, #said)
    assert.truthy(said[1]:find("a constant: a smaller learning rate may help (--lr)", 1, true), said[1])
  end)

  it("is told by the field of a schema", function()
    local said = {}
    local path = shell.write(fresh() .. ".csv", "clicked,kind,time\n" .. lines(500, function(i, random)
      return ("%d,k%d,%d"):format(i % 2, i % 7, 1e9 * random())
    end))
    local schema = mr.schema { label = "clicked", files = { train = path },
      fields = { mr.category "kind", mr.numeric("time", { scale = "none" }) } }
    local m = mr.find "lr" { schema = schema, on_notice = function(notice) said[#said + 1] = notice end }
    mr.fit(m, { train = "train" })
    m:close()
    assert.equal(1, #said)
    assert.truthy(said[1]:find('field "time" has values up to 1e+09; give it a scale', 1, true), said[1])
  end)

  it("is not told of rare labels, labels far from 0, and values in proportion", function()
    assert.same({}, notices("lr", lines(500, function(i) return ("%d %d:1"):format(i % 100 == 0 and 1 or 0, i % 7) end), {}))
    assert.same({}, notices("lr", lines(500, function(i) return ("%d %d:1"):format(1000 + i % 9, i % 7) end),
      { loss = "mse", task = "regression" }))
    assert.same({}, notices("fm", lines(500, function(i, random)
      return ("%d %d:1 9:%g"):format(i % 2, 10 + i % 7, 20 * random() - 10)
    end), {}))
    assert.same({}, notices("nfm", lines(40, function(i) return ("%d %d:1 5:1"):format(i % 2, 10 + i % 7) end),
      { batch_norm = true, dim = 4, hidden = { 4 }, size = 8 }))
  end)

  it("batches of one sample from which a norm cannot learn are told, too", function()
    for _, model in ipairs { "nfm", "ensemble" } do
      local said = notices(model, lines(20, function(i) return ("%d %d:1 5:1"):format(i % 2, 10 + i % 7) end),
        { of = "nfm", batch_norm = true, dim = 4, hidden = { 4 }, size = 1 })
      assert.truthy(said[1]:find("batches of one sample have no variance, so its running statistics stay", 1, true))
      assert.is_nil(said[2])
    end
  end)

  it("the summary of labels and values is that of doubles", function()
    local s = ffi.new "mr_summary"
    local samples, random, y, w = {}, generator(3), {}, {}
    for i = 1, 200 do samples[i] = { { i, i == 77 and -9e5 or random(), i % 3 } } end
    local batch = batches.build(samples, { fields = 3, values = true, field = true })
    local label, weight = ffi.cast("float *", batch.c.label), ffi.new "float[200]"
    for i = 1, 200 do
      label[i - 1] = 1e6 + i % 7
      weight[i - 1] = 1 + i % 3
      y[i], w[i] = label[i - 1], weight[i - 1]
    end
    batch.c.weight = weight
    assert.equal(1, C.mr_summary_add(s, batch.c))
    assert.equal(0, C.mr_summary_add(s, batch.c))
    local sum, mean, squares = 0, 0, 0
    for i = 1, 200 do sum, mean = sum + w[i], mean + w[i] * y[i] end
    mean = mean / sum
    for i = 1, 200 do squares = squares + w[i] * (y[i] - mean) ^ 2 end
    assert.near(2 * sum, s.weight, 1e-9)
    assert.near(mean, s.mean, 1e-6)
    assert.near(2 * squares, s.squares, 1e-4)
    assert.same({ 400, 9e5, 77, 77 % 3 }, { s.rows, s.largest, tonumber(s.key), s.field })
  end)
end)

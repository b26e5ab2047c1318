-- Where a bias with init = "label" starts: the best constant by the labels of the first samples, for every loss,
-- with weights, in streams without a score that knows its own label, and after kills the same.
local ffi = require "ffi"
local mr = require "moonrock"
local batches = require "tests.support.batches"
local shell = require "tests.support.shell"

local dir = shell.directory()

local names = 0
local function fresh()
  names = names + 1
  return dir .. "/store" .. names
end

-- A bias alone, and a batch of labels (and weights) for it.
local function model(options, name)
  return mr.model("constant", function(m)
    local bias = m:param(name or "bias", { 1 }, { init = "label" })
    local row = m:table("features", { w = { dim = 1 } })
    return function(x) return bias + row(x).w:sum() * 0 end
  end, { optim = options and options.rule or mr.optim.sgd { lr = 0.1 } })(options)
end

local alive = setmetatable({}, { __mode = "k" })

local function batch_of(labels, weights)
  local samples = {}
  for i = 1, #labels do samples[i] = { { i } } end
  local batch = batches.build(samples, {})
  local held = { ffi.new("float[?]", #labels, labels), weights and ffi.new("float[?]", #weights, weights) }
  batch.c.label, batch.c.weight = held[1], held[2]
  alive[batch] = held
  return batch
end

-- The bias that a model starts at with these labels.
local function start(loss, labels, weights, options)
  options = options or {}
  options.loss = loss
  local m = model(options)
  m(batch_of(labels, weights))
  local b = m.params[1]:weight(1)
  m:close()
  return b
end

describe("a bias with init = \"label\"", function()
  it("starts at the logarithm of the odds for bce, and at the mean for mse", function()
    assert.near(math.log(1 / 3), start("bce", { 1, 0, 0, 0 }), 1e-6)
    assert.near(4.5, start("mse", { 1, 2, 3, 12 }), 1e-6)
  end)

  it("starts at the logarithm of the mean for poisson, at the mean of -1 and 1 for hinge", function()
    assert.near(math.log(2), start("poisson", { 0, 1, 2, 5 }), 1e-6)
    assert.near(-0.5, start("hinge", { 1, 0, 0, 0 }), 1e-6)
    assert.near(-0.5, start("hinge", { 1, -1, -1, -1 }), 1e-6)
  end)

  it("starts at the median for mae and huber, and at the quantile for quantile", function()
    assert.near(3, start("mae", { 9, 1, 3, 2, 100 }), 1e-6)
    assert.near(2.5, start("huber", { 1, 2, 3, 100 }), 1e-6)
    local labels = {}
    for i = 1, 100 do labels[i] = i end
    assert.near(90.5, start({ name = "quantile", q = 0.9 }, labels), 1e-6)
  end)

  it("counts samples by their weights", function()
    assert.near(math.log(3 / 5), start("bce", { 1, 0, 0 }, { 3, 1, 4 }), 1e-6)
    assert.near(10, start("mae", { 1, 2, 10 }, { 1, 1, 3 }), 1e-6)
    assert.near(9.5 / 4.5, start("mse", { 1, 2, 7 }, { 2, 2, 0.5 }), 1e-6)
  end)

  it("is the best constant under the options of a loss", function()
    assert.near(math.log(3 * 0.25 / 0.75), start({ name = "bce", pos_weight = 3 }, { 1, 0, 0, 0 }), 1e-6)
    local p = 0.25 * 0.8 + 0.1
    assert.near(math.log(p / (1 - p)), start({ name = "bce", label_smoothing = 0.2 }, { 1, 0, 0, 0 }), 1e-6)
  end)

  it("is finite where all labels are one", function()
    assert.near(math.log(1 / 9), start("bce", { 0, 0, 0, 0, 0 }), 1e-6) -- half a sample of five is the other
    assert.near(math.log(9), start("bce", { 1, 1, 1, 1, 1 }), 1e-6)
    assert.near(math.log(0.25), start("poisson", { 0, 0 }), 1e-6)
    assert.equal(0, start("bce", { 1, 1 }, { 0, 0 }))
  end)

  it("is set anew with every batch of the first thousand samples, then trained like any other", function()
    local optim = mr.optim
    for _, rule in ipairs { optim.sgd { lr = 1 }, optim.ftrl { l1 = 0.01, l2 = 0.1 }, optim.adam { lr = 0.1 } } do
      local m = model { rule = rule }
      local one, other = {}, {}
      for i = 1, 250 do one[i], other[i] = i <= 50 and 1 or 0, i <= 100 and 1 or 0 end
      local function step(labels)
        local batch = batch_of(labels)
        mr.bce(m(batch), batch.label):backward()
        m:step()
        return m.params[1]:weight(1)
      end
      assert.near(math.log(50 / 200), step(one), 1e-6)
      assert.near(math.log(150 / 350), step(other), 1e-6)
      step(one)
      assert.near(math.log(300 / 700), step(other), 1e-6)
      local first = step(other) -- the 1001st sample and those behind it are learned from
      assert.is_true(first > math.log(300 / 700) and first < math.log(450 / 550), rule.rule .. " " .. first)
      m:close()
    end
  end)

  it("leaves out a batch that is skipped", function()
    local m = model()
    m(batch_of { 1, 1, 1, 0 })
    m:skip()
    m(batch_of { 1, 0, 0, 0 })
    assert.near(math.log(1 / 3), m.params[1]:weight(1), 1e-6)
    m:close()
  end)

  it("is for params alone", function()
    assert.error_matches(function()
      mr.model("x", function(m)
        m:table("t", { w = { dim = 1, init = "label" } })
        return function() end
      end) {}
    end, 'initializer label: it is for params')
  end)
end)

-- n samples of one key, of which a part `rate` is positive.
local function file(name, n, rate)
  local lines, state = {}, 11
  for i = 1, n do
    state = (state * 16807) % 2147483647
    lines[i] = ("%d %d:1"):format(state / 2147483647 < rate and 1 or 0, i % 7)
  end
  return shell.write(dir .. "/" .. name, table.concat(lines, "\n") .. "\n")
end

local train = file("train.svm", 4000, 0.05)

describe("the first batch", function()
  it("of a stream is scored without knowing its labels, of a training set with them", function()
    local data = mr.data { format = "libsvm" }
    local function first(how)
      local m = mr.find "lr" { data = data }
      local batches_of = m[how](m, train, { size = 100 })
      local z = m(batches_of()):get(1, 1)
      batches_of:close()
      m:close()
      return z
    end
    assert.equal(0, first "stream")
    assert.is_true(first "batches" < -2)
  end)
end)

describe("a model of the library", function()
  it("starts at the log-odds, whichever it is", function()
    local lines = {}
    for i = 1, 400 do
      lines[i] = ("%d 0:%d:1 1:%d:1 2:%d:1"):format(i % 10 == 0 and 1 or 0, i % 5, 10 + i % 3, 20 + i % 2)
    end
    local path = shell.write(dir .. "/three.ffm", table.concat(lines, "\n") .. "\n")
    for _, name in ipairs(require("moonrock.source").shipped) do
      if name ~= "two_tower" and name ~= "mf" then -- one has no bias, the other two fields
        local m = mr.find(name) { data = mr.data { format = "libffm", fields = 3 } }
        local started = 0
        for batch in m:batches(path, { size = 400 }) do
          m(batch)
          for _, p in ipairs(m.params) do
            if p.from_label then
              started = started + 1
              assert.near(math.log(1 / 9), p:weight(1), 1e-5, name)
            end
          end
        end
        assert.equal(name == "ensemble" and 3 or 1, started, name)
        m:close()
      end
    end
  end)

  it("starts at the mean of the ratings in mf", function()
    local path = shell.write(dir .. "/ratings.ffm",
      "4 0:1:1 1:11:1\n5 0:2:1 1:12:1\n3 0:1:1 1:12:1\n4 0:3:1 1:11:1\n")
    local m = mr.find "mf" { data = mr.data { format = "libffm", fields = 2 } }
    for batch in m:batches(path) do m(batch) end
    assert.near(4, m.params[1]:weight(1), 1e-6)
    m:close()
  end)

  it("is corrected for sampled negatives, as the scores are, and for class weights", function()
    local function bias(options)
      local o = { train = train, size = 4000, epochs = 1, shuffle = false }
      for name, value in pairs(options) do o[name] = value end
      local m = mr.find "lr" { data = mr.data { format = "libsvm" }, optim = mr.optim.sgd { lr = 1e-9 } }
      mr.fit(m, o)
      local b = m.params[1]:weight(1)
      m:close()
      return b
    end
    local plain = bias {}
    assert.near(plain, bias { negative_rate = 0.5, correction = "shift" }, 0.1)
    assert.near(plain, bias { negative_rate = 0.5, correction = "weight" }, 0.1)
    assert.near(plain + math.log(2), bias { negative_rate = 0.5, correction = "q" }, 0.1)
    assert.near(0, bias { class_weight = "balanced" }, 1e-5)
  end)
end)

describe("a commit between a batch's scores and its step", function()
  it("holds the state of the last step, and goes on to the same", function()
    local m = mr.find "lr" { data = mr.data { format = "libsvm" }, store = fresh() }
    local list = m:batches(train, { size = 64 })
    local function digest()
      m:commit()
      return m:info().digest
    end
    local function learn(batch)
      mr.bce(m(batch), batch.label):backward()
      m:step()
    end
    learn(list())
    local before = digest()
    local batch = list()
    local loss = mr.bce(m(batch), batch.label)
    assert.equal(before, digest())
    loss:backward()
    m:step()
    assert.not_equal(before, digest())
    list:close()
    m:close()
  end)
end)

describe("a run that is killed while the first samples are counted", function()
  local function train_some(store, how, loss, stops)
    local digest
    for _, steps in ipairs(stops) do
      local m = mr.find "lr" { data = mr.data { format = "libsvm" }, store = store, loss = loss,
        commit_every = 1, threads = #stops }
      local left = steps
      local from = tonumber(m.position.sample)
      assert.is_true(from <= 4000)
      for batch in m[how](m, train, { size = 64 }) do
        m.objective.of(m(batch), batch.label):backward()
        m:step()
        left = left - 1
        if left == 0 then break end
      end
      m:commit()
      digest = m:info().digest
      m:close()
    end
    return digest
  end

  for _, how in ipairs { "batches", "stream" } do
    for _, loss in ipairs { "bce", "mae" } do
      it(("ends the same, with %s and %s, at any number of threads"):format(how, loss), function()
        assert.equal(train_some(fresh(), how, loss, { 40 }), train_some(fresh(), how, loss, { 1, 3, 5, 2, 8, 21 }))
      end)
    end
  end
end)

-- mr.fit: what a step is made of (accumulation, class weights, sampled negatives), when the best state
-- is kept, what a batch that is not finite does, and that a run that was broken off ends the same.
local mr = require "moonrock"
local raises = require "tests.support.raises"
local shell = require "tests.support.shell"

local dir = shell.directory()

-- n samples of three keys out of 40, whose sum of known weights decides the label.
local function samples(name, n, seed, rate)
  local state, lines = seed, {}
  local function random()
    state = (state * 16807) % 2147483647
    return state / 2147483647
  end
  for i = 1, n do
    local keys, z = {}, 0
    for f = 0, 2 do
      local key = math.floor(random() * 40) + 1
      keys[f + 1] = ("%d:1"):format(key + 100 * f)
      z = z + math.sin(key + 7 * f)
    end
    local label = rate and (random() < rate and 1 or 0) or (random() < 1 / (1 + math.exp(-2 * z)) and 1 or 0)
    lines[i] = label .. " " .. table.concat(keys, " ")
  end
  return shell.write(dir .. "/" .. name, table.concat(lines, "\n") .. "\n")
end

local train, valid = samples("train.svm", 1000, 3), samples("valid.svm", 400, 5)

-- A logistic regression; `twist(logits, batch, step)` may change them.
local function make(options, twist)
  local o = { data = mr.data { files = train, format = "libsvm" } }
  for name, value in pairs(options or {}) do o[name] = value end
  local m
  m = mr.model("lr", function(self)
    local row = self:table("features", { w = { dim = 1 } })
    local bias = self:param("bias", { 1 })
    return function(x)
      local z = bias + row(x).w:sum()
      return twist and twist(z, x, self) or z
    end
  end, { optim = mr.optim.sgd { lr = 0.5 } })(o)
  return m
end

local function weights(model)
  local all = { model.params[1]:weight(1) }
  for key = 1, 240 do all[#all + 1] = model.tables[1]:peek(key, "w")[1] end
  return all
end

local function same_weights(a, b, tolerance)
  local x, y = weights(a), weights(b)
  for i = 1, #x do assert.near(x[i], y[i], tolerance) end
end

local number = 0
local function fresh()
  number = number + 1
  return dir .. "/store" .. number
end

describe("accumulation", function()
  it("of 4 batches makes the step of one that is 4 times as large, that of an epoch's end included", function()
    local small, large = make(), make()
    mr.fit(small, { train = "train", epochs = 2, size = 16, accumulate = 4 })
    mr.fit(large, { train = "train", epochs = 2, size = 64 })
    assert.equal(32, small.step_number) -- 1000 / 64, rounded up, twice
    assert.equal(32, large.step_number)
    same_weights(small, large, 1e-6) -- sums of floats in another order
    assert.is_true(math.abs(small.params[1]:weight(1)) > 1e-3)
  end)

  it("comes before clipping, and before an optimizer in Lua", function()
    local by_hand = mr.optimizer { name = "by_hand", lr = 0.5, update = function(w, g, _, n, _, o)
      for i = 0, n - 1 do w[i] = w[i] - o.lr * g[i] end
    end }
    for _, bounds in ipairs { { clip_norm = 0.02 }, { clip_each = 0.01 }, { clip_value = 0.001 } } do
      local small, large, free = make { optim = by_hand }, make(bounds), make()
      local o = { train = "train", size = 16, accumulate = 4 }
      for name, value in pairs(bounds) do o[name] = value end
      mr.fit(small, o)
      mr.fit(large, { train = "train", size = 64 })
      mr.fit(free, { train = "train", size = 64 })
      same_weights(small, large, 1e-6) -- sums of floats in another order
      assert.is_true(math.abs(large.params[1]:weight(1) - free.params[1]:weight(1)) > 1e-3)
    end
  end)

  it("goes on between steps after it was broken off, to the same bits", function()
    local options = { train = "train", valid = valid, epochs = 3, size = 16, accumulate = 4, validate_every = 7,
      patience = 50, negative_rate = 0.5, class_weight = "balanced" }
    local function run(store, stop)
      local model = make { store = store, commit_every = 3 }
      local o, seen = {}, 0
      for name, value in pairs(options) do o[name] = value end
      o.on_batch = function()
        seen = seen + 1
        if seen == stop then error("broken off", 0) end
      end
      local ok, problem = pcall(mr.fit, model, o)
      assert.is_true(ok or problem == "broken off", problem)
      local digest = ok and model.store:digest()
      model:close()
      return digest, ok and problem
    end
    local whole = run(fresh())
    for _, stops in ipairs { { 41, 30 }, { 2, 63, 27, 29 } } do
      local store = fresh()
      for _, stop in ipairs(stops) do assert.is_false(run(store, stop)) end
      assert.equal(whole, (run(store)))
    end
  end)
end)

describe("validation", function()
  it("every N steps finds a best state within an epoch, and restores it", function()
    -- From step 30 on the scores have the wrong sign, so that learning does harm.
    local model = make({ store = fresh() }, function(z, _, m)
      return m.training and m.step_number >= 30 and z * -1 or z
    end)
    local events = {}
    local result = mr.fit(model, { train = "train", valid = valid, epochs = 9, size = 16, validate_every = 10,
      patience = 3, on_event = function(e) events[#events + 1] = e end })
    assert.equal(10, events[1].steps)
    assert.equal("valid", events[1].event)
    assert.equal(30, result.best.step)
    assert.equal(1, result.best.epoch)
    assert.equal(30, model.step_number)
    assert.equal("valid", events[6].event) -- 40, 50 and 60 were worse
    assert.equal("result", events[7].event)
    assert.same(result.best.valid, result.valid)
    local again = mr.evaluate(model, model.data:batches(valid, { size = 100 }))
    assert.near(again.auc, result.valid.auc, 1e-12)
    model:close()
  end)

  it("without patience ends with the last state, and says so", function()
    local model = make()
    local result = mr.fit(model, { train = "train", valid = valid, epochs = 2, size = 64 })
    local again = mr.evaluate(model, model.data:batches(valid, { size = 4096 }))
    assert.equal(again.auc, result.valid.auc)
    assert.is_true(result.best.valid.auc >= result.valid.auc)
  end)
end)

describe("another loss", function()
  local data = mr.data { files = train, format = "libsvm", fields = 3 }

  it("names what is trained, with its scale, and can be validated by groups", function()
    local model, events = make { data = data, loss = "hinge" }, {}
    local result = mr.fit(model, { train = "train", valid = valid, epochs = 3, size = 100, class_weight = { 1, 2 },
      monitor = "gauc", metrics = { group = 1 }, on_epoch = function(e) events[#events + 1] = e end })
    assert.equal("weighted", events[1].train.scale)
    assert.is_true(events[3].train.hinge < events[1].train.hinge)
    local best = 0
    for _, e in ipairs(events) do best = math.max(best, e.valid.gauc) end
    assert.equal(best, result.best.valid.gauc)
    assert.equal(best, model.fit.best)
  end)

  it("has no monitor that its scores or the options of metrics do not give", function()
    for _, case in ipairs {
      { "mse", "logloss", 'mr.fit: monitor is "logloss", expected one of rmse, mae$' },
      { "bce", "gauc", 'mr.fit: monitor is "gauc", expected one of logloss, auc, .*, mae$' },
      { "bce", "calibration", 'mr.fit: monitor "calibration" is neither better when larger nor when smaller$' },
    } do
      local ok, problem = pcall(mr.fit, make { data = data, loss = case[1] },
        { train = "train", valid = valid, monitor = case[2] })
      assert.is_false(ok)
      assert.matches(case[3], problem)
    end
    local ok, problem = pcall(mr.fit, make { data = data, loss = "hinge" }, { train = "train", negative_rate = 0.5 })
    assert.is_false(ok)
    assert.matches("negative_rate is for labels 0 and 1, and model lr has the loss hinge", problem)
  end)
end)

describe("callbacks", function()
  it("see every step, epoch and validation, and end the training by returning false", function()
    local steps, epochs, validations = 0, 0, 0
    local model = make()
    mr.fit(model, { train = "train", valid = valid, epochs = 9, size = 100, validate_every = 4,
      on_step = function(step, loss)
        steps = steps + 1
        assert.equal(steps, step)
        assert.is_true(loss > 0)
      end,
      on_validate = function(e)
        validations = validations + 1
        assert.is_true(e.valid.auc > 0)
      end,
      on_epoch = function(e)
        epochs = epochs + 1
        return e.epoch < 2
      end })
    assert.same({ 20, 2, 6 }, { steps, epochs, validations }) -- at 4, 8, 10; 12, 16, 20
    model = make()
    mr.fit(model, { train = "train", epochs = 9, size = 100, on_step = function(step) return step < 13 end })
    assert.equal(13, model.step_number)
  end)
end)

describe("class weights", function()
  local two = shell.write(dir .. "/two.svm", "1 1:1\n0 2:1\n0 3:1\n")

  it("weigh the loss of each sample: one step by hand", function()
    local model = make { data = mr.data { files = two, format = "libsvm" } }
    mr.fit(model, { train = two, size = 3, shuffle = false, class_weight = { 0.25, 3 } })
    -- w -= lr weight (p - y) / n with p = 1/2 and lr = 1/2
    assert.near(0.5 * 3 * 0.5 / 3, model.tables[1]:peek(1, "w")[1], 1e-7)
    assert.near(-0.5 * 0.25 * 0.5 / 3, model.tables[1]:peek(2, "w")[1], 1e-7)
  end)

  it("that are balanced are n / (2 n_c)", function()
    local model = make { data = mr.data { files = two, format = "libsvm" } }
    mr.fit(model, { train = two, size = 3, class_weight = "balanced" })
    assert.near(3 / 4, model.fit.class_weight[1], 1e-6)
    assert.near(3 / 2, model.fit.class_weight[2], 1e-6)
    assert.near(0, model.params[1]:weight(1), 1e-7) -- both classes pull alike
  end)
end)

describe("sampled negatives", function()
  local rare = samples("rare.svm", 20000, 11, 0.04)

  -- Only a bias: its score is the base rate that it saw.
  local function base_rate(options)
    local model = mr.model("bias", function(m)
      m:table("unused", { w = { dim = 1 } })
      local bias = m:param("bias", { 1 })
      local row = m:table("features", { w = { dim = 1, optim = mr.optim.sgd { lr = 1e-9 } } })
      return function(x) return row(x).w:sum() + bias end
    end, { optim = mr.optim.adagrad { lr = 1 } }) { data = mr.data { files = rare, format = "libsvm" } }
    local seen = 0
    local o = { train = "train", valid = rare, epochs = 8, size = 500, monitor = "logloss",
      on_batch = function(batch) seen = seen + batch.n end }
    for name, value in pairs(options) do o[name] = value end
    local events = {}
    o.on_event = function(e) events[#events + 1] = e end
    local result = mr.fit(model, o)
    return result.valid.prediction / result.valid.label, seen / 8, events[1].train.scale, events[1].train.logloss
  end

  it("give scores of the data as it is, by each of the three corrections, and less to compute", function()
    local plain, all = base_rate {}
    assert.near(1, plain, 0.05)
    assert.equal(20000, all)
    for correction, scale in pairs { shift = "sampled", weight = "weighted", q = "sampled" } do
      local calibration, seen, told = base_rate { negative_rate = 0.2, correction = correction }
      assert.near(1, calibration, 0.05)
      assert.near(20000 * (0.04 + 0.96 * 0.2), seen, 200)
      assert.equal(scale, told)
    end
    -- Uncorrected it would be 0.04 / (0.04 + 0.96 * 0.2) / 0.04 = 4.3.
  end)

  it("are drawn by the number of a sample and the epoch alone", function()
    local function drawn(size, shuffle, epochs, threads)
      local model = make { data = mr.data { files = train, format = "libsvm" }, threads = threads }
      local kept = {}
      mr.fit(model, { train = train, size = size, shuffle = shuffle, epochs = epochs, negative_rate = 0.3,
        on_batch = function(batch)
          for s = 0, batch.n - 1 do
            table.insert(kept, ("%d %06d"):format(batch.epoch, tonumber(batch.c.record[s])))
          end
        end })
      table.sort(kept)
      return kept
    end
    local one = drawn(64, false, 2, 1)
    assert.same(one, drawn(7, true, 2, 2))
    assert.same(one, drawn(1, "full", 2, 2))
    local first, second = {}, {}
    for _, k in ipairs(one) do table.insert(k:sub(1, 1) == "1" and first or second, k:sub(3)) end
    assert.not_same(first, second)
  end)
end)

describe("what is not finite", function()
  -- The batch that ends at sample 192 gives a NaN.
  local function spoiled(z, x)
    if tonumber(x.c.position.sample) == 192 then return z * (0 / 0) end
    return z
  end
  -- The same batch gives a finite loss whose gradient is a NaN.
  local bad = mr.operation { name = "bad", forward = function(out, a, n)
    for i = 0, n - 1 do out[i] = a[i] end
  end, backward = function(g, _, _, da, n)
    for i = 0, n - 1 do da[i] = da[i] + g[i] * (0 / 0) end
  end }
  local function spoiled_gradient(z, x)
    return tonumber(x.c.position.sample) == 192 and bad(z) or z
  end
  local options = { train = "train", epochs = 1, size = 64, shuffle = false }

  for name, twist in pairs { ["loss"] = spoiled, ["gradient"] = spoiled_gradient } do
    it(("as a %s stops the run: position, tables, and nothing of the batch is committed"):format(name), function()
      local store = fresh()
      local model = make({ store = store, commit_every = 1 }, twist)
      local ok, problem = pcall(mr.fit, model, options)
      assert.is_false(ok)
      assert.matches("model lr: step 3: .* %(epoch 1, the batch of 64 samples that ends at sample 192%)", problem)
      assert.matches("tables features", problem)
      assert.matches("nothing of it is committed", problem)
      raises("model lr: it stopped", model.commit, model)
      model:close()
      model = make { store = store }
      local steps = model.step_number -- commits are written behind, so it need not be the last
      assert.is_true(steps == 1 or steps == 2)
      local without = make()
      mr.fit(without, { train = "train", epochs = 1, size = 64, shuffle = false,
        on_step = function(step) return step < steps end })
      same_weights(without, model, 0)
      model:close()
    end)

    it(("as a %s is dropped and counted with on_nan = skip"):format(name), function()
      local model, o = make({}, twist), { on_nan = "skip" }
      for key, value in pairs(options) do o[key] = value end
      local events = {}
      o.on_event = function(e) events[#events + 1] = e end
      local result = mr.fit(model, o)
      assert.equal(1, result.skipped)
      assert.equal(15, result.steps)
      assert.equal(1000 - 64, events[1].rows)
      -- The same as by hand, without that batch.
      local by_hand = make()
      for batch in by_hand.data:batches(train, { size = 64 }) do
        if tonumber(batch.c.position.sample) ~= 192 then
          mr.bce(by_hand(batch), batch.label):backward()
          by_hand:step()
        end
      end
      same_weights(by_hand, model, 0)
    end)
  end

  it("names the batch in a loop of the user's too", function()
    local model = make({}, spoiled)
    local ok, problem = pcall(function()
      for batch in model:batches("train", { size = 64 }) do
        mr.bce(model(batch), batch.label):backward()
        model:step()
      end
    end)
    assert.is_false(ok)
    assert.matches("trainer_spec.lua:%d+: model lr: step 3: the loss is nan %(epoch 1, the batch of 64", problem)
  end)
end)

describe("cross-validation", function()
  it("holds every sample out once, and gives mean and deviation", function()
    local seen = {}
    local cv = mr.cross_validate(function()
      return make({}, function(z, x, m)
        if not m.training then
          for s = 0, x.n - 1 do
            local record = tonumber(x.c.record[s])
            seen[record] = (seen[record] or 0) + 1
          end
        end
        return z
      end)
    end, { folds = 4, train = "train", epochs = 1, size = 50 })
    for record = 0, 999 do assert.equal(1, seen[record]) end
    local rows, sum = 0, 0
    for _, fold in ipairs(cv.folds) do
      rows, sum = rows + fold.rows, sum + fold.auc
      assert.is_true(fold.rows > 200 and fold.rows < 300)
    end
    assert.equal(1000, rows)
    assert.near(sum / 4, cv.mean.auc, 1e-12)
    local squares = 0
    for _, fold in ipairs(cv.folds) do squares = squares + (fold.auc - sum / 4) ^ 2 end
    assert.near(math.sqrt(squares / 3), cv.deviation.auc, 1e-12)
    assert.is_true(cv.mean.auc > 0.7)
  end)

  it("fits what a schema has to fit to each training part, and to all of it in the end", function()
    local lines = { "y,x" }
    for i = 1, 200 do lines[i + 1] = ("%d,%d"):format(i % 2, i) end
    local path = shell.write(dir .. "/numbers.csv", table.concat(lines, "\n") .. "\n")
    local schema = mr.schema { name = "numbers", label = "y", fields = { mr.numeric "x" } }
    local fitted = {}
    mr.cross_validate(function()
      return make({ schema = schema, data = schema }, function(z)
        fitted[schema:statistics()] = true
        return z
      end)
    end, { folds = 3, train = path, epochs = 1 })
    local n = 0
    for _ in pairs(fitted) do n = n + 1 end
    assert.equal(3, n)
    assert.is_nil(fitted[schema:statistics()])
    local other = mr.schema { name = "numbers", label = "y", fields = { mr.numeric "x" } }
    other:fit { files = path }
    assert.equal(other:statistics(), schema:statistics())
  end)
end)

describe("a search", function()
  local definition = mr.model("lr", function(m, opt)
    local row = m:table("features", { w = { dim = 1, optim = opt.linear } })
    return function(x) return row(x).w:sum() * (opt.factor or 1) end
  end, { optim = mr.optim.sgd() })
  local lines
  local function search(o)
    lines = {}
    o.model, o.options = definition, { data = mr.data { files = train, format = "libsvm" } }
    o.fit = o.fit or { train = "train", valid = valid, epochs = 1, size = 64 }
    o.print = function(line) lines[#lines + 1] = line end
    return mr.search(o)
  end

  it("tries all combinations of lists and prints them, the best of validation first", function()
    local best, trials = search { space = { lr = { 1e-6, 0.5 }, ["fit.size"] = { 32, 500 } }, monitor = "logloss" }
    assert.equal(4, #trials)
    assert.same({ lr = 0.5, ["fit.size"] = 32 }, best.settings)
    assert.equal(0.5, best.options.lr)
    assert.equal(32, best.fit.size)
    for i = 2, 4 do assert.is_true(trials[i - 1].valid.logloss <= trials[i].valid.logloss) end
    assert.equal("search: 4 trials, seed 1, by logloss of validation data", lines[1])
    assert.matches("^trial  valid logloss  epoch  fit.size  lr\n2 ", lines[2])
    -- The best one again is the same: all trials begin alike.
    local model = definition(best.options)
    assert.same(best.valid, mr.fit(model, best.fit).valid)
  end)

  it("draws random trials by its seed, and options of options by their path", function()
    local function settings(seed)
      local _, trials = search { trials = 5, seed = seed, space = { ["linear.rule"] = { "sgd", "adagrad" },
        ["linear.lr"] = mr.log_uniform(1e-3, 1), ["model.other"] = mr.uniform(2, 3) } }
      local list = {}
      for _, t in ipairs(trials) do
        list[t.trial] = t.settings
        assert.equal(t.settings["linear.lr"], t.options.linear.lr)
        assert.is_true(t.options.linear.lr >= 1e-3 and t.options.linear.lr < 1)
        assert.is_true(t.options.other >= 2 and t.options.other < 3)
      end
      return list
    end
    local first = settings(7)
    assert.same(first, settings(7))
    assert.not_same(first, settings(8))
  end)

  it("puts trials that diverge last, and can compare by folds", function()
    local best, trials = search { space = { factor = { 1, math.huge } }, folds = 3,
      fit = { train = "train", epochs = 1, size = 64 } }
    assert.equal(1, best.settings.factor)
    assert.is_true(best.cross.deviation.auc > 0)
    assert.matches("diverged", lines[2])
    assert.matches("the loss is nan", trials[2].problem)
  end)

  it("takes the last validation where patience waits for a metric that is never defined", function()
    local ones = shell.write(dir .. "/ones", (shell.read(valid):gsub("[^\n]+\n", function(line)
      return line:sub(1, 1) == "1" and line or ""
    end)))
    local best = search { space = { lr = { 0.1 } },
      fit = { train = "train", valid = ones, epochs = 2, size = 64, patience = 1 }, monitor = "auc" }
    assert.is_true(best.valid.auc ~= best.valid.auc)
    assert.is_true(best.valid.logloss > 0)
  end)

  it("refuses test data", function()
    raises("mr.search: fit.test: trials are compared on validation data", search,
      { space = { lr = { 1 } }, fit = { train = "train", test = valid } })
  end)
end)

describe("a recipe of a schema", function()
  local csv
  local schema = shell.write(dir .. "/tiny.lua", [[
local mr = require "moonrock"
return mr.schema { name = "tiny", label = "y", fields = { mr.category "a", mr.category "b" }, recipe = {
  fm = { epochs = 2, batch = 50, patience = 3, accumulate = 2, validate_every = 2, on_nan = "skip", clip_norm = 1,
    optim = { rule = "adam", l2 = 1e-5 }, lr = 0.02,
    model = { dim = 4, linear = { rule = "ftrl", lr = 0.1, l1 = 0.01 }, factors = { rule = "adagrad", lr = 0.05 } } },
  lr = { patiense = 3 },
  nfm = { loss = "huber" },
  wide_deep = { model = { hiden = { 3 } } },
} }
]])

  setup(function()
    local lines = { "y,a,b" }
    for i = 1, 400 do
      lines[i + 1] = ("%d,%d,%d"):format(math.sin(i * 7.1) > 0 and 1 or 0, i % 20, i % 13)
    end
    csv = shell.write(dir .. "/tiny.csv", table.concat(lines, "\n") .. "\n")
  end)

  local function run(model, ...)
    local store = fresh()
    local status, out, problem = shell.moonrock("train", model, "--schema", schema, "--data", csv, "--store",
      store, "--json", ...)
    return status, status == 0 and out or problem, store
  end

  it("gives options of fit, of the model and of its parts' optimizers, which --set overrides", function()
    local status, out, store = run("fm", "--valid", "0.2", "--set", "linear.l1=0.5", "--set", "optim.l2=0")
    assert.equal(0, status, out)
    assert.matches('"event":"valid","epoch":1,"steps":2,', out)
    local model = mr.reopen(store)
    local o = model:info().options
    assert.same({ "ftrl", 0.5, 0.1 }, { o.linear.rule, o.linear.l1, o.linear.lr })
    assert.same({ "adam", 0 }, { o.optim.rule, o.optim.l2 })
    assert.equal(4, model.tables[1].dims[1])
    model:close()
    status, out = run("fm", "--valid", "0.2", "--set", "fit.validate_every=3")
    assert.equal(0, status, out)
    assert.matches('^{"event":"valid","epoch":1,"steps":3,', out)
  end)

  it("gives the loss, which --loss and --set override", function()
    for _, case in ipairs {
      { { name = "huber" } }, { { name = "huber", options = { delta = 2 } }, "--set", "loss.delta=2" },
      { { name = "hinge" }, "--loss", "hinge" }, { { name = "mse" }, "--set", "loss=mse" },
      { { name = "quantile", options = { q = 0.9 } }, "--loss", "quantile", "--set", "loss.q=0.9" },
    } do
      local status, out, store = run("nfm", unpack(case, 2))
      assert.equal(0, status, out)
      local model = mr.reopen(store)
      assert.same(case[1], { name = model.objective.name, options = model.objective.options })
      model:close()
    end
  end)

  it("that is wrong is told with the schema, the model and the option", function()
    local cases = {
      { "lr", 'schema tiny: recipe of lr: mr.fit has no option "patiense"' },
      { "wide_deep", "schema tiny: recipe of wide_deep: hiden: model wide_deep has no such option; did you mean hidden?" },
      { "fm", "--set fit.accumulate: mr.fit: accumulate is 0, expected a whole number from 1", "fit.accumulate=0" },
      { "fm", '--set factors.lr=no: optimizer adagrad: lr is "no", expected a number', "factors.lr=no" },
    }
    for _, case in ipairs(cases) do
      local status, problem = run(case[1], unpack(case[3] and { "--set", case[3] } or {}))
      assert.is_true(status ~= 0)
      assert.truthy(problem:find(case[2], 1, true), problem)
    end
  end)

  it("is cross-validated by --folds", function()
    local status, out, store = run("fm", "--folds", "3")
    assert.equal(0, status, out)
    assert.matches('{"event":"folds","folds":3,"mean":{.*"deviation":{', out)
    for fold = 1, 3 do assert.truthy(shell.read(("%s.%d/COMMIT"):format(store, fold))) end
    local model = mr.reopen(store .. ".2")
    assert.equal("tiny", model.schema.name)
    model:close()
    status, out = run("fm", "--folds", "3", "--valid", "0.1")
    assert.equal(2, status)
    assert.matches("%-%-folds 3: %-%-valid is not used", out)
  end)
end)

describe("accumulation within a memory budget", function()
  it("learns the same when the table stops fitting between two batches of a step", function()
    if shell.program:find("san", 1, true) then pending("sanitizers take memory of their own") end
    local ffi = require "ffi"
    local file, row, key = io.open(dir .. "/many.bin", "wb"), ffi.new "int64_t[40]", 0
    for s = 1, 9000 do
      for j = 0, 38 do
        key = (key + 1) % 250000
        row[j] = key * 2654435761LL
      end
      row[39] = s % 3 == 0 and 1 or 0
      file:write(ffi.string(row, 320))
    end
    file:close()
    local function digest(memory)
      local store = fresh()
      local status, _, problem = shell.moonrock("train", "fm", "--data", dir .. "/many.bin", "--format", "bin",
        "--store", store, "--batch", "32", "--memory", memory, "--set", "fit.accumulate=4", "--set", "dim=24")
      assert.equal(0, status, problem)
      local _, out = shell.moonrock("info", "--store", store, "--json")
      return out:match '"digest":"(%x+)"'
    end
    assert.equal(digest "2GB", digest "90MB")
  end)
end)

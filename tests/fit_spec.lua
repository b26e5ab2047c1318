-- mr.fit, mr.cross_validate, mr.search and mr.learn where validations decide: ties, patience, reduced rates, best and
-- last, what a run needs to go on after it was killed at any place, and what a stream is measured by.
local mr = require "moonrock"
local raises = require "tests.support.raises"
local shell = require "tests.support.shell"

local dir = shell.directory()
local random = require "tests.support.random"(7)

local function samples(name, n)
  local lines = {}
  for i = 1, n do
    local a, b = math.floor(random() * 20) + 1, math.floor(random() * 20) + 101
    local z = math.sin(a) + math.sin(b)
    lines[i] = ("%d %d:1 %d:1"):format(random() < 1 / (1 + math.exp(-3 * z)) and 1 or 0, a, b)
  end
  return shell.write(dir .. "/" .. name, table.concat(lines, "\n") .. "\n")
end

local A, B, VALID = samples("a.svm", 320), samples("b.svm", 320), samples("valid.svm", 200)

local number = 0
local function fresh()
  number = number + 1
  return ("%s/store%d"):format(dir, number)
end

-- A logistic regression. `quality`: factors of its scores in validation, one after another, the last one for ever: 1
-- is what was learned, 0 no better than chance, -1 worse.
local function make(options, quality)
  local o, asked = { data = mr.data { files = A, format = "libsvm" } }, 0
  for name, value in pairs(options or {}) do o[name] = value end
  return mr.model("lr", function(self)
    local row = self:table("features", { w = { dim = 1 } })
    local bias = self:param("bias", { 1 })
    return function(x)
      local z = bias + row(x).w:sum()
      if self.training or not quality then return z end
      asked = asked + 1
      return z * quality[math.min(asked, #quality)]
    end
  end, { optim = mr.optim.sgd { lr = 0.5 } })(o)
end

local function fit(model, options)
  local o = { train = "train", valid = VALID, epochs = 6, size = 32 }
  for name, value in pairs(options or {}) do o[name] = value end
  return mr.fit(model, o)
end

-- Runs fit as if it were killed in a callback; nothing else than `killed` may end it.
local function killed(model, options)
  local ok, problem = pcall(fit, model, options)
  assert.same({ false, "killed" }, { ok, problem })
  model:close()
end
local function kill() error("killed", 0) end

local function rate(model)
  return require("moonrock.ffi").mr_table_optim(model.tables[1].c, 0).lr
end

describe("a validation", function()
  it("that is as good as the best is no better", function()
    local result = fit(make(nil, { 0 }), { patience = 2 })
    assert.equal(1, result.best.epoch)
    assert.equal(3, result.steps / 10)
  end)

  it("that is better renews patience, and the one that uses it up ends the run", function()
    local result = fit(make(nil, { 0, -1, 1, 0, -1, 1 }), { patience = 2, epochs = 9 })
    assert.equal(3, result.best.epoch)
    assert.equal(50, result.steps)
  end)

  it("by another monitor is compared with none before", function()
    local store = fresh()
    local model = make({ store = store }, { -1, 1 })
    fit(model, { epochs = 1 })
    assert.truthy(model.fit.best < 0.5)
    local result = fit(model, { epochs = 2, monitor = "logloss" })
    assert.truthy(result.valid.logloss > 0.5)
    assert.equal(2, result.best.epoch)
    model:close()
  end)

  it("ends the run where on_validate says so", function()
    local seen = 0
    local result = fit(make(), { validate_every = 4, on_validate = function()
      seen = seen + 1
      return seen < 2
    end })
    assert.equal(8, result.steps)
    assert.matches("ended by on_validate at step 8", result.reason)
  end)

  it("of a result is of the model as it is, and test data is other data", function()
    local model = make()
    local result = fit(model, { validate_every = 4, test = B, on_step = function(step) return step < 6 end })
    assert.equal(6, result.steps)
    assert.equal(mr.evaluate(model, model.data:batches(VALID, { size = 4096 })).logloss, result.valid.logloss)
    assert.equal(mr.evaluate(model, model.data:batches(B, { size = 4096 })).logloss, result.test.logloss)
    assert.same({ 200, 320 }, { result.valid.rows, result.test.rows })
  end)

  it("skips bad lines where training does", function()
    local bad = shell.write(dir .. "/bad.svm", "1 1:1\nno sample\n0 2:1\n")
    assert.equal(2, fit(make(), { epochs = 1, valid = bad, bad_lines = "skip" }).valid.rows)
    raises("bad.svm:2", fit, make(), { epochs = 1, valid = bad })
  end)

  it("of a split is of the records that are not trained", function()
    local trained, rows = {}, 0
    local model = make()
    local forward = model.forward
    model.forward = function(x)
      for s = 0, x.n - 1 do
        local record = tonumber(x.c.record[s])
        if model.training then trained[record] = true else
          rows = rows + 1
          assert.is_nil(trained[record])
        end
      end
      return forward(x)
    end
    local result = fit(model, { valid = A, split = 0.25, epochs = 1 })
    assert.equal(result.valid.rows, rows)
    local n = 0
    for _ in pairs(trained) do n = n + 1 end
    assert.equal(320, n + rows)
  end)
end)

describe("what a schema has to fit", function()
  it("is fitted without the records that a split holds out", function()
    local lines = { "y,x" }
    for i = 1, 200 do lines[i + 1] = ("%d,%d"):format(i % 2, i * i) end
    local path = shell.write(dir .. "/squares.csv", table.concat(lines, "\n") .. "\n")
    local function schema() return mr.schema { name = "n", label = "y", fields = { mr.numeric "x" } } end
    local fitted, all, part = schema(), schema(), schema()
    mr.fit(make { schema = fitted, data = fitted }, { train = path, valid = path, split = 0.3 })
    all:fit { files = path }
    part:fit { files = path, split = { fraction = 0.3, part = "train" } }
    assert.equal(part:statistics(), fitted:statistics())
    assert.not_equal(all:statistics(), fitted:statistics())
  end)
end)

describe("the loss of an epoch", function()
  it("is the mean over its own samples, by their weights", function()
    local losses = {}
    local model = make(nil)
    local forward = model.forward
    model.forward = function(x) return forward(x) * 0 end
    fit(model, { valid = false, epochs = 3, class_weight = { 1, 3 }, on_epoch = function(e)
      losses[#losses + 1] = e.train.logloss
    end })
    for epoch = 1, 3 do assert.near(math.log(2), losses[epoch], 1e-6) end -- of scores of 0
  end)
end)

describe("a rate that is reduced", function()
  it("compounds, and a schedule multiplies it", function()
    local model = make(nil, { 0 })
    fit(model, { reduce = 0.5, epochs = 4 })
    assert.equal(0.125, model.lr_factor)
    assert.near(0.5 * 0.125, rate(model), 1e-7)
    model = make({ schedule = "constant(0.5)" }, { 0 })
    fit(model, { reduce = 0.5, epochs = 4 })
    assert.near(0.5 * 0.5 * 0.25, rate(model), 1e-7) -- in the last epoch
  end)

  it("is that of an undisturbed run after kills, and of its own data alone", function()
    local whole = make({ store = fresh() }, { 0 })
    fit(whole, { reduce = 0.5, epochs = 4 })
    local store, kills = fresh(), 0
    for at = 12, 32, 10 do
      killed(make({ store = store, commit_every = 1 }, { 0 }), { reduce = 0.5, epochs = 4, on_step = function(step)
        if step == at then kill() end
      end })
      kills = kills + 1
    end
    assert.equal(3, kills)
    local model = make({ store = store }, { 0 })
    fit(model, { reduce = 0.5, epochs = 4 })
    assert.equal(0.125, model.lr_factor)
    assert.equal(whole.store:digest(), model.store:digest())
    fit(model, { train = B, epochs = 1 })
    assert.equal(1, model.lr_factor)
    fit(model, { reduce = 0.5, epochs = 5 }) -- whose best validation counts anew
    assert.equal(0.125, model.lr_factor)
    whole:close()
    model:close()
  end)
end)

describe("a run that was killed", function()
  it("between an epoch's last batch and its end validates the epoch, once", function()
    local whole = make { store = fresh() }
    fit(whole, { epochs = 3 })
    local store = fresh()
    local model = make { store = store }
    killed(model, { epochs = 3, on_step = function(step)
      if step == 20 then
        model:commit()
        kill()
      end
    end })
    local epochs, events = {}, {}
    model = make { store = store }
    fit(model, { epochs = 3, on_event = function(e)
      if e.event == "epoch" then epochs[#epochs + 1], events[e.epoch] = e.epoch, e end
    end })
    assert.same({ 2, 3 }, epochs)
    assert.truthy(events[2].valid.auc > 0.5)
    assert.equal(320, events[2].rows)
    assert.equal(whole.store:digest(), model.store:digest())
    whole:close()
    model:close()
  end)

  it("before a validation between epochs makes it, and after it makes no other", function()
    local function run(store, kills)
      local validated = {}
      for _, at in ipairs(kills) do
        local model = make { store = store }
        killed(model, { epochs = 2, validate_every = 4, on_validate = function(e) table.insert(validated, e.steps) end,
          on_step = function(step)
            if step == at then
              model:commit()
              kill()
            end
          end })
      end
      local model = make { store = store }
      fit(model, { epochs = 2, validate_every = 4, on_validate = function(e) table.insert(validated, e.steps) end })
      model:close()
      return validated
    end
    local whole = run(fresh(), {})
    assert.same({ 4, 8, 10, 12, 16, 20 }, whole)
    assert.same(whole, run(fresh(), { 4, 9, 16 }))
    -- Killed in the batch after a validation, so that its commit is the last.
    local store, validated = fresh(), {}
    local function note(e) table.insert(validated, e.steps) end
    killed(make { store = store }, { epochs = 2, validate_every = 4, on_validate = note, on_batch = function()
      if #validated == 2 then kill() end
    end })
    local model = make { store = store }
    fit(model, { epochs = 2, validate_every = 4, on_validate = note })
    assert.same(whole, validated)
    model:close()
  end)

  it("between the commit of its best state and that it was kept goes back to it all the same", function()
    local store = fresh()
    local model = make({ store = store }, { 1 })
    model.store.checkpoint = kill
    killed(model, { patience = 2, epochs = 4 })
    model = make({ store = store }, { -1 })
    local result = fit(model, { patience = 2, epochs = 4 })
    assert.same({ 10, 10 }, { model.step_number, result.best.step })
    assert.truthy(result.valid.auc > 0.5)
    model:close()
  end)

  it("counts what its patience has waited before", function()
    local store = fresh()
    killed(make({ store = store }, { 1, -1, -1 }), { patience = 3, epochs = 9, on_step = function(step)
      if step == 35 then kill() end
    end })
    local model = make({ store = store }, { -1 })
    local result = fit(model, { patience = 3, epochs = 9 })
    assert.matches("stopped early after epoch 4", result.reason)
    assert.equal(10, model.step_number)
    model:close()
  end)

  it("does not go on in another order", function()
    local store = fresh()
    killed(make { store = store, commit_every = 1 }, { on_step = function(step)
      if step == 5 then kill() end
    end })
    local model = make { store = store }
    raises("training is half-way through it", fit, model, { shuffle = false })
    raises("training is half-way through it", fit, model, { window = 7 })
    model:close()
  end)

  it("by a signal has the last batch in its store", function()
    local store = fresh()
    local status, _, problem = shell.moonrock("-e", ([[
      local ffi, mr = require "ffi", require "moonrock"
      ffi.cdef "int raise(int signal);"
      local model = mr.find "lr" { store = %q, data = mr.data { files = %q, format = "libsvm" } }
      mr.fit(model, { train = "train", size = 32, on_step = function(step) if step == 5 then ffi.C.raise(15) end end })
    ]]):format(store, A))
    assert.truthy(status ~= 0, problem)
    local model = mr.reopen(store)
    assert.equal(5, model.step_number)
    model:close()
  end)
end)

describe("a run that is over", function()
  it("is not trained further by the same options, and is by more", function()
    local function trained(model, patience, epochs)
      local steps = 0
      local result = fit(model, { patience = patience, epochs = epochs, on_step = function() steps = steps + 1 end })
      return steps, result.reason
    end
    local early = make({ store = fresh() }, { 1, -1, -1, -1 })
    assert.equal(30, (trained(early, 2, 9)))
    local steps, reason = trained(early, 2, 9)
    assert.equal(0, steps)
    assert.matches("is not trained further", reason)
    assert.truthy(trained(early, 3, 9) > 0)
    early:close()
    local epochs = make({ store = fresh() }, { 1, -1, -1, -1 })
    assert.equal(30, (trained(epochs, 50, 3)))
    assert.equal(10, epochs.step_number) -- back at the best
    assert.equal(0, (trained(epochs, 50, 3)))
    assert.truthy(trained(epochs, 50, 4) > 0)
    epochs:close()
  end)

  it("does not go back behind other data that was trained since", function()
    local model = make({ store = fresh() }, { 1, -1 })
    fit(model, { patience = 9, epochs = 1 })
    fit(model, { train = B, epochs = 1, valid = false })
    assert.equal(20, model.step_number)
    fit(model, { patience = 9, epochs = 2 })
    assert.equal(30, model.step_number)
    model:close()
  end)

  it("tells in the digest how far it came in other data", function()
    local function digest(batches)
      local model = make { store = fresh() }
      local it = model:batches(A, { size = 32 })
      for _ = 1, batches do
        it()
        model:skip()
      end
      it:close()
      fit(model, { train = B, epochs = 1, valid = false })
      local text = model.store:digest()
      model:close()
      return text
    end
    assert.equal(digest(1), digest(1))
    assert.not_equal(digest(1), digest(2))
  end)
end)

describe("balanced class weights", function()
  it("are of the records that are trained", function()
    local model, n, positive = make(), 0, 0
    fit(model, { valid = A, split = 0.5, epochs = 1, class_weight = "balanced", on_batch = function(batch)
      for s = 0, batch.n - 1 do n, positive = n + 1, positive + batch.c.label[s] end
    end })
    assert.near(n / (2 * (n - positive)), model.fit.class_weight[1], 1e-6)
    assert.near(n / (2 * positive), model.fit.class_weight[2], 1e-6)
  end)

  it("count samples, and multiply their weights", function()
    local path = shell.write(dir .. "/weighted.csv", "y,c,s\n1,a,4\n0,b,2\n0,c,1\n")
    local schema = mr.schema { name = "weighted", label = "y", weight = "s", fields = { mr.category "c" } }
    local model, score = make { data = schema, schema = schema }, {}
    mr.fit(model, { train = path, size = 3, shuffle = false, class_weight = "balanced" })
    assert.near(0.75, model.fit.class_weight[1], 1e-9)
    assert.near(1.5, model.fit.class_weight[2], 1e-9)
    model:eval()
    for batch in schema:batches(path, { size = 3 }) do
      local z = model(batch)
      for s = 1, 3 do score[s] = z:get(s) - model.params[1]:weight(1) end
    end
    -- w -= lr (class weight) (sample weight) (p - y) / n with p = 1/2 and lr = 1/2
    for s, expected in ipairs { 0.5 * 1.5 * 4 * 0.5 / 3, -0.5 * 0.75 * 2 * 0.5 / 3, -0.5 * 0.75 * 0.5 / 3 } do
      assert.near(expected, score[s], 1e-6)
    end
  end)
end)

describe("choosing", function()
  local definition = mr.model("chosen", function(m, opt)
    local row = m:table("features", { w = { dim = 1, optim = opt.linear } })
    local asked, quality = 0, opt.quality
    return function(x)
      local z = row(x).w:sum()
      if m.training or not quality then return z end
      asked = asked + 1
      return z * quality[math.min(asked, #quality)]
    end
  end, { optim = mr.optim.sgd { lr = 0.5 } })
  local data = mr.data { files = A, format = "libsvm" }
  local function search(o)
    o.model, o.print = definition, false
    o.options = o.options or {}
    o.options.data = data
    o.fit = o.fit or { train = "train", valid = VALID, size = 80 }
    return mr.search(o)
  end

  it("goes by the best validation with patience, by the last without, in trials and in folds", function()
    for _, patience in ipairs { 5, false } do
      local function fold() return definition { data = data, quality = { 1, -1 } } end
      local best = search { options = { quality = { 1, -1 } }, space = { lr = { 0.5 } },
        fit = { train = "train", valid = VALID, size = 80, epochs = 3, patience = patience or nil } }
      local cv = mr.cross_validate(fold, { train = "train", folds = 2, size = 80, epochs = 3, patience = patience or nil })
      for _, auc in ipairs { best.valid.auc, cv.folds[1].auc, cv.folds[2].auc, cv.mean.auc } do
        assert.equal(patience == 5, auc > 0.5)
      end
    end
  end)

  it("takes the first of equal trials", function()
    local best, trials = search { space = { other = { 1, 2, 3 } } }
    assert.equal(trials[1].valid.auc, trials[3].valid.auc)
    assert.same({ 1, 2, 3 }, { best.trial, trials[2].trial, trials[3].trial })
  end)

  it("draws every value of a list, every setting for itself, and logarithms evenly", function()
    local tiny = shell.write(dir .. "/tiny.svm", "1 1:1\n0 2:1\n")
    local _, trials = search { trials = 40, seed = 3, fit = { train = tiny, valid = tiny, size = 2 },
      space = { pick = { "a", "b", "c" }, x = mr.uniform(0, 1), y = mr.uniform(0, 1), z = mr.log_uniform(1e-4, 1) } }
    local picked, small, same, low = {}, 0, 0, 0
    for _, t in ipairs(trials) do
      picked[t.settings.pick] = true
      same = same + (math.abs(t.settings.x - t.settings.y) < 1e-6 and 1 or 0)
      small, low = small + (t.settings.z < 1e-2 and 1 or 0), low + (t.settings.x < 0.5 and 1 or 0)
    end
    assert.same({ a = true, b = true, c = true }, picked)
    assert.equal(0, same)
    assert.truthy(small > 8 and small < 32, small) -- 20 of 40, within four deviations
    assert.truthy(low > 8 and low < 32, low)
  end)

  it("leaves the caller's options as they are, and tells fit what it goes by", function()
    local given = { linear = { rule = "sgd", lr = 7 } }
    local best, trials = search { options = given, space = { ["linear.lr"] = { 0.1, 0.2 } }, monitor = "logloss" }
    assert.equal(7, given.linear.lr)
    assert.not_equal(trials[1].options.linear.lr, trials[2].options.linear.lr)
    assert.equal("logloss", best.fit.monitor)
  end)

  it("resumes trials, and folds, that a store has", function()
    for _, folds in ipairs { false, 2 } do
      local steps, base = 0, fresh()
      local function run()
        steps = 0
        return search { store = base, space = { lr = { 0.1, 0.5 } }, folds = folds or nil, fit = { train = "train",
          valid = not folds and VALID or nil, size = 80, on_step = function() steps = steps + 1 end } }
      end
      local first = run()
      assert.truthy(steps > 0)
      assert.truthy(shell.read(base .. (folds and ".2.2" or ".2") .. "/COMMIT"))
      local again = run()
      assert.equal(0, steps)
      assert.equal(first.valid.auc, again.valid.auc)
    end
  end)

  it("leaves a schema that was fitted before as it was", function()
    local function numbers(name, from)
      local lines = { "y,x" }
      for i = 1, 60 do lines[i + 1] = ("%d,%d"):format(i % 2, from + i) end
      return shell.write(dir .. "/" .. name, table.concat(lines, "\n") .. "\n")
    end
    local schema = mr.schema { name = "numbers", label = "y", fields = { mr.numeric "x" } }
    schema:fit { files = numbers("before.csv", 1000) }
    local before = schema:statistics()
    mr.cross_validate(function() return make { schema = schema, data = schema } end,
      { folds = 2, train = numbers("now.csv", 0) })
    assert.equal(before, schema:statistics())
  end)
end)

describe("a stream", function()
  local function label_mean(path)
    local n, positive = 0, 0
    for label in shell.read(path):gmatch "([01]) [^\n]*\n" do n, positive = n + 1, positive + label end
    return positive / n
  end

  it("is measured as it is, whatever is weighed or left out in training", function()
    local plain = mr.learn(make(), A, { size = 16 }):result()
    assert.near(label_mean(A), plain.total.label, 1e-6)
    for _, o in ipairs { { class_weight = { 1, 9 } }, { negative_rate = 0.2 }, { negative_rate = 0.01, correction = "q" } } do
      o.size = 16
      local model = make()
      local watch = mr.learn(model, A, o)
      local r = watch:result()
      assert.equal(320, r.rows)
      assert.near(plain.total.label, r.total.label, 1e-6)
      assert.near(plain.window.label, r.window.label, 1e-6)
      assert.equal(320, watch.rows_learned)
    end
  end)

  it("goes on with its metrics, and every sample is learned once", function()
    local store = fresh()
    for i, path in ipairs { A, B } do
      local model = make { store = store }
      local watch = mr.learn(model, path, { size = 16, window = 100 })
      assert.equal(320, watch.rows_learned)
      assert.equal(320 * i, watch:result().rows)
      assert.equal(20 * i, model.step_number)
      model:close()
    end
    local model = make { store = store }
    assert.equal(40, model.step_number)
    model:close()
  end)

  it("has batches of the size that its model asks for", function()
    local model = mr.model("sized", function(m)
      local row = m:table("features", { w = { dim = 1 } })
      return function(x) return row(x).w:sum() end
    end, { stream_size = 32 }) { data = mr.data { format = "libsvm" } }
    mr.learn(model, A)
    assert.equal(10, model.step_number)
  end)

  it("goes by what a schema's recipe says of the loop", function()
    local csv = shell.write(dir .. "/recipe.csv", "y,c\n" .. ("1,a\n0,b\n1,a\n"):rep(20))
    local function largest(recipe)
      local schema, store = shell.write(dir .. "/recipe.lua", ("return require 'moonrock'.schema { name = 'r', label = 'y', "
        .. "fields = { require 'moonrock'.category 'c' }, recipe = { lr = { %s } } }"):format(recipe)), fresh()
      local status, _, problem = shell.moonrock("learn", "lr", "--schema", schema, "--source", csv, "--store", store)
      assert.equal(0, status, problem)
      local _, rows = shell.moonrock("export", "--store", store, "--out", "-", "--format", "tsv")
      local most = 0
      for w in rows:gmatch "\nfeatures\t%d+\t%d+\t%d+\t([^\t\n]+)" do most = math.max(most, math.abs(w)) end
      return most
    end
    local plain, clipped = largest "", largest "clip_norm = 1e-6"
    assert.truthy(plain > 0.01 and clipped > 0 and clipped < 0.001, plain .. " " .. clipped)
  end)

  it("goes by the command line before a recipe's options of the model", function()
    local csv = shell.write(dir .. "/before.csv", "y,c\n1,a\n0,b\n")
    local store = fresh()
    local schema = shell.write(dir .. "/before.lua", "return require 'moonrock'.schema { name = 'r', label = 'y', fields = "
      .. "{ require 'moonrock'.category 'c' }, recipe = { lr = { model = { clip_norm = 1, max_rows = 7 } } } }")
    local status, _, problem = shell.moonrock("learn", "lr", "--schema", schema, "--source", csv, "--store", store,
      "--clip-norm", "2")
    assert.equal(0, status, problem)
    local model = mr.reopen(store)
    assert.same({ 2, 7 }, { model.opt.clip_norm, model.opt.max_rows })
    model:close()
  end)

  it("forgets what Adagrad summed long ago, unless the model says otherwise", function()
    local function sums(...)
      local store = fresh()
      local status, _, problem = shell.moonrock("learn", "lr", "--source", A, "--store", store, ...)
      assert.equal(0, status, problem)
      local model = mr.reopen(store)
      local all = {}
      for key = 1, 20 do all[key] = select(2, model.tables[1]:peek(key, "w"))[1] end
      model:close()
      return all
    end
    assert.same(sums(), sums("--set", "optim.fade_every=10"))
    assert.not_same(sums(), sums("--set", "optim.fade_every=0"))
  end)
end)

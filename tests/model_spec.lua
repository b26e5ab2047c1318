-- Models and their store: what a commit holds, and what becomes of one that fails.
local C = require "moonrock.ffi"
local mr = require "moonrock"
local runs = require "tests.support.runs"
local shell = require "tests.support.shell"

describe("a model with a store", function()
  it("keeps its description when the commit that should have written it failed", function()
    local dir = shell.directory()
    local data = shell.write(dir .. "/a.svm", "1 1:1 2:1\n0 2:1 3:1\n")
    local function make() return mr.find "lr" { store = dir .. "/store",
      data = mr.data { files = data, format = "libsvm" } } end
    local model = make()
    model.opt.note = "changed" -- the description is another one now
    local finish = model.store.finish
    model.store.finish = function() error("no space left", 0) end
    assert.has_error(function() model:commit() end, "no space left")
    model.store.finish = finish
    model:commit()
    model:close()
    local again = mr.reopen(dir .. "/store")
    assert.equal("changed", again:info().options.note)
    again:close()
  end)

  -- Samples of user, item and history (a few items): liked where the item's kind is the history's.
  local function histories(dir)
    local lines, state = {}, 7
    local function draw(n)
      state = (state * 16807) % 2147483647
      return math.floor(state / 2147483647 * n)
    end
    for i = 1, 600 do
      local kind, item, parts = draw(2), 100 + draw(20), {}
      for j = 1, 1 + draw(4) do parts[j] = ("2:%d:1"):format(100 + 2 * draw(10) + kind) end
      lines[i] = ("%d 0:%d:1 1:%d:1 %s"):format(item % 2 == kind and 1 or 0, draw(30), item,
        table.concat(parts, " "))
    end
    return shell.write(dir .. "/a.ffm", table.concat(lines, "\n") .. "\n")
  end

  for name, options in pairs {
    autoint = { attention = 8, hidden = { 16 } }, afm = { attention = 8 }, fibinet = { hidden = { 16 } },
    din = { target = 2, history = 3, length = 3, hidden = { 16 } }, mmoe = { hidden = { 16, 8 }, tower = 4 },
  } do
    it("learns with " .. name .. ", and is the same from the store", function()
      local dir = shell.directory()
      options.data = mr.data { files = histories(dir), format = "libffm", fields = 3 }
      options.store, options.dim = dir .. "/store", 8
      local model = mr.find(name)(options)
      local losses = {}
      for batch in model:batches("train", { epochs = 40, size = 50, shuffle = true }) do
        local loss = mr.bce(model(batch), batch.label)
        losses[batch.epoch] = loss:value()
        loss:backward()
        model:step()
      end
      assert.is_true(losses[40] < 0.02 * losses[1], ("%g, then %g"):format(losses[1], losses[40]))
      model:commit()
      model:eval()
      local again, first = mr.reopen(dir .. "/store"), nil
      for batch in options.data:batches("train") do
        first = first or { batch.n, model(batch):get(1, 1), again(batch):get(1, 1) }
      end
      assert.equal(first[2], first[3])
      model:close()
      again:close()
    end)
  end

  it("takes its optimizers, its initializers and its loss from the store", function()
    local dir = shell.directory()
    local module = shell.write(dir .. "/mine.lua", [[
local mr = require "moonrock"
return mr.model("mine", function(m, opt)
  local row = m:table("t", { v = { dim = 2, init = opt.first, optim = opt.factors } })
  local b = m:param("b", { 2, 1 }, { init = opt.weights, optim = opt.dense })
  return function(x) return mr.affine(row(x).v:sum(), b) end
end)]])
    local data = mr.data { files = shell.write(dir .. "/a.svm", "1 1:1 2:1\n0 2:1 3:1\n"), format = "libsvm" }
    local model = mr.find(module) { data = data, store = dir .. "/store",
      first = mr.init.normal(0.5), weights = mr.init.he_normal(),
      factors = mr.optim.adagrad { lr = 0.2, init = 0.3 }, dense = mr.optim.adamw { lr = 0.25, decay = 0.125,
        decay_scope = "table" }, optim = mr.optim.ftrl { l1 = 2 }, lr = 0.75, dense_optim = mr.optim.lion(),
      loss = { name = "huber", delta = 2 } }
    mr.fit(model, { train = "train", size = 1, epochs = 3 })
    local function scores(m)
      m:eval()
      local batch = data:batches()()
      return { m(batch):get(1, 1), m(batch):get(2, 1) }
    end
    local kept = scores(model)
    model:close()
    for _, options in ipairs { {}, { read_only = false } } do
      local again = mr.reopen(dir .. "/store", options)
      assert.same(kept, scores(again))
      local factors, dense = C.mr_table_optim(again.tables[1].c, 0), C.mr_param_optim(again.params[1].c)
      assert.same({ tonumber(C.MR_ADAGRAD), 0.2, 0.3 }, { tonumber(factors.kind), factors.lr, factors.init })
      assert.same({ tonumber(C.MR_ADAMW), 0.25, 0.125, 1 },
        { tonumber(dense.kind), dense.lr, dense.decay, dense.decay_table })
      assert.same({ "ftrl", 0.75, 2 }, { again.default_optim.rule, again.default_optim.lr, again.default_optim.l1 })
      assert.same({ delta = 2 }, again.objective.options)
      again:close()
    end
  end)

  it("learns two tasks at once with mmoe", function()
    local data = mr.data { files = histories(shell.directory()), format = "libffm", fields = 3 }
    local model = mr.find "mmoe" { data = data, tasks = 2, dim = 8, hidden = { 16, 8 },
      dense = mr.optim.adam { lr = 0.01 } }
    local first, last
    for batch in model:batches("train", { epochs = 20, size = 100 }) do
      local odd, c = {}, batch.c -- the second label: whether the item is of the odd kind
      for s = 0, batch.n - 1 do odd[s + 1] = tonumber(c.keys[c.offsets[s] + 1]) % 2 end
      local y = model(batch)
      assert.equal(2, y:dim(2))
      local loss = mr.bce(y:slice(2, 1, 1), batch.label)
        + mr.bce(y:slice(2, 2, 2), mr.tensor({ batch.n }, odd))
      first, last = first or loss:value(), loss:value()
      loss:backward()
      model:step()
    end
    assert.is_true(last < 0.01 * first, ("%g, then %g"):format(first, last))
    model:close()
  end)

  it("takes a regression's stream, and measures it as one", function()
    local dir = shell.directory()
    local data = shell.write(dir .. "/a.svm", ("1.5 1:1 2:1\n-0.5 2:1 3:1\n"):rep(50))
    local squared = mr.model("squared", function(m)
      local row = m:table("t", { w = { dim = 1 } })
      return function(x) return row(x).w:sum() end
    end, { loss = "mse" })
    local model = squared { data = mr.data { files = data, format = "libfm", task = "regression" } }
    local watch = mr.learn(model, data, { size = 10 })
    local r = watch:result()
    assert.equal(100, r.rows)
    assert.is_nil(r.total.auc)
    assert.is_true(r.total.rmse < 1.5)
    model:close()
  end)

  it("goes down the loss that it is given by name", function()
    local dir = shell.directory()
    local data = shell.write(dir .. "/a.svm", ("3 1:1\n0 1:1\n1 1:1\n"):rep(1000))
    local function run(loss)
      local model = mr.find "lr" { loss = loss, store = type(loss) == "table" and dir .. "/store" or nil,
        optim = "sgd", lr = 0.1, data = mr.data { files = data, format = "libfm" } }
      local result = mr.fit(model, { train = data, valid = data, size = 30, epochs = 2,
        shuffle = false })
      local name, directory = model.loss_name, model.directory
      model:close()
      return result.valid, name, directory
    end
    -- The best constants for labels of 0, 1 and 3.
    for loss, best in pairs { mse = 4 / 3, mae = 1, huber = 1, poisson = 4 / 3, quantile = 1 } do
      local valid, name = run(loss)
      assert.equal(loss, name)
      assert.is_nil(valid.auc)
      assert.is_true(math.abs(valid.prediction - best) < 0.15, loss .. ": " .. valid.prediction)
    end
    local valid, _, directory = run { name = "quantile", q = 0.9 }
    assert.is_true(math.abs(valid.prediction - 3) < 0.15, valid.prediction)
    local again = mr.reopen(directory)
    assert.equal("quantile", again.loss_name)
    assert.equal(0.9, again.objective.options.q)
    again:close()
    assert.error_matches(function() mr.find "lr" { loss = "hubert" } end,
      'model lr: loss is "hubert", expected bce, hinge, mse, mae, huber, quantile or poisson')
  end)
end)

-- Samples of users 1 to 20 and items 101 to 130, whose taste is the rest of their number by 3.
local function tastes(n, label)
  local lines, state = {}, 7
  local function draw(below)
    state = state * 16807 % 2147483647
    return math.floor(state / 2147483647 * below)
  end
  for i = 1, n do
    local u, v = 1 + draw(20), 101 + draw(30)
    lines[i] = ("%g %d:1 %d:1"):format(label(u, v), u, v)
  end
  return table.concat(lines, "\n") .. "\n"
end

describe("the model", function()
  it("mf learns ratings of users and items", function()
    local dir = shell.directory()
    local data = shell.write(dir .. "/r.svm", tastes(3000, function(u, v)
      return 3 + (u % 2 == 0 and 1 or 0) + (u % 3 == v % 3 and 1 or -0.5)
    end))
    local model = mr.find "mf" { dim = 8, lr = 0.1, data = mr.data { files = data, format = "libfm", fields = 2 } }
    local result = mr.fit(model, { train = data, test = data, size = 64, epochs = 20 })
    -- biases alone leave the taste: rmse sqrt(2) / 2
    assert.is_true(result.test.rmse < 0.02, result.test.rmse)
    model:close()
    assert.error_matches(function()
      mr.find "mf" { data = mr.data { files = data, format = "libfm", fields = 3 } }
    end, "model mf: samples have 3 fields, expected 2: a user and an item")
  end)

  it("two_tower ranks the items that a user likes first", function()
    local dir = shell.directory()
    local function likes(u, v) return u % 3 == v % 3 and 1 or 0 end
    local data = shell.write(dir .. "/r.svm", tastes(6000, likes))
    for _, cosine in ipairs { true, false } do
      local store = dir .. "/" .. tostring(cosine)
      local function make()
        return mr.find "two_tower" { cosine = cosine, store = store,
          data = mr.data { files = data, format = "libfm", fields = 2 } }
      end
      local model = make()
      local result = mr.fit(model, { train = data, test = data, valid = data, size = 128, epochs = 4,
        monitor = "gauc", patience = 3, metrics = { group = 1, slice = 1, k = 5 } })
      assert.is_true(result.test.gauc > 0.99, result.test.gauc)
      assert.equal(model.fit.best, result.valid.gauc)
      assert.is_true(result.test.ndcg > 0.99, result.test.ndcg)
      assert.equal(20, #result.test.slices)
      model:close()
      local again = make()
      local function sightings(m)
        for _, p in ipairs(m.params) do
          if p.name == "frequency" then
            local n = 0
            for i = 1, p:size() / 2 do n = n + (p:weight(i) > 0 and 1 or 0) end
            return n
          end
        end
      end
      assert.equal(30, sightings(again)) -- no two of the items share a bucket
      again:close()
    end
  end)
end)

describe("a model of interactions", function()
  local dir = shell.directory()
  local file
  setup(function() file = runs.data(dir, 512) end)

  local layers = { dim = 4, hidden = { 16, 8 }, dropout = 0.1, batch_norm = true, init = 0.05 }
  local function with(options)
    for name, value in pairs(layers) do
      if options[name] == nil then options[name] = value end
    end
    return options
  end
  local MODELS = {
    { "ffm", { dim = 2, init = 0.05 } }, { "fwfm", { dim = 4, init = 0.05 } }, { "nfm", with {} },
    { "nfm", with { batch_norm = false, dropout = false } }, { "wide_deep", with {} }, { "deepfm", with {} },
    { "dcn", with { cross = 2 } }, { "dcnv2", with { cross = 2 } },
    { "dcnv2", with { cross = 2, rank = 3, structure = "stacked" } }, { "xdeepfm", with { cin = { 5 } } },
    { "xdeepfm", with { cin = { 5, 4 } } },
    { "finalmlp", with { heads = 2, gates = { 4 } } }, { "ensemble", with { of = "dcn", members = 2 } },
  }

  -- Of the first loss, which is about that of no knowledge, ln 2, what is left when the rows were seen twelve times.
  local BOUND = { ffm = 0.5, fwfm = 0.65, nfm = 0.25, wide_deep = 0.2, deepfm = 0.35, dcn = 0.45, dcnv2 = 0.5,
    xdeepfm = 0.2, finalmlp = 0.2, ensemble = 0.55 }

  for i, case in ipairs(MODELS) do
    local name, options = case[1], case[2]
    it(("learns, and is kept and opened again: %s (%d)"):format(name, i), function()
      local store = ("%s/%d"):format(dir, i)
      local o = { store = store, data = mr.data { files = file, format = "bin", fields = 39 } }
      for key, value in pairs(options) do o[key] = value end
      local model = mr.find(name)(o)
      local first, last, kept
      for batch in model:batches("train", { epochs = 12, size = 512 }) do
        local loss = mr.bce(model(batch), batch.label)
        first, last = first or loss:value(), loss:value()
        loss:backward()
        model:step()
      end
      assert.is_true(last < BOUND[name] * first, ("loss %g after %g"):format(last, first))
      local function logits(m)
        local values = {}
        m:eval()
        for batch in o.data:batches(nil, { size = 512 }) do
          local out = m(batch)
          for s = 1, batch.n do values[#values + 1] = out:get(s, 1) end
        end
        return values
      end
      model:commit()
      kept = logits(model)
      model:close()
      local again = mr.reopen(store)
      assert.equal(512, #kept)
      assert.same(kept, logits(again))
      again:close()
    end)
  end

  it("says which structures there are", function()
    assert.has_error(function()
      mr.find "dcnv2" { structure = "sideways", data = mr.data { files = file, format = "bin", fields = 39 } }
    end, 'model dcnv2: structure is "sideways", expected parallel or stacked')
  end)
end)

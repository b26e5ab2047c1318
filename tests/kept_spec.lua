-- What a store keeps of a model, and what of it has to be the same when training goes on; what a step, and a batch
-- that is left out, leave behind.
local C = require "moonrock.ffi"
local ffi = require "ffi"
local mr = require "moonrock"
local raises = require "tests.support.raises"
local shell = require "tests.support.shell"

local dir = shell.directory()

-- Keys 1 to 5 again and again, others once.
local function samples(name, n, from)
  local lines = {}
  for i = 1, n do lines[i] = ("%d %d:1 %d:1"):format(i % 3 == 0 and 1 or 0, i % 5 + 1, from + i) end
  return shell.write(dir .. "/" .. name, table.concat(lines, "\n") .. "\n")
end
local A, B = samples("a.svm", 64, 100), samples("b.svm", 64, 1000)
local data = mr.data { files = A, format = "libsvm" }

local number = 0
local function fresh()
  number = number + 1
  return ("%s/store%d"):format(dir, number)
end

-- A model of the tables and params that `declare` makes; scores are the sum of what it returns for a batch.
local function make(options, declare)
  local o = { data = data, commit_seconds = 1e9 }
  for name, value in pairs(options or {}) do o[name] = value end
  return mr.model("kept", declare or function(m)
    local row = m:table("features", { w = { dim = 1, init = mr.init.normal(0.1) } })
    local bias = m:param("bias", { 1 })
    return function(x) return bias + row(x).w:sum() end
  end, { optim = mr.optim.sgd { lr = 0.5 } })(o)
end

local function learn(model, batch)
  mr.bce(model(batch), batch.label):backward()
  return model:step()
end

local function train(model, path, steps)
  local it = model:batches(path or A, { size = 8 })
  for _ = 1, steps or 8 do learn(model, it()) end
  it:close()
end

describe("a store that goes on without its options", function()
  it("admits, bounds, clips and rounds rows as before", function()
    local store = fresh()
    local model = make { store = store, admit = 2, precision = "bf16", clip_norm = 0.5, ttl = "30d", max_rows = 1000 }
    train(model)
    model:commit()
    assert.equal(5, model.tables[1]:rows())
    model:close()
    model = make { store = store }
    train(model, B)
    assert.equal(5, model.tables[1]:rows())
    assert.same({ 2, "bf16", 0.5, "30d", 1000 }, { model.opt.admit, model.opt.precision, model.clip.clip_norm,
      model.opt.ttl, model.tables[1].max_rows })
    model:close()
  end)

  it("has its seed and its loss, with the loss's options", function()
    local store = fresh()
    local model = make { store = store, seed = 7, loss = { name = "huber", delta = 2 } }
    local row = model.tables[1]:peek(77, "w")[1]
    train(model)
    model:commit()
    model:close()
    model = make { store = store }
    assert.same({ 7, "huber", 2, row }, { model.seed, model.loss_name, model.objective.options.delta,
      model.tables[1]:peek(77, "w")[1] })
    model:close()
    raises("it was made with the loss huber", make, { store = store, loss = { name = "huber", delta = 3 } })
    raises("it was made with the loss huber", make, { store = store, loss = "mse" })
    raises("it was made with seed 7, not 8", make, { store = store, seed = 8 })
  end)

  it("corrects its scores for sampled negatives as before, and not in a state of before them", function()
    local store = fresh()
    local model = make { store = store }
    local function mean() return mr.evaluate(model, data:batches(B, { size = 64 })).prediction end
    mr.fit(model, { train = A, size = 8 })
    model.store:checkpoint "plain"
    local plain = mean()
    mr.fit(model, { train = B, size = 8, negative_rate = 0.1, correction = "q" })
    local corrected = mean()
    assert.near(math.log(0.1), model.shift, 1e-12)
    model:close()
    model = make { store = store }
    assert.equal(corrected, mean())
    model:restore "plain"
    assert.equal(plain, mean())
    assert.is_nil(model.shift)
    model:close()
  end)
end)

describe("another schema", function()
  local csv = shell.write(dir .. "/a.csv", "y,c,s\n1,a,1\n0,b,1\n")
  local function schema(o)
    local given = { name = "s", label = "y", fields = { mr.category "c" } }
    for name, value in pairs(o or {}) do given[name] = value end
    return mr.schema(given)
  end

  it("than the store's is refused, whatever the difference in features, labels, weights or cells", function()
    local store = fresh()
    local s = schema()
    local model = make { store = store, schema = s, data = s }
    mr.fit(model, { train = csv })
    model:close()
    local function again(o)
      local other = schema(o)
      make({ store = store, schema = other, data = other }):close()
    end
    again()
    raises('made with schema "s", not "t"', again, { name = "t" })
    for _, o in ipairs { { fields = { mr.category "s" } }, { weight = "s" }, { separator = ";" }, { missing = { "b" } },
      { label = { "y", positive = { "0" } } }, { trim = false }, { quote = false }, { decimal = "," }, { header = false,
      columns = { "y", "c", "s" } }, { escape = "\\" } } do
      raises("differs from the one given", again, o)
    end
  end)

  it("that runs along with a stream is the store's, to the bit", function()
    local lines = { "y,x" }
    for i = 1, 50 do lines[i + 1] = ("%d,%d"):format(i % 2, i * i) end
    local path = shell.write(dir .. "/run.csv", table.concat(lines, "\n") .. "\n")
    local function numbers() return mr.schema { name = "n", label = "y", fields = { mr.numeric "x" } } end
    local function second(model)
      local schema_of = model.schema
      schema_of:run()
      mr.learn(model, path, { size = 5, from = "start" })
      return model.params[1]:weight(1), ffi.string(schema_of:running_bytes())
    end
    local function first(store)
      local s = numbers()
      local model = make { store = store, schema = s, data = s }
      mr.learn(model, path, { size = 5 })
      return model
    end
    local model = first(fresh())
    local whole = { second(model) }
    model:close()
    local store = fresh()
    first(store):close()
    local s = numbers()
    model = make { store = store, schema = s, data = s }
    assert.same(whole, { second(model) })
    model:close()
  end)
end)

describe("a model with other parts", function()
  local function of(tables, params, optim)
    return function(m)
      local rows, weights = {}, {}
      for i, name in ipairs(tables) do rows[i] = m:table(name, { w = { dim = 2, optim = optim } }) end
      for i, p in ipairs(params) do weights[i] = m:param(p[1], { p[2] }) end
      return function(x)
        local z = rows[1](x).w:sum():sum(2):reshape(-1, 1)
        for i = 2, #rows do z = z + rows[i](x).w:sum():sum(2):reshape(-1, 1) end
        for _, w in ipairs(weights) do z = z + w:sum() end
        return z
      end
    end
  end

  it("drops a dense weight of another shape, which begins anew, and restores what it is then", function()
    local store = fresh()
    local model = make({ store = store }, of({ "t" }, { { "p", 2 }, { "q", 1 } }))
    train(model)
    model:commit()
    local q = model.params[2]:weight(1)
    model:close()
    raises('param "p" is 2 there, 3 in the model', make, { store = store }, of({ "t" }, { { "p", 3 }, { "q", 1 } }))
    local notices = {}
    model = make({ store = store, allow_drop = true, on_notice = function(text) notices[#notices + 1] = text end },
      of({ "t" }, { { "p", 3 }, { "q", 1 } }))
    assert.matches('dropped: param "p"', table.concat(notices, "\n"))
    assert.same({ 0, q, 3 }, { model.params[1]:weight(3), model.params[2]:weight(1), model.params[1]:size() })
    train(model, B, 4)
    model:commit()
    model.store:checkpoint "then"
    local then_ = model.params[1]:weight(1)
    assert.truthy(then_ ~= 0)
    train(model, B, 4)
    model:restore "then"
    assert.equal(then_, model.params[1]:weight(1))
    model:close()
    model = make({ store = store }, of({ "t" }, { { "p", 3 }, { "q", 1 } }))
    assert.equal(then_, model.params[1]:weight(1))
    model:close()
  end)

  it("leaves nothing of what is dropped, and gives no table the number of another", function()
    local store = fresh()
    local model = make({ store = store }, of({ "a", "b" }, { { "p", 1 }, { "q", 1 } }))
    train(model)
    model:commit()
    model:close()
    model = make({ store = store, allow_drop = true }, of({ "a" }, { { "q", 1 } }))
    train(model, B, 4)
    model:commit()
    assert.is_nil(model.store:get "param/p")
    assert.truthy(model.store:get "param/q")
    model:close()
    model = make({ store = store }, of({ "c", "a" }, { { "q", 1 } }))
    local ids = {}
    for _, t in ipairs(model.tables) do ids[t.name] = t.id end
    assert.same({ a = 0, c = 2 }, ids)
    assert.equal(0, model.tables[1]:rows())
    model:close()
  end)

  it("gives a new table no number that one has, wherever it is declared", function()
    local store = fresh()
    local model = make({ store = store }, of({ "a", "b" }, {}))
    train(model)
    model:commit()
    local weights = model.tables[1]:peek(1, "w")
    model:close()
    model = make({ store = store }, of({ "c", "a", "b" }, {}))
    assert.same({ 2, 0, 1 }, { model.tables[1].id, model.tables[2].id, model.tables[3].id })
    assert.same({ 0, weights }, { model.tables[1]:rows(), (model.tables[2]:peek(1, "w")) })
    model:close()
  end)

  it("begins the state of another optimizer anew, though it takes as much room", function()
    local store = fresh()
    local model = make({ store = store }, of({ "t" }, {}, mr.optim.adagrad { lr = 1 }))
    train(model)
    model:commit()
    local weights, sums = model.tables[1]:peek(3, "w")
    assert.truthy(sums[1] > 0.001)
    model:close()
    model = make({ store = store }, of({ "t" }, {}, mr.optim.rmsprop { lr = 1 }))
    local kept, state = model.tables[1]:peek(3, "w")
    assert.same({ weights, { 0, 0 } }, { kept, state })
    model:close()
  end)

  it("drops the rows that are over its bound when it goes on, where a kill came before that", function()
    local store = fresh()
    local function bounded(m)
      local row = m:table("t", { w = { dim = 1 } }, { max_rows = 5, shrink_every = 4, shrink_by = "count" })
      return function(x) return row(x).w:sum() end
    end
    local model = make({ store = store }, bounded)
    model.limits = nil -- so far it was not reached
    train(model, A, 4)
    model:commit()
    assert.equal(37, model.tables[1]:rows())
    model:close()
    model = make({ store = store }, bounded)
    assert.equal(5, model.tables[1]:rows())
    assert.truthy(select(3, model.tables[1]:peek(1, "w")) > 1)
    model:close()
  end)

  it("is copied with what was not committed", function()
    local model, copy = make { store = fresh() }, fresh()
    train(model, A, 3)
    model:checkpoint(copy)
    local other = make { store = copy }
    assert.equal(3, other.step_number)
    assert.equal(model.store:digest(), other.store:digest())
    model:close()
    other:close()
  end)
end)

describe("a batch", function()
  it("that is skipped changes nothing, and is behind", function()
    local model, plain = make(), make()
    local it, same = model:batches(A, { size = 8 }), plain:batches(A, { size = 8 })
    local batch = it()
    mr.bce(model(batch), batch.label):backward()
    model:skip()
    assert.equal(8, tonumber(model.position.sample))
    same()
    learn(model, it())
    learn(plain, same())
    assert.equal(plain.params[1]:weight(1), model.params[1]:weight(1))
    for _, key in ipairs { 1, 2, 3, 101, 108, 109, 116 } do
      assert.equal(plain.tables[1]:peek(key, "w")[1], model.tables[1]:peek(key, "w")[1])
    end
    assert.equal(16, tonumber(model.position.sample))
    it:close()
    same:close()
  end)

  it("of other data moves no position, and one of a read-only model begins at the start", function()
    local store = fresh()
    local model = make { store = store }
    train(model, A, 2)
    local it = data:batches(B, { size = 8 })
    learn(model, it())
    it:close()
    assert.equal(16, tonumber(model.position.sample))
    model:commit()
    model:close()
    model = make { store = store, read_only = true }
    it = model:batches(A, { size = 8 })
    assert.equal(0, tonumber(it().c.record[0]))
    it:close()
    model:close()
  end)

  it("whose gradient of a dense weight alone is not finite is left out, rows and all", function()
    local bad = mr.operation { name = "bad", forward = function(out, a, n)
      for i = 0, n - 1 do out[i] = a[i] end
    end, backward = function(g, _, _, da, n)
      for i = 0, n - 1 do da[i] = da[i] + g[i] * (0 / 0) end
    end }
    local model = make({}, function(m)
      local row = m:table("features", { w = { dim = 1 } })
      local bias = m:param("bias", { 1 })
      return function(x) return bad(bias) + row(x).w:sum() end
    end)
    model.on_nan = "skip"
    local it = model:batches(A, { size = 8 })
    assert.is_false(learn(model, it()))
    it:close()
    assert.same({ 0, 0, 0 }, { model.step_number, model.tables[1]:rows(), model.params[1]:weight(1) })
  end)
end)

describe("dense_optim", function()
  it("is of dense weights that name none, optim of all else", function()
    local model = make({ dense_optim = { rule = "ftrl", lr = 0.3 }, optim = { rule = "adam", lr = 0.2 } }, function(m)
      local row = m:table("t", { w = { dim = 1 }, v = { dim = 1, optim = mr.optim.sgd { lr = 0.1 } } })
      local p, q = m:param("p", { 1 }), m:param("q", { 1 }, { optim = mr.optim.lion { lr = 0.4 } })
      return function(x) return row(x).w:sum() + row(x).v:sum() + p + q end
    end)
    local function is(optim, kind, lr)
      assert.equal(kind, optim.kind)
      assert.near(lr, optim.lr, 1e-7)
    end
    is(C.mr_param_optim(model.params[1].c), C.MR_FTRL, 0.3)
    is(C.mr_param_optim(model.params[2].c), C.MR_LION, 0.4)
    is(C.mr_table_optim(model.tables[1].c, 0), C.MR_SGD, 0.1)
    is(C.mr_table_optim(model.tables[1].c, 1), C.MR_ADAM, 0.2)
    model:scale_lr(0.5)
    is(C.mr_table_optim(model.tables[1].c, 0), C.MR_SGD, 0.05)
    is(C.mr_table_optim(model.tables[1].c, 1), C.MR_ADAM, 0.1)
    is(C.mr_param_optim(model.params[2].c), C.MR_LION, 0.2)
  end)

  it("that is given a rate, or a model that is, changes nothing for others", function()
    local shared = mr.optim.adam { lr = 0.25 }
    mr.model("one", function(m)
      local row = m:table("t", { w = { dim = 1 } })
      return function(x) return row(x).w:sum() end
    end, { optim = shared }) { lr = 7, data = data }
    assert.equal(0.25, shared.lr)
  end)
end)

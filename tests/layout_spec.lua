-- A model that changes on an existing store: what exists is kept and matched by name, what is new is
-- initialised, and what would lose something is refused unless it is allowed.
local json = require "dkjson"
local mr = require "moonrock"
local shell = require "tests.support.shell"

describe("a store whose model changes", function()
  local dir = shell.directory()
  local data = shell.write(dir .. "/a.svm", ("1 1:1 2:1\n0 2:1 3:1\n1 1:1 4:1\n0 3:1 5:1\n"):rep(20))
  local number = 0

  -- A model of one table, and of what `more` declares beside it.
  local function definition(columns, more)
    return mr.model("changing", function(m, opt)
      local declared = columns(opt)
      local row = m:table("t", declared)
      local add = more and more(m, opt)
      local bias = not opt.no_bias and m:param("bias", { opt.bias or 1 })
      return function(x)
        local r = row(x)
        local z = r.w:sum()
        if declared.v then z = z + mr.fm(r.v) end
        if bias then z = z + (opt.bias and (bias:sum() or bias) or bias) end
        return add and z + add(x) or z
      end
    end, { optim = mr.optim.adagrad { lr = 0.1 } })
  end

  local function w_only() return { w = { dim = 1, init = mr.init.normal(0.1) } } end
  local function with_v(opt)
    return { w = { dim = 1, init = mr.init.normal(0.1), optim = opt.linear },
      v = { dim = opt.dim or 4, init = mr.init.normal(0.1) } }
  end

  local function open(store, columns, options, more)
    local o = { store = store, data = mr.data { files = data, format = "libsvm" } }
    for name, value in pairs(options or {}) do o[name] = value end
    return definition(columns, more)(o)
  end

  local function train(model, epochs)
    for batch in model:batches(data, { size = 8, epochs = epochs, shuffle = false }) do
      mr.bce(model(batch), batch.label):backward()
      model:step()
    end
    model:commit()
  end

  local function made(columns, options, more)
    number = number + 1
    local store = dir .. "/store" .. number
    local model = open(store, columns, options, more)
    train(model, 1)
    return store, model
  end

  it("begins the state of an optimizer anew that has as many numbers as the one before", function()
    local store, old = made(with_v, { linear = mr.optim.adagrad { lr = 0.1, init = 0.5 } })
    local w, sums = old.tables[1]:peek(1, "w")
    assert.is_true(sums[1] > 0.5)
    old:close()
    local model = open(store, with_v, { linear = mr.optim.lion { lr = 0.01 }, on_notice = function() end })
    assert.same({ w, { 0 } }, { (model.tables[1]:peek(1, "w")), (select(2, model.tables[1]:peek(1, "w"))) })
    model:close()
  end)

  it("keeps its rows when a column is added, which begins fresh", function()
    local store, old = made(w_only)
    local kept = {}
    for key = 1, 5 do kept[key] = { old.tables[1]:peek(key, "w") } end
    old:close()
    local notices = {}
    local model = open(store, with_v, { on_notice = function(text) notices[#notices + 1] = text end })
    assert.matches('column "v" of table "t" is new', table.concat(notices, "\n"))
    local other = open(nil, with_v)
    for key = 1, 5 do
      assert.same(kept[key], { model.tables[1]:peek(key, "w") })
      local v, _, updates = model.tables[1]:peek(key, "v")
      assert.same((other.tables[1]:peek(key, "v")), v)
      assert.equal(0, updates)
    end
    train(model, 2)
    local now = { model.tables[1]:peek(1, "v") }
    assert.is_true(now[3] > 0)
    model:close()
    model = open(store, with_v) -- records of both layouts are read again
    assert.same(now, { model.tables[1]:peek(1, "v") })
    assert.equal(2, model:info().tables[1].layouts)
    model:close()
  end)

  it("reads rows of an old layout that do not fit into memory", function()
    local store, old = made(w_only)
    local w = { old.tables[1]:peek(3, "w") }
    old:close()
    local model = open(store, with_v, { cold = true })
    assert.is_false(model:info().tables[1].resident)
    assert.same(w, { model.tables[1]:peek(3, "w") })
    train(model, 2)
    assert.is_true((select(3, model.tables[1]:peek(3, "v"))) > 0)
    model:close()
  end)

  it("keeps weights when an optimizer changes, and begins its state anew", function()
    local store, old = made(with_v)
    local w, state = old.tables[1]:peek(2, "w")
    local v = { old.tables[1]:peek(2, "v") }
    assert.equal(1, #state)
    old:close()
    local model = open(store, with_v, { linear = mr.optim.adam { lr = 0.01 } })
    local now, fresh, updates = model.tables[1]:peek(2, "w")
    assert.same(w, now)
    assert.same({ 0, 0 }, fresh)
    assert.is_true(updates > 0)
    assert.same(v, { model.tables[1]:peek(2, "v") })
    model:close()
  end)

  it("takes a new table and a new param", function()
    local store, old = made(w_only)
    local w = { old.tables[1]:peek(1, "w") }
    old:close()
    local function more(m)
      local row, scale = m:table("another", { u = { dim = 1 } }), m:param("scale", { 1 }, { init = "ones" })
      return function(x) return row(x).u:sum() * scale end
    end
    local model = open(store, w_only, nil, more)
    assert.same(w, { model.tables[1]:peek(1, "w") })
    assert.equal(1, model.tables[2].id)
    train(model, 2)
    local u = { model.tables[2]:peek(1, "u") }
    model:close()
    model = open(store, w_only, nil, more)
    assert.same(u, { model.tables[2]:peek(1, "u") })
    model:close()
  end)

  local function refused(message, store, columns, options, more)
    local digest = json.decode(select(2, shell.moonrock("info", "--store", store, "--json")) or "") or {}
    local ok, problem = pcall(open, store, columns, options, more)
    assert.is_false(ok)
    assert.matches("going on with this model would lose what the store has: " .. message, problem)
    assert.matches("%-%-allow%-drop$", problem)
    return digest
  end

  it("refuses a column that is gone or has another width, unless it may be dropped", function()
    local store, old = made(with_v)
    local w = { old.tables[1]:peek(1, "w") }
    old:close()
    refused('column "v" of table "t" %(dim 4%)', store, w_only)
    refused('column "v" of table "t" has dim 4 there, 8 in the model', store, with_v, { dim = 8 })
    local model = open(store, with_v, { dim = 8, allow_drop = true })
    assert.same(w, { model.tables[1]:peek(1, "w") })
    local v, _, updates = model.tables[1]:peek(1, "v")
    assert.equal(8, #v)
    assert.equal(0, updates)
    train(model, 2)
    model:close()
    model = open(store, with_v, { dim = 8 })
    assert.is_true((select(3, model.tables[1]:peek(1, "v"))) > 0)
    model:close()
  end)

  it("refuses a table or a param that is gone, unless it may be dropped; then all of it goes", function()
    local function more(m)
      local row = m:table("another", { u = { dim = 1 } })
      return function(x) return row(x).u:sum() end
    end
    local store, old = made(w_only, nil, more)
    old:close()
    refused('table "another"', store, w_only)
    refused('param "bias" %(1%)', store, w_only, { no_bias = true }, more)
    local model = open(store, w_only, { allow_drop = true })
    model:commit()
    model:close()
    local C = require "moonrock.ffi"
    local reader = require("moonrock.store").open(store, "read")
    assert.equal(0, C.mr_store_rows(reader.c, 1))
    assert.is_nil(reader:get "table/another")
    reader:close()
    model = open(store, w_only, nil, more) -- the name is free again, its number is not
    assert.equal(2, model.tables[2].id)
    assert.equal(0, model.tables[2]:rows())
    model:close()
  end)

  it("is told of on the command line", function()
    local store = dir .. "/line"
    local status, _, errors = shell.moonrock("train", "fm", "--data", data, "--store", store, "--set", "dim=4")
    assert.equal(0, status, errors)
    status, _, errors = shell.moonrock("train", "fm", "--data", data, "--store", store, "--set", "dim=8")
    assert.equal(1, status)
    assert.matches('column "v" of table "features" has dim 4 there, 8 in the model', errors)
    status, _, errors = shell.moonrock("train", "fm", "--data", data, "--store", store, "--set", "dim=8",
      "--epochs", "2", "--allow-drop")
    assert.equal(0, status, errors)
    assert.matches("dropped: column", errors)
    local _, out = shell.moonrock("info", "--store", store, "--json")
    assert.equal(2, json.decode(out).tables[1].layouts)
    assert.matches("v dim 8", json.decode(out).tables[1].columns)
  end)
end)

-- Columns in half precision: what they hold, what they cost, and that everything a table does it does with
-- them too.
local mr = require "moonrock"
local batches = require "tests.support.batches"
local random = require "tests.support.random"
local refused = require "tests.support.refused"
local shell = require "tests.support.shell"

local KEYS = 60

-- Whether a number has eight binary digits at most.
local function is_half(x) return math.frexp(x) * 256 % 1 == 0 end

-- An FM whose vectors are in half precision, and w too unless it is given another one.
local function make(rule, o)
  o = o or {}
  return mr.model("fm", function(m)
    local row = m:table("t", {
      w = { dim = 1, init = mr.init.normal(0.1), precision = o.w or "bf16" },
      v = { dim = o.dim or 20, init = mr.init.normal(0.1), precision = o.v or "bf16", admit = o.admit },
    }, o.table)
    return function(x)
      local r = row(x)
      return r.w:sum() + mr.fm(r.v)
    end
  end, { optim = rule, loss = "bce" })
end

local function learn(model, from, to, keys)
  for step = from, to do
    local draw, samples = random(step * 7919 + 1), {}
    for s = 1, 8 do
      samples[s] = {}
      for e = 1, 4 do samples[s][e] = { math.floor(draw() ^ 3 * (keys or KEYS)) } end
    end
    local batch = batches.build(samples, { fields = 4 })
    mr.bce(model(batch), batch.label):backward()
    model:step()
  end
end

-- "weights", "state": whether all numbers of a column are halves, of the keys that were updated.
local function halves(model, column)
  local all = { true, true }
  for key = 0, KEYS - 1 do
    local weights, state, updates = model.tables[1]:peek(key, column)
    for i, list in ipairs { weights, state } do
      for _, x in ipairs(updates > 0 and list or {}) do all[i] = all[i] and is_half(x) end
    end
  end
  return all[1], all[2]
end

local rule = mr.optim
local RULES = {
  sgd = { rule.sgd { lr = 0.1 }, true },
  momentum = { rule.sgd { lr = 0.1, momentum = 0.9 }, true },
  adagrad = { rule.adagrad { lr = 0.1 }, true },
  adam = { rule.adam { lr = 0.01 }, true },
  ["adam, l2 of the table"] = { rule.adam { lr = 0.01, l2 = 0.01, l2_scope = "table" }, idle = true },
  ["sgd, l2 of the table"] = { rule.sgd { lr = 0.1, l2 = 0.01, l2_scope = "table" }, idle = true },
  ftrl = { rule.ftrl { lr = 0.1 }, true },
  rmsprop = { rule.rmsprop { lr = 0.01 }, true },
  lion = { rule.lion { lr = 0.01 }, true },
  amsgrad = { rule.amsgrad { lr = 0.01 }, false },
  row_adagrad = { rule.row_adagrad { lr = 0.1 }, false },
  ["adagrad in Lua"] = { mr.optimizer {
    name = "my_adagrad", state = 1, init = 0.1, lr = 0.1, settings = { eps = 1e-10 },
    update = function(w, g, sum, n, _, o)
      for i = 0, n - 1 do
        sum[i] = sum[i] + g[i] * g[i]
        w[i] = w[i] - o.lr * g[i] / (math.sqrt(sum[i]) + o.eps)
      end
    end,
  }, false },
}

describe("columns in half precision", function()
  it("are on the mean what floats would be, where each step is less than half of the last digit", function()
    local n, steps, move = 2000, 100, 1e-4
    local model = mr.model("sum", function(m)
      local row = m:table("t", { w = { dim = 1, init = mr.init.constant(1), precision = "bf16" } })
      return function(x) return row(x).w:sum() end
    end, { optim = rule.sgd { lr = n * move } }) {}
    local samples = {}
    for key = 1, n do samples[key] = { { key } } end
    local batch = batches.build(samples, { fields = 1 })
    for _ = 1, steps do
      model(batch):mean():backward()
      model:step()
    end
    local sum, squares, different = 0, 0, {}
    for key = 1, n do
      local w = model.tables[1]:peek(key, "w")[1]
      assert.is_true(is_half(w))
      different[w] = true
      sum, squares = sum + w, squares + (w - 0.99) ^ 2
    end
    -- a step goes down by 1/256 with a chance of 256 move: the deviation of a weight is 0.0062
    assert.near(1 - steps * move, sum / n, 5 * 0.0062 / math.sqrt(n))
    assert.near(0.0062, math.sqrt(squares / n), 0.0006)
    assert.is_true(next(different, next(different)) ~= nil)
    model:close()
  end)

  for name, case in pairs(RULES) do
    it("hold halves, and train as floats do: " .. name, function()
      local half = make(case[1]) {}
      local float = make(case[1], { w = "float32", v = "float32" }) {}
      learn(half, 1, 150)
      learn(float, 1, 150)
      for _, column in ipairs { "w", "v" } do
        local weights, state = halves(half, column)
        assert.equal(not case.idle, weights) -- what is replayed for a lookup is not rounded
        if not case.idle then assert.equal(case[2], state) end
        local far, size = 0, 0
        for key = 0, KEYS - 1 do
          local a, _, n = half.tables[1]:peek(key, column)
          local b, _, m = float.tables[1]:peek(key, column)
          assert.equal(m, n)
          for k = 1, n > 0 and #a or 0 do
            far, size = far + (a[k] - b[k]) ^ 2, size + b[k] ^ 2
          end
        end
        assert.is_true(math.sqrt(far / size) < 0.15, column .. ": " .. math.sqrt(far / size))
      end
      half:close()
      float:close()
    end)

    it("are resumed to the bit, at any number of threads and budget: " .. name, function()
      local dir, number = shell.directory(), 0
      local function digest(options, stops)
        local from, hex = 1, nil
        number = number + 1
        for _, to in ipairs(stops) do
          options.store = dir .. "/" .. number
          local model = make(case[1]) (options)
          learn(model, from, to)
          model:commit()
          from, hex = to + 1, model:info().digest
          model:close()
        end
        return hex
      end
      local whole = digest({ threads = 2, commit_every = 1000 }, { 120 })
      assert.equal(whole, digest({ threads = 1, commit_every = 7 }, { 120 }))
      assert.equal(whole, digest({ cold = true, commit_every = 9 }, { 120 }))
      assert.equal(whole, digest({ commit_every = 1000 }, { 30, 31, 120 }))
    end)
  end

  it("are rounded each by a draw of its own, within a row too", function()
    local model = mr.model("draws", function(m)
      local row = m:table("t", { v = { dim = 64, init = mr.init.constant(1), precision = "bf16" } })
      return function(x) return row(x).v:sum():sum(2, true) end
    end, { optim = mr.optim.sgd { lr = 2 ^ -9 } }) {} -- half of a step of bf16 below 1
    local up = 0
    for key = 1, 20 do
      model(batches.build({ { { key } } }, { fields = 1 })):sum():backward()
      model:step()
      local row, of_row = model.tables[1]:peek(key, "v"), 0
      for k = 1, 64 do of_row = of_row + (row[k] == 1 and 1 or 0) end
      assert.is_true(of_row > 8 and of_row < 56, of_row .. " of 64 are rounded up") -- six deviations
      up = up + of_row
    end
    assert.near(640, up, 90)
    model:close()
  end)

  it("show a key before its first update as it will begin", function()
    local model = make(rule.adagrad { lr = 0.1 }) {}
    local batch = batches.build({ { { 1 }, { 2 } } }, { fields = 2 })
    model:eval()
    local before = model(batch):get(1)
    local w = model.tables[1]:peek(1, "v")
    model:train()
    assert.equal(before, model(batch):get(1))
    for k = 1, 20 do assert.is_true(is_half(w[k])) end
    model:close()
  end)

  it("are admitted as others are", function()
    local count = { admission = { count = 3 } }
    local half = make(rule.adagrad { lr = 0.1 }, { table = count }) {}
    local float = make(rule.adagrad { lr = 0.1 }, { table = count, w = "float32", v = "float32" }) {}
    learn(half, 1, 10)
    learn(float, 1, 10)
    local some = { 0, 0 }
    for key = 0, KEYS - 1 do
      local a, _, n = half.tables[1]:peek(key, "v")
      local b, _, m = float.tables[1]:peek(key, "v")
      assert.equal(m, n)
      if n == 0 then assert.same(b, a) end
      some[n == 0 and 1 or 2] = some[n == 0 and 1 or 2] + 1
    end
    assert.is_true(some[1] > 0 and some[2] > 0)
    assert.equal(float.tables[1]:rows(), half.tables[1]:rows())
    half:close()
    float:close()
  end)

  for precision, other in pairs { bf16 = "float32", float32 = "bf16" } do
    it("begin as they should when the second lookup of a step admits them: " .. precision, function()
      local seen = {}
      for i, own in ipairs { precision, other } do
        local model = make(rule.adagrad { lr = 0.01, l2 = i == 1 and 1e-9 or 0, l2_scope = "table" },
          { w = own, v = own, table = { admission = { count = 3 } } }) {}
        local batch = batches.build({ { { 1 }, { 2 } }, { { 1 }, { 3 } } }, { fields = 2 })
        for lookups = 1, 2 do
          for _ = 1, lookups do mr.bce(model(batch), batch.label):backward() end
          model:step()
        end
        local v, _, updates = model.tables[1]:peek(1, "v")
        assert.equal(1, updates)
        seen[i] = v
        model:close()
      end
      for k = 1, 20 do assert.near(seen[1][k], seen[2][k], 0.015) end
    end)
  end

  it("take half the room in the store", function()
    local dir, size = shell.directory(), {}
    for i, precision in ipairs { "float32", "bf16" } do
      local model = make(rule.adagrad { lr = 0.1 }, { w = precision, v = precision, dim = 64 }) {
        store = dir .. "/" .. precision }
      learn(model, 1, 200, 1e6)
      model:commit()
      model:close()
      local status, _, errors = shell.moonrock("export", "--store", dir .. "/" .. precision,
        "--out", dir .. "/" .. i, "--format", "bin")
      assert.equal(0, status, errors)
      local _, bytes = shell.run(("du -sb %s/%d | cut -f1"):format(dir, i))
      size[i] = tonumber(bytes)
    end
    assert.is_true(size[2] < 0.55 * size[1], size[2] .. " of " .. size[1])
  end)

  it("come back whole from every format of export", function()
    local dir = shell.directory()
    local store = dir .. "/store"
    local definition = dofile(shell.write(dir .. "/fm.lua", [[
      local mr = require "moonrock"
      return mr.model("fm", function(m)
        local row = m:table("t", {
          w = { dim = 1, init = mr.init.normal(0.1) },
          v = { dim = 20, init = mr.init.normal(0.1), precision = "bf16" },
        })
        return function(x)
          local r = row(x)
          return r.w:sum() + mr.fm(r.v)
        end
      end, { optim = mr.optim.adam { lr = 0.01 } })]]))
    local model = definition { store = store }
    learn(model, 1, 60)
    model:commit()
    local want = {}
    for key = 0, KEYS - 1 do want[key] = { model.tables[1]:peek(key, "v") } end
    model:close()
    for _, format in ipairs { "tsv", "npy", "bin" } do
      local out, copy = dir .. "/" .. format, dir .. "/copy-" .. format
      local status, _, errors = shell.moonrock("export", "--store", store, "--out", out, "--format", format)
      assert.equal(0, status, errors)
      if format == "bin" then
        status, _, errors = shell.moonrock("import", "--store", copy, out)
      else
        local empty = definition { store = copy }
        empty:commit()
        empty:close()
        status, _, errors = shell.moonrock("import", "--store", copy, "--format", format, out)
      end
      assert.equal(0, status, errors)
      local other = definition { store = copy }
      for key = 0, KEYS - 1 do
        assert.same(want[key], { other.tables[1]:peek(key, "v") }, format)
      end
      other:close()
    end
  end)

  it("are taken from floats and back, with a notice", function()
    local store = shell.directory() .. "/store"
    local adagrad, adam = rule.adagrad { lr = 0.1 }, rule.adam { lr = 0.01 }
    local notices = {}
    local function open(rule_of, precision)
      notices = {}
      return make(rule_of, { v = precision, w = precision }) { store = store,
        on_notice = function(text) notices[#notices + 1] = text end }
    end
    local function peek(model)
      local all = {}
      for key = 0, KEYS - 1 do all[key] = { model.tables[1]:peek(key, "v") } end
      return all
    end
    local model = open(adagrad, "float32")
    learn(model, 1, 40)
    model:commit()
    local before = peek(model)
    model:close()
    model = open(adagrad, "bf16")
    local said = table.concat(notices)
    assert.truthy(said:find('column "v" of table "t" is in float32 there, in bf16 from now on', 1, true), said)
    local now = peek(model)
    for key = 0, KEYS - 1 do
      assert.equal(before[key][3], now[key][3])
      for k = 1, 20 do
        assert.is_true(is_half(now[key][1][k]))
        assert.near(before[key][1][k], now[key][1][k], math.abs(before[key][1][k]) / 256)
      end
    end
    learn(model, 41, 60)
    model:commit()
    now = peek(model)
    model:close()
    model = open(adam, "bf16") -- the state begins anew, some rows are still in the first layout
    local begun = peek(model)
    for key = 0, KEYS - 1 do
      assert.same(now[key][1], begun[key][1])
      for _, x in ipairs(begun[key][2]) do assert.equal(0, x) end
    end
    learn(model, 61, 80)
    model:commit()
    now = peek(model)
    model:close()
    model = open(adam, "float32")
    assert.same(now, peek(model))
    learn(model, 81, 100)
    assert.is_false((halves(model, "v")))
    model:close()
  end)

  it("are an option of the program, which the store keeps", function()
    local dir = shell.directory()
    local data = shell.write(dir .. "/a.svm", ("1 1:1 2:1\n0 2:1 3:1\n1 1:1 4:1\n0 3:1 5:1\n"):rep(200))
    for _, more in ipairs { { "--precision", "bf16" }, {} } do
      local status, out, errors = shell.moonrock("train", "fm", "--data", data, "--store", dir .. "/store",
        unpack(more))
      assert.equal(0, status, out .. errors)
    end
    local _, out = shell.moonrock("info", "--store", dir .. "/store", "--json")
    local columns = require "dkjson".decode(out).tables[1].columns
    assert.truthy(columns:find "v dim %d+ bf16 optimizer %S+ state %d+ bf16", columns)
  end)

  it("refuse what they cannot be", function()
    refused(function() make(rule.sgd {}, { v = "fp8" }) {} end,
      'table "t": column "v" has precision "fp8", expected "bf16" or "float32"')
    refused(function() make(rule.sgd {}, { dim = 4097 }) {} end,
      "table t, column v: dim is 4097, expected at most 4096 in bf16")
  end)
end)

-- Tables: any key, fresh rows, one update a key and step.
local mr = require "moonrock"
local batches = require "tests.support.batches"
local raises = require "tests.support.raises"

local function write(lines)
  local path = os.tmpname() .. ".svm"
  local f = assert(io.open(path, "w"))
  f:write(table.concat(lines, "\n"), "\n")
  f:close()
  return path
end

local linear = mr.model("linear", function(m)
  local row = m:table("t", { w = { dim = 1, init = mr.init.normal(0.1) } })
  return function(x) return row(x).w:sum() end
end, { optim = mr.optim.adagrad { lr = 0.1 } })

local function model_of(path, options)
  options = options or {}
  options.data = mr.data { files = path, format = "libsvm" }
  return linear(options)
end

local function each_batch(model, path, work, size)
  for batch in model:batches(path, { size = size or 2, epochs = 1, shuffle = false }) do work(batch) end
end

describe("a table", function()
  it("takes every 64-bit key, 0 and 2^64 - 1 included", function()
    local path = write { "1 0:1 18446744073709551615:1", "0 1:1 9223372036854775808:1" }
    local model = model_of(path)
    each_batch(model, path, function(batch)
      mr.bce(model(batch), batch.label):backward()
      model:step()
    end)
    assert.equal(4, model.tables[1]:rows())
    for _, key in ipairs { 0ULL, 18446744073709551615ULL, 1ULL, 9223372036854775808ULL } do
      local _, _, updates = model.tables[1]:peek(key, "w")
      assert.equal(1, updates)
    end
    model:close()
  end)

  it("gives an unseen key the same fresh row in every run, whatever was looked up before", function()
    local path = write { "1 5:1", "0 6:1" }
    local a, b = model_of(path), model_of(path)
    each_batch(a, path, function(batch)
      mr.bce(a(batch), batch.label):backward()
      a:step()
    end)
    assert.same({ a.tables[1]:peek(77, "w") }, { b.tables[1]:peek(77, "w") })
    local other = model_of(path, { seed = 7 })
    assert.not_same({ a.tables[1]:peek(77, "w") }, { other.tables[1]:peek(77, "w") })
    a:close() b:close() other:close()
  end)

  it("creates no row when evaluating, and scores with the fresh ones", function()
    local path = write { "1 5:1", "0 6:1 6:1" }
    local model = model_of(path)
    model:eval()
    each_batch(model, path, function(batch)
      local w5, w6 = model.tables[1]:peek(5, "w")[1], model.tables[1]:peek(6, "w")[1]
      local logits = model(batch)
      assert.near(w5, logits:get(1), 1e-7)
      assert.near(2 * w6, logits:get(2), 1e-7)
    end)
    assert.equal(0, model.tables[1]:rows())
    model:close()
  end)

  it("sums the gradients of a key that occurs twice, and of two lookups, into one update", function()
    local path = write { "1 5:1 5:1", "1 5:1" }
    local twice = mr.model("twice", function(m)
      local row = m:table("t", { w = { dim = 1 } })
      return function(x) return row(x).w:sum() + row(x).w:sum() end
    end, { optim = mr.optim.adagrad { lr = 0.1, init = 0 } })
    local model = twice { data = mr.data { files = path, format = "libsvm" } }
    each_batch(model, path, function(batch)
      mr.bce(model(batch), batch.label):backward()
      model:step()
    end)
    local w, state, updates = model.tables[1]:peek(5, "w")
    assert.equal(1, updates)
    -- dz/dw is 4 and 2 for the two samples, dL/dz (1/2 - 1) / 2 each: g = -1.5
    assert.near(2.25, state[1], 1e-6)
    assert.near(0.1, w[1], 1e-6)
    model:close()
  end)

  it("leaves a column alone that got no gradient, while others of its row are updated", function()
    local path = write { "1 5:1", "0 6:1" }
    local half = mr.model("half", function(m)
      local row = m:table("t", {
        a = { dim = 1, init = mr.init.normal(0.1) }, b = { dim = 1, init = mr.init.normal(0.1) },
      })
      return function(x)
        local r = row(x)
        local z = r.a:sum()
        if m.with_b then z = z + row(x).b:sum() end
        return z
      end
    end, { optim = mr.optim.adam { lr = 0.1 } })
    local model = half { data = mr.data { files = path, format = "libsvm" } }
    local fresh = model.tables[1]:peek(5, "b")
    local function step()
      each_batch(model, path, function(batch)
        mr.bce(model(batch), batch.label):backward()
        model:step()
      end)
      model.position.epoch, model.position.sample = 0, 0
    end
    model.with_b = true
    step()
    local b, _, updates = model.tables[1]:peek(5, "b")
    assert.equal(1, updates)
    assert.not_same(fresh, b)
    model.with_b = false
    step()
    local later, _, still = model.tables[1]:peek(5, "b")
    assert.equal(1, still)
    assert.same(b, later) -- Adam's momentum would have moved it
    assert.equal(2, (select(3, model.tables[1]:peek(5, "a"))))
    model:close()
  end)

  it("counts updates by column", function()
    local function b_of(with_a)
      local of_a
      local model = mr.model("counted", function(m)
        local row = m:table("t", { a = { dim = 1 }, b = { dim = 1, init = mr.init.normal(0.1) } })
        return function(x) return of_a and row(x).a:sum() or row(x).b:sum() end
      end, { optim = mr.optim.adam { lr = 0.1 } }) {}
      for step = 1, 6 do
        of_a = step % 2 == 1
        if with_a or not of_a then
          model(batches.build({ { { 1 } } }, { fields = 1 })):sum():backward()
          model:step()
        end
      end
      local w, _, count = model.tables[1]:peek(1, "b")
      model:close()
      return { w[1], count }
    end
    assert.same(b_of(false), b_of(true))
  end)

  it("refuses a column without a width, and a name that is taken", function()
    local function score(x) return x.label end
    local bad = mr.model("bad", function(m)
      m:table("t", { w = {} })
      return score
    end)
    raises('table "t": column "w" has dim nil, expected a whole number from 1 to 65535', bad, {})
    local taken = mr.model("taken", function(m)
      m:table("t", { w = { dim = 1 } })
      m:table("t", { w = { dim = 1 } })
      return score
    end)
    raises('model taken: the name "t" is taken', taken, {})
  end)
end)

-- Models and their store: what a commit holds, and what becomes of one that fails.
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
  }

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
      -- The first loss is about that of no knowledge, ln 2; the rows are seen twelve times.
      assert.is_true(last < 0.92 * first, ("loss %g after %g"):format(last, first))
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

-- Models and their store: what a commit holds, and what becomes of one that fails.
local mr = require "moonrock"
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

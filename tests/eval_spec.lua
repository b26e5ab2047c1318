-- eval as a user meets it: metrics that are asked for, and those that are not defined.
local json = require "dkjson"
local shell = require "tests.support.shell"

local moonrock, write = shell.moonrock, shell.write
local dir = shell.directory()

local lines = {}
for i = 1, 60 do lines[i] = ("%d 0:%d:1 1:%d:1"):format(i % 2, i % 3 + 5, 10 + i % 7) end
local DATA = write(dir .. "/a.ffm", table.concat(lines, "\n") .. "\n")
local ONES = write(dir .. "/ones.ffm", "1 0:5:1 1:11:1\n1 0:6:1 1:12:1\n")
local STORE, VALUES = dir .. "/store", dir .. "/values"

setup(function()
  for store, loss in pairs { [STORE] = "bce", [VALUES] = "mse" } do
    local status, _, errors = moonrock("train", "lr", "--data", DATA, "--fields", "2", "--store", store,
      "--loss", loss)
    assert.equal(0, status, errors)
  end
end)

local function eval(store, ...) return moonrock("eval", "--store", store, "--data", ...) end

describe("eval --metrics", function()
  it("of ranks needs a group", function()
    for _, name in ipairs { "gauc", "ndcg", "precision", "recall", "hit_rate", "map", "mrr" } do
      for _, list in ipairs { name, "auc," .. name } do
        local status, out, errors = eval(STORE, DATA, "--metrics", list)
        assert.equal(2, status)
        assert.equal("", out)
        assert.equal(("moonrock: --metrics %s: needs --group FIELD\n"):format(name), errors)
      end
      local status, out, errors = eval(STORE, DATA, "--metrics", name, "--group", "1")
      assert.equal(0, status, errors)
      assert.truthy(out:find(name .. " 0%.%d%d%d%d") or out:find(name .. " 1%.0000"), out)
    end
    local status, _, errors = eval(STORE, DATA, "--k", "5")
    assert.equal(2, status)
    assert.equal("moonrock: --k 5: needs --group FIELD\n", errors)
  end)

  it("that is unknown, or not of the model's scores, is wrong usage", function()
    local status, _, errors = eval(STORE, DATA, "--metrics", "acu")
    assert.equal(2, status)
    assert.truthy(errors:find("did you mean auc?", 1, true), errors)
    status, _, errors = eval(VALUES, DATA, "--metrics", "auc")
    assert.equal(2, status)
    assert.truthy(errors:find("--metrics auc: model lr has the loss mse; it has rmse, mae", 1, true), errors)
  end)

  it("that is not defined says so", function()
    local status, out, errors = eval(STORE, ONES)
    assert.equal(0, status, errors)
    assert.truthy(out:find("auc undefined", 1, true), out)
    status, out, errors = eval(STORE, ONES, "--metrics", "gauc,logloss", "--group", "1")
    assert.equal(0, status, errors)
    assert.matches("gauc undefined .-  logloss %d", out)
  end)

  it("of slices go by the numbers of the data", function()
    local status, out, errors = eval(STORE, DATA, "--slice", "1", "--json")
    assert.equal(0, status, errors)
    local values = {}
    for i, slice in ipairs(json.decode(out).test.slices) do values[i] = slice.value end
    table.sort(values)
    assert.same({ "5", "6", "7" }, values)
  end)
end)

-- Tables whose names begin alike, or are long, keep their records apart.
local mr = require "moonrock"
local shell = require "tests.support.shell"

local dir = shell.directory()
local DATA = shell.write(dir .. "/a.libsvm", ("1 7:1\n"):rep(40))

-- Models of tables with these names, whose keys get a row at the fourth sighting.
local function open(store, names, options)
  local model = mr.model("names", function(m)
    local tables = {}
    for i, name in ipairs(names) do tables[i] = m:table(name, { w = { dim = 1 } }, { admission = { count = 4 } }) end
    return function(x)
      local sum = tables[1](x).w:sum()
      for i = 2, #tables do sum = sum + tables[i](x).w:sum() end
      return sum
    end
  end)
  options = options or {}
  options.store, options.data = store, mr.data { files = DATA }
  return model(options)
end

local function steps(model, n)
  local batches = mr.data { files = DATA }:batches(nil, { size = 1 })
  for _ = 1, n do
    local batch = batches()
    mr.bce(model(batch), batch.label):backward()
    model:step()
  end
  batches:close()
end

local function rows(model)
  local list = {}
  for _, t in ipairs(model.tables) do list[t.name] = t:rows() end
  return list
end

describe("Tables of names that begin alike", function()
  for _, other in ipairs { "a/b", "a/0", "a/00000000", "a0" } do
    it(("count the sightings of their own keys: a, %s"):format(other), function()
      local store = ("%s/%s"):format(dir, other:gsub("/", "_"))
      local both = open(store, { "a", other })
      steps(both, 2)
      both:commit()
      both:close()
      local one = open(store, { other }, { allow_drop = true, on_notice = function() end })
      steps(one, 1)
      assert.same({ [other] = 0 }, rows(one)) -- two sightings of before, and this one
      steps(one, 1)
      assert.same({ [other] = 1 }, rows(one))
      one:commit()
      one:close()
      local again = open(store, { "a", other }, { on_notice = function() end })
      steps(again, 3)
      assert.same({ a = 0, [other] = 1 }, rows(again)) -- a begins anew
      steps(again, 1)
      assert.same({ a = 1, [other] = 1 }, rows(again))
      again:close()
    end)
  end

  it("are not taken for one where they are longer than the names of records", function()
    local long = ("x"):rep(200)
    local model = open(dir .. "/long", { long })
    assert.has_error(function() open(dir .. "/longer", { long .. "y", long .. "z" }) end,
      ("model names: table %s...: its name has 201 bytes, expected 1 to 200"):format(("x"):rep(40)))
    model:close()
  end)

  it("have columns that are no part of a name", function()
    assert.has_error(function()
      mr.model("parts", function(m) m:table("a", { ["b/w"] = { dim = 1 } }) end) {}
    end, 'model parts: table "a": column "b/w" has a / in its name, which parts the names of records')
  end)
end)

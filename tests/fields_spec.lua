-- The number of fields of a sample, for models that need it: counted where the data names its fields.
local shell = require "tests.support.shell"

local moonrock, run, write = shell.moonrock, shell.run, shell.write
local dir = shell.directory()

local function data(name, fields)
  local lines = {}
  for i = 1, 40 do
    lines[i] = ("%d 0:%d:1 %d:%d:1"):format(i % 2, i % 5, i == 33 and fields - 1 or 1, 10 + i % 3)
  end
  return write(dir .. "/" .. name, table.concat(lines, "\n") .. "\n")
end

describe("the fields of libffm", function()
  it("are counted in files, and the store keeps their number", function()
    local file, store = data("a.ffm", 4), dir .. "/store"
    local status, _, errors = moonrock("train", "ffm", "--data", file, "--store", store)
    assert.equal(0, status, errors)
    local told = select(2, moonrock("info", "--store", store))
    assert.truthy(told:find("v dim 16", 1, true), told) -- four fields of vectors of four
    for _, name in ipairs { "eval", "predict" } do
      status, _, errors = moonrock(name, "--store", store, "--data", data("b.ffm", 2))
      assert.equal(0, status, errors)
    end
    status, _, errors = moonrock("train", "ffm", "--data", data("b.ffm", 2), "--store", store)
    assert.equal(0, status, errors)
    status, _, errors = moonrock("train", "ffm", "--data", data("c.ffm", 9), "--store", store,
      "--epochs", "9")
    assert.equal(1, status)
    assert.truthy(errors:find("c.ffm:33: expected a field below 4, found 8", 1, true), errors)
    assert.equal(0, (moonrock("train", "ffm", "--data", file, "--store", dir .. "/given", "--fields", "7")))
    told = select(2, moonrock("info", "--store", dir .. "/given"))
    assert.truthy(told:find("v dim 28", 1, true), told)
  end)

  it("are asked for where they cannot be counted", function()
    local status, _, errors = run(("cat %s | %s train ffm --data - --store %s/pipe"):format(data("a.ffm", 4),
      shell.quote(shell.program), dir))
    assert.equal(1, status)
    assert.truthy(errors:find("--fields", 1, true), errors)
    local svm = write(dir .. "/a.svm", "1 1:1 2:1\n0 2:1 3:1\n")
    status, _, errors = moonrock("train", "ffm", "--data", svm, "--store", dir .. "/svm")
    assert.equal(1, status)
    assert.truthy(errors:find("--fields", 1, true), errors)
  end)
end)

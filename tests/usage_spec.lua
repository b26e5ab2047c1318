-- Wrong usage, as it happens: values that an option cannot have, options given twice, words for help. Each
-- is told in a line that names the option, before anything is read or made.
local shell = require "tests.support.shell"

local moonrock, write = shell.moonrock, shell.write
local dir = shell.directory()
local DATA = write(dir .. "/a.csv", "y,c,n\n1,u,2\n0,v,3\n1,u,1\n")
local SCHEMA = write(dir .. "/s.lua", 'local mr = require "moonrock"\nreturn mr.schema { name = "s", label = "y", '
  .. 'fields = { mr.category "c", mr.bucket("n", { edges = { 2 } }) } }\n')
local STORE = dir .. "/store"

local function train(store, ...)
  return moonrock("train", "lr", "--schema", SCHEMA, "--data", DATA, "--store", store, ...)
end

setup(function()
  local status, _, errors = train(STORE)
  assert.equal(0, status, errors)
end)

local function eval(...) return moonrock("eval", "--store", STORE, "--data", DATA, ...) end

-- Wrong usage of an option, told with a text.
local function wrong(option, value, text)
  local status, out, errors = eval(option, value)
  assert.same({ 2, "" }, { status, out }, errors)
  assert.truthy(errors:find("moonrock: " .. option .. ": ", 1, true), errors)
  assert.truthy(errors:find(text, 1, true), errors)
end

describe("an option", function()
  it("with more than it can be is wrong usage, and shows what was given", function()
    wrong("--batch", "99999999999", "'99999999999' is no whole number from 1 to 16777216")
    wrong("--threads", "1000000000000", "'1000000000000' is no whole number from 1 to 256")
    wrong("--k", "1000000000000", "'1000000000000' is no whole number from 1 to 2147483647")
    wrong("--batch", "inf", "'inf' is no whole number")
    wrong("--batch", "nan", "'nan' is no whole number")
  end)

  it("that names metrics names some, each once", function()
    wrong("--metrics", "", "'' names none of logloss, ")
    wrong("--metrics", ",", "',' names none of logloss, ")
    wrong("--metrics", "auk", "did you mean auc?")
    local _, out = eval("--metrics", "auc, logloss,auc")
    assert.truthy(out:find "rows  auc %S+  logloss %S+\n", out)
  end)

  it("that names a field takes its name or its number from 1", function()
    for _, text in ipairs { "0", "-1", "1.5", "", "=u" } do
      wrong("--group", text, "is no field, by its name or its number from 1")
      wrong("--slice", text, "is no field, by its name or its number from 1")
    end
    wrong("--slice", "c=", "'c=' names no values, as country=US,DE does")
  end)

  it("given twice counts the last time, and that is said", function()
    local status, out, errors = eval("--batch", "2", "--batch", "3")
    assert.equal(0, status, errors)
    assert.truthy(out:find "test +3 rows")
    assert.equal("moonrock: --batch is given more than once; the last counts: 3\n", errors)
    assert.equal("", (select(3, eval("--batch", "3", "--batch", "3"))))
    assert.equal("", (select(3, eval("--data", DATA, "--batch", "3"))))
  end)

  it("of the runtime is taken by --set as by its own name", function()
    for text, problem in pairs { ["seed=x"] = "'x' is no whole number from 0",
      ["threads=0"] = "'0' is no whole number from 1 to 256", ["memory=abc"] = "'abc' is no size",
      ["commit_every=0"] = "'0' is no whole number from 1", ["allow_drop=maybe"] = "expected true or false" } do
      local status, _, errors = train(dir .. "/wrong", "--set", text)
      assert.equal(2, status, errors)
      assert.truthy(errors:find("moonrock: --set " .. text .. ": " .. problem, 1, true), errors)
      assert.is_nil(shell.read(dir .. "/wrong/COMMIT"))
    end
    local status, _, errors = train(dir .. "/set", "--set", "seed=7", "--set", "threads=1", "--set", "memory=200MB")
    assert.same({ 0, "" }, { status, errors })
    local function digest(store) return select(2, moonrock("info", "--store", store, "--json")):match '"digest":"(%x+)"' end
    train(dir .. "/named", "--seed", "7")
    assert.equal(digest(dir .. "/named"), digest(dir .. "/set"))
  end)
end)

describe("values of --slice", function()
  it("that no sample has are named", function()
    local status, out, errors = eval("--slice", "c=u,w,x")
    assert.equal(0, status)
    assert.truthy(out:find("\n  u ", 1, true))
    assert.equal("moonrock: --slice c: no samples of w, x\n", errors)
  end)
end)

describe("moonrock help", function()
  it("explains the command that it is asked for", function()
    local _, of_command = moonrock("eval", "--help")
    assert.equal(of_command, (select(2, moonrock("help", "eval"))))
    assert.truthy(select(2, moonrock("help")):find("Commands:", 1, true))
  end)
end)

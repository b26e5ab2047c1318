-- Whose code a store holds: its user's, a shipped model's, or another's, which runs only when it is told to.
local json = require "dkjson"
local mr = require "moonrock"
local raises = require "tests.support.raises"
local shell = require "tests.support.shell"
local Store = require "moonrock.store"

local quote, run = shell.quote, shell.run
local dir = shell.directory()
local program = quote(shell.program)

local MODEL = [[
local mr = require "moonrock"
return mr.model("own", function(m, opt)
  local row = m:table("features", { w = { dim = 1 } })
  local bias = m:param("bias", { 1 })
  return function(x) return bias + row(x).w:sum() end
end)
]]

local data, file, store

-- As another user or machine: another configuration directory.
local function other(...) return run(("MOONROCK_CONFIG=%s/other %s %s"):format(dir, program, table.concat({ ... }, " "))) end
local function own(...) return run(("MOONROCK_CONFIG=%s/own %s %s"):format(dir, program, table.concat({ ... }, " "))) end

local function kept_of(path)
  local s = Store.open(path, "read")
  local kept = json.decode(s:get "model")
  s:close()
  return kept
end

local function change(path, edit)
  local s = Store.open(path, "write")
  local kept = json.decode(s:get "model")
  edit(kept)
  local step = s:info().commit.step
  s:begin()
  s:put("model", Store.encode(kept))
  s:finish(step)
  s:close()
end

describe("trust", function()
  setup(function()
    data = shell.write(dir .. "/a.svm", ("1 1:1 2:1\n0 2:1 3:1\n"):rep(50))
    file, store = shell.write(dir .. "/own.lua", MODEL), dir .. "/store"
    local status, _, errors = own("train", file, "--data", data, "--store", store)
    assert.equal(0, status, errors)
  end)

  it("a key is made at first use, for its user alone", function()
    local status, mode = run(("stat -c '%%a %%s' %s/own/key"):format(dir))
    assert.same({ 0, "600 32\n" }, { status, mode })
  end)

  it("a store of one's own is opened, and a copy of it, however it was made", function()
    own("checkpoint", "--store", store, "--out", dir .. "/copy")
    own("export", "--store", store, "--out", dir .. "/full.bin")
    own("import", "--store", dir .. "/imported", dir .. "/full.bin")
    run(("cp -r %s %s/cp"):format(store, dir))
    for _, path in ipairs { store, dir .. "/copy", dir .. "/imported", dir .. "/cp" } do
      local status, out, errors = own("eval", "--store", path, "--data", data)
      assert.equal(0, status, errors)
      assert.truthy(out:find "100 rows", out)
    end
  end)

  it("another's store is refused by a line that says what to do", function()
    for _, command in ipairs { "eval", "predict" } do
      local status, _, errors = other(command, "--store", store, "--data", data)
      assert.equal(1, status)
      assert.truthy(errors:find("moonrock show --store " .. store .. " --source", 1, true), errors)
      assert.truthy(errors:find("--trust", 1, true) and errors:find("moonrock trust " .. store, 1, true), errors)
    end
  end)

  it("it is opened by --trust, this once, and with a model file of one's own", function()
    local status, out, errors = other("eval", "--store", store, "--data", data, "--trust")
    assert.equal(0, status, errors)
    local again, same, problem = other("eval", file, "--store", store, "--data", data)
    assert.equal(0, again, problem)
    assert.equal(out, same)
    assert.equal(1, (other("eval", "--store", store, "--data", data)))
  end)

  it("what needs no code of it works: info, verify, export, checkpoint, shrink, and show", function()
    for i, command in ipairs { "info", "verify", "export --out %s/e.tsv", "checkpoint --out %s/c",
      "shrink --min-count 100 --dry-run", "show", "show --source" } do
      local status, _, errors = other(command:format(dir), "--store", store)
      assert.equal(0, status, i .. ": " .. errors)
    end
  end)

  it("moonrock trust opens it from then on, and its copies, but not once it is changed", function()
    assert.equal(0, (run(("cp -r %s %s/strange"):format(store, dir))))
    assert.equal(0, (other("trust", dir .. "/strange")))
    assert.equal(0, (other("eval", "--store", dir .. "/strange", "--data", data)))
    assert.equal(0, (other("eval", "--store", store, "--data", data)))
    change(dir .. "/strange", function(kept) kept.source = kept.source .. "-- changed\n" end)
    assert.equal(1, (other("eval", "--store", dir .. "/strange", "--data", data)))
    assert.equal(1, (own("eval", "--store", dir .. "/strange", "--data", data)))
  end)

  it("a shipped model needs no trust, and neither does its schema", function()
    local path = dir .. "/shipped"
    shell.write(dir .. "/x.csv", "x,y\n" .. ("1,1\n2,0\n"):rep(50))
    shell.write(dir .. "/x.lua", 'local mr = require "moonrock"\nreturn mr.schema { name = "x", label = "y", '
      .. 'fields = { mr.category "x", mr.numeric("x", { name = "n" }), mr.bucket "x" } }\n')
    local status, _, errors = own("train", "lr", "--schema", dir .. "/x.lua", "--data", dir .. "/x.csv", "--store", path)
    assert.equal(0, status, errors)
    local again, out, problem = other("eval", "--store", path, "--data", dir .. "/x.csv")
    assert.equal(0, again, problem)
    assert.truthy(out:find "100 rows", out)
  end)

  it("a schema that asks for its surroundings gives the fields of training ever after", function()
    local path = dir .. "/asks"
    shell.write(dir .. "/asks.lua", [[
local mr = require "moonrock"
local fields = { mr.category "x" }
if os.getenv "MORE" then fields[2] = mr.category("x", { name = "again" }) end
return mr.schema { name = "asks", label = "y", fields = fields }]])
    local words = { "train", "lr", "--schema", dir .. "/asks.lua", "--data", dir .. "/x.csv", "--store", path }
    local status, _, errors = run("MORE=1 MOONROCK_CONFIG=" .. dir .. "/own " .. program .. " " .. table.concat(words, " "))
    assert.equal(0, status, errors)
    assert.equal(2, #kept_of(path).schema.compiled.fields)
    local again, _, problem = own("eval", "--store", path, "--data", dir .. "/x.csv")
    assert.equal(0, again, problem)
    local third, _, refusal = own(unpack(words))
    assert.equal(1, third)
    assert.truthy(refusal:find("differs from the one given", 1, true), refusal)
  end)

  it("source is shown without characters that a terminal obeys or hides", function()
    local path = dir .. "/hidden"
    run(("cp -r %s %s"):format(store, path))
    change(path, function(kept) kept.source = "-- \27[2J \r\226\128\174 x\n" .. kept.source end)
    local status, out = other("show", "--store", path, "--source")
    assert.equal(0, status)
    assert.truthy(out:find("-- \\x1b[2J \\x0d\\xe2\\x80\\xae x", 1, true), out)
    assert.is_nil(out:find "\27")
  end)

  it("a key that others may read is refused, and a home that cannot be written is said", function()
    run(("mkdir -p %s/open && head -c 32 /dev/urandom > %s/open/key && chmod 644 %s/open/key"):format(dir, dir, dir))
    local status, _, errors = run(("MOONROCK_CONFIG=%s/open %s train %s --data %s --store %s/o"):format(dir, program, file,
      data, dir))
    assert.equal(0, status)
    assert.truthy(errors:find("others may read it", 1, true), errors)
    local again, _, problem = run(("MOONROCK_CONFIG=%s/nowhere %s train %s --data %s --store %s/p"):format(data, program,
      file, data, dir))
    assert.equal(0, again)
    assert.truthy(problem:find("stores are not signed as yours", 1, true), problem)
  end)

  it("a model that this process trained is opened in it, and signs nothing that it only trusted", function()
    local path = dir .. "/here"
    local made = mr.find(file) { store = path, data = mr.data { files = data, format = "libsvm" } }
    made:commit()
    made:close()
    mr.reopen(path):close()
    change(path, function(kept) kept.source = kept.source .. "-- another's\n" end)
    raises("not known to be yours", mr.reopen, path)
    local model = mr.reopen(path, { trust = true, read_only = false })
    model:commit()
    model:close()
    raises("not known to be yours", mr.reopen, path)
  end)
end)

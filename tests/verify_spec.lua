-- Verify: a sound store is told so, and what is wrong is named.
package.path = "./tests/?.lua;" .. package.path
local json = require "dkjson"
local C = require "moonrock.ffi"
local mr = require "moonrock"
local rows = require "support.rows"
local Store = require "moonrock.store"
local shell = require "tests.support.shell"

local moonrock, run, read, write = shell.moonrock, shell.run, shell.read, shell.write

describe("verify", function()
  local dir = shell.directory()
  local model = dir .. "/model"
  local data = write(dir .. "/data.svm", ("1 0:1 18446744073709551615:1 5:1\n0 7:1 5:1\n"):rep(50))

  local function train(epochs)
    local status, _, errors = moonrock("train", "fm", "--store", model, "--data", data, "--format", "libsvm",
      "--epochs", tostring(epochs), "--batch", "10", "--patience", "3", "--valid", data, "--commit-every", "2")
    assert.equal(0, status, errors)
  end

  setup(function() train(2) end)

  local function copy()
    run(("rm -rf %s/copy && cp -R %s %s/copy"):format(dir, model, dir))
    return dir .. "/copy"
  end

  -- Commits named records to a copy of the store, and verifies it: its problems, as one text.
  local function after(records, step)
    local path = copy()
    local store = Store.open(path, "write")
    store:begin()
    for name, bytes in pairs(records) do store:put(name, bytes) end
    store:finish(step or store:info().commit.step)
    store:close()
    return table.concat(mr.verify(path).problems, "\n")
  end

  local function record(name)
    local store = Store.open(model, "read")
    local bytes = store:get(name)
    store:close()
    return bytes
  end

  it("says that a sound store is one, with what it holds, and ends with 0", function()
    local status, out, errors = moonrock("verify", "--store", model)
    assert.equal(0, status, errors)
    assert.matches("features +4 rows", out)
    assert.matches("kept as best", out)
    assert.matches("all is well\n$", out)
    local _, text = moonrock("verify", "--store", model, "--json")
    local told = json.decode(text)
    assert.same({ true, {}, 4 }, { told.ok, told.problems, told.tables[1].rows })
    assert.equal("best", told.kept[1].name)
    assert.equal(told.commit.number + 1, told.commits)
  end)

  it("changes nothing", function()
    local function bytes() return select(2, run("cd " .. model .. " && find . -type f | sort | xargs sha256sum")) end
    local before = bytes()
    moonrock("verify", "--store", model)
    assert.equal(before, bytes())
  end)

  it("names records that belong to nothing, or are not what they should be", function()
    assert.equal("", after {})
    local table_state = record "table/features"
    local cases = {
      { { ["param/other"] = record "param/bias" }, "record param/other: belongs to no param of the model" },
      { { ["param/bias"] = record("param/bias"):sub(1, -5) }, "param bias: its %d+ bytes are not of its shape" },
      { { ["param/bias"] = "short" }, "param bias: 5 bytes, expected at least 64" },
      { { ["table/other"] = string.char(9) .. table_state:sub(2) }, "record table/other: belongs to no table" },
      { { ["table/features"] = table_state:sub(1, 8) }, "the record of table features has 8 bytes" },
      { { ["table/features"] = table_state:sub(1, 8) .. "\5" .. table_state:sub(10) },
        "table features: has 4 rows, its record says 5" },
      { { ["table/features"] = string.char(9) .. table_state:sub(2) }, "says number 9, the model 0" },
      { { ["filter/features/00000000"] = ("x"):rep(100) }, "a page of a filter of 100 bytes, expected 4096" },
      { { ["filter/other/00000000"] = ("x"):rep(4096) }, "filter/other/00000000: belongs to no table" },
      { { ["filter/features/x"] = ("x"):rep(4096) }, "is no page of a filter" },
      { { state = "{" }, "record state: cannot be read" },
      { { state = '{"step":3}' }, "record state: is of step 3, the last commit of step" },
      { { model = "nonsense" }, "holds no model" },
    }
    for _, case in ipairs(cases) do
      local told = after(case[1])
      assert.matches(case[2], told)
      assert.equal(0, select(2, told:gsub("\n", "")), told)
    end
  end)

  it("names rows that the model cannot read, and a log that goes back", function()
    local kept = json.decode(record "model")
    for _, column in ipairs(kept.layout.tables[1].layouts[1]) do
      column.dim, column.state = 2 * column.dim, 2 * column.state
    end
    local told = after { model = json.encode(kept) }
    assert.matches("table features: the record of key 0, %d+ bytes of layout 1", told)
    assert.matches("of key 18446744073709551615", told)
    assert.matches("the log of commits: commit %d+ is of step 1, the one before of step 10",
      after({ state = '{"step":1}' }, 1))
  end)

  it("ends with 1 and a line for what is wrong, kept states included", function()
    local path = copy()
    local _, files = run("ls " .. path .. "/kept/*/db-1/*.sst")
    local sst = files:match "[^\n]+"
    local text = read(sst)
    write(sst, text:sub(1, 20) .. string.char(bit.bxor(text:byte(21), 1)) .. text:sub(22))
    local status, out = moonrock("verify", "--store", path)
    assert.equal(1, status)
    assert.matches("%d+ problems?\n$", out)
    assert.truthy(out:find(sst:match "kept/.*", 1, true), out)
    run("rm " .. path .. "/COMMIT")
    status, out = moonrock("verify", "--store", path, "--json")
    assert.equal(1, status)
    assert.matches("COMMIT is missing", json.decode(out).problems[1])
    assert.equal(1, (moonrock("verify", "--store", dir .. "/absent")))
  end)
end)

describe("a flipped bit in a file of the database", function()
  local dir = shell.directory()
  local path = dir .. "/store"

  it("is named by verify, or harmless", function()
    local seed = os.time()
    math.randomseed(seed)
    local store, t = Store.open(path, "create"), rows.table()
    for step = 1, 3 do
      rows.step(t, step)
      rows.commit(store, t, step)
    end
    local digest = store:digest()
    store:close()
    assert.same({}, mr.verify(path, { t }).problems)
    local _, list = run("ls " .. path .. "/db-1/*.sst")
    local files = {}
    for file in list:gmatch "[^\n]+" do files[#files + 1] = file end
    local named = 0
    for i = 1, 250 do
      local file = files[i % #files + 1]
      local text = read(file)
      local at, one = math.random(#text), math.random(0, 7)
      write(file, text:sub(1, at - 1) .. string.char(bit.bxor(text:byte(at), 2 ^ one)) .. text:sub(at + 1))
      local context = ("seed %d: bit %d of byte %d of %s"):format(seed, one, at, file)
      local problems = mr.verify(path, { t }).problems
      if #problems == 0 then
        local reader, same = Store.open(path, "read"), rows.table()
        assert.equal(digest, reader:digest(), context)
        reader:load(same)
        for _, key in ipairs { 0ULL, 1ULL, 18446744073709551615ULL } do
          assert.same({ t:peek(key, "v") }, { same:peek(key, "v") }, context)
        end
        reader:close()
        same:free()
      else
        named = named + 1
        local told = table.concat(problems, "\n") -- what hinders opening is not always told of a file
        assert.truthy(told:find(file:match "[^/]+$", 1, true) or told:find("could not be opened", 1, true),
          context .. "\n" .. told)
      end
      write(file, text)
    end
    assert.is_true(named > 125, "only " .. named .. " were named")
    assert.same({}, mr.verify(path, { t }).problems)
  end)

  it("does not keep verify from going on in the files behind", function()
    -- commits of different keys: each has a file of its own
    local Table, optim, other = require "moonrock.table", require "moonrock.optim", dir .. "/many"
    local many = Table.new("t", 0, 1, { w = { dim = 1 } }, optim.adagrad())
    local store, tape = Store.open(other, "create"), require "moonrock.tape"
    local batches = require "tests.support.batches"
    local recorder = tape.new {}
    for step = 1, 4 do
      local batch = batches.build({ { { step * 10 } }, { { step * 10 + 1 } } }, {})
      recorder:begin(true, step)
      require("moonrock.losses").bce(many(batch).w:sum(), batch.label):backward()
      assert.equal(2, C.mr_table_push(many.c, step))
      recorder:reset()
      rows.commit(store, many, step)
    end
    store:close()
    local _, list = run("ls " .. other .. "/db-1/*.sst")
    local files, texts = {}, {}
    for file in list:gmatch "[^\n]+" do
      if read(file):sub(4, 8) == "\2\0\0\0\0" then -- the first key is a row's
        files[#files + 1], texts[#texts + 1] = file, read(file)
      end
    end
    assert.equal(4, #files)
    local function damage(i)
      local text = texts[i]
      write(files[i], text:sub(1, 20) .. string.char(bit.bxor(text:byte(21), 1)) .. text:sub(22))
    end
    local function problems() return table.concat(mr.verify(other, { many }).problems, "\n") end
    for i, file in ipairs(files) do
      damage(i)
      assert.truthy(problems():find(file:match "[^/]+$", 1, true), file)
      write(file, texts[i])
    end
    assert.equal("", problems())
    for i in ipairs(files) do damage(i) end
    local told = problems()
    for _, file in ipairs(files) do
      assert.truthy(told:find(file:match "[^/]+$", 1, true), file .. "\n" .. told)
    end
  end)
end)

-- Shrinking tables, and copies of stores.
local mr = require "moonrock"
local raises = require "tests.support.raises"
local shell = require "tests.support.shell"

local PROGRAM, run = shell.program, shell.run

local function digest(store)
  local _, out = run(("%s info --store %s --json"):format(PROGRAM, store))
  return out:match('"digest":"(%x+)"'), tonumber(out:match('"table_rows":(%d+)'))
end

describe("shrinking", function()
  local dir = shell.directory()
  local made = dir .. "/made"

  setup(function()
    assert.equal(0, (run(("%s train lr --schema census --epochs 1 --store %s"):format(PROGRAM, made))))
  end)

  local function fresh(name)
    run(("rm -rf %s/%s && cp -a %s %s/%s"):format(dir, name, made, dir, name))
    return dir .. "/" .. name
  end

  it("leaves max_rows rows, the same by the command and in a script", function()
    local a, b = fresh "a", fresh "b"
    local before, rows = digest(a)
    local status, out, errors = run(("%s shrink --store %s --max-rows 100 --by norm --dry-run --json"):format(PROGRAM,
      a))
    assert.equal("", errors)
    assert.equal(0, status)
    assert.equal(rows - 100, tonumber(out:match('"dropped":(%d+)')))
    assert.equal(before, (digest(a)))
    status, out, errors = run(("%s shrink --store %s --max-rows 100 --by norm"):format(PROGRAM, a))
    assert.equal("", errors)
    assert.equal(0, status)
    assert.matches("dropped\n$", out)
    local model = mr.reopen(b, { read_only = false })
    local dropped, tables = model:shrink { max_rows = 100, by = "norm" }
    assert.equal(rows - 100, dropped)
    assert.equal(rows, tables[1].rows)
    assert.equal(100, model.tables[1]:rows())
    model:close()
    local after, left = digest(a)
    assert.equal(100, left)
    assert.not_equal(before, after)
    assert.equal(after, (digest(b)))
    assert.equal(0, (run(("%s eval --store %s"):format(PROGRAM, a))))
  end)

  it("refuses what it does not know", function()
    local model = mr.reopen(fresh "a", { read_only = false })
    for message, o in pairs {
      ["shrink: expected min_count, min_norm, min_score, max_rows or forget"] = {},
      ['shrink has no option "max_row"'] = { max_row = 1 },
      ["shrink: max_rows is -1, expected 0 or more"] = { max_rows = -1 },
      ['shrink: by is "luck", expected step, count, norm or score'] = { max_rows = 1, by = "luck" },
      ["shrink: a score needs half_life, in steps"] = { min_score = 1 },
      ['it has no table "nothing"'] = { max_rows = 1, table = "nothing" },
      ['"nothing"'] = { min_norm = 1, column = "nothing" },
    } do
      raises(message, model.shrink, model, o)
    end
    model:close()
  end)

  it("leaves the state before or after when it is killed", function()
    local before = digest(made)
    local store = fresh "whole"
    run(("%s shrink --store %s --max-rows 50"):format(PROGRAM, store))
    local after = digest(store)
    for i = 1, 12 do
      store = fresh "killed"
      run(shell.killed_after(0.01 + i * 0.006) .. ("%s shrink --store %s --max-rows 50"):format(PROGRAM, store))
      local now = digest(store)
      assert.is_true(now == before or now == after, "run " .. i)
      run(("%s shrink --store %s --max-rows 50"):format(PROGRAM, store))
      assert.equal(after, (digest(store)))
    end
  end)

  it("is done while training at its own steps, whatever the commits, threads and memory", function()
    local limited = dir .. "/limited.lua"
    shell.write(limited, [[
local mr = require "moonrock"
local store, threads, commit_every, memory, kill_at = arg[1], tonumber(arg[2]), tonumber(arg[3]), tonumber(arg[4]),
  tonumber(arg[5])
local ffi = require "ffi"
ffi.cdef "int kill(int, int); int getpid(void);"
local definition = mr.model("limited", function(m)
  local row = m:table("features", { w = { dim = 1 }, v = { dim = 4, init = mr.init.normal(0.1) } })
  m.tables[1].max_rows, m.tables[1].shrink_every = 300, 10
  return function(x)
    local r = row(x)
    return r.w:sum() + mr.fm(r.v)
  end
end)
local model = definition { store = store, schema = mr.schema_of "census", threads = threads,
  commit_every = commit_every, memory = memory }
for batch in model:batches("train", { size = 128, epochs = 1 }) do
  mr.bce(model(batch), batch.label):backward()
  if model.step_number + 1 == kill_at then
    model.step_number_killed = true
    local commit = model.commit
    function model:commit() commit(self) ffi.C.kill(ffi.C.getpid(), 9) end
  end
  model:step()
  if model.step_number % 10 == 0 then assert(model.tables[1]:rows() <= 300) end
end
model:commit()
print(model:info().digest, model.tables[1]:rows())
model:close()
]])
    local number = 0
    local function train(store, threads, commit_every, memory, kill_at)
      local _, out, errors = run(("timeout 100 %s %s %s %d %d %d %d"):format(PROGRAM, limited, store, threads,
        commit_every, memory, kill_at or 0))
      return out .. errors:gsub("moonrock: [^\n]*: goes on where it was left[^\n]*\n", "")
    end
    local function next_store()
      number = number + 1
      return dir .. "/limited" .. number
    end
    local whole = train(next_store(), 2, 100000, 1e9)
    assert.matches("^%x+%s+%d+\n$", whole)
    assert.equal(whole, train(next_store(), 1, 7, 1e9))
    local small = PROGRAM:find("/san/") and 200e6 or 56e6 -- sanitizers take memory of their own
    assert.equal(whole, train(next_store(), 2, 13, small))
    local store = next_store()
    train(store, 2, 100000, 1e9, 50) -- between the commit and the drops of step 50
    assert.equal(whole, train(store, 2, 100000, 1e9))
  end)
end)

describe("a copy", function()
  local dir = shell.directory()
  local store = dir .. "/store"

  it("is a store of its own, made by the training process or beside it", function()
    local model = require("models.lr") { schema = require "datasets.census", store = store }
    local n = 0
    for batch in model:batches("train", { size = 256, epochs = 1 }) do
      mr.bce(model(batch), batch.label):backward()
      model:step()
      n = n + 1
      if n == 20 then model:checkpoint(dir .. "/own") end
      if n == 40 then
        model:commit()
        local status, _, errors = run(("%s checkpoint --store %s --out %s/other --json"):format(PROGRAM, store, dir))
        assert.equal("", errors)
        assert.equal(0, status)
        assert.equal(model.store:digest(), (digest(dir .. "/other")))
        break
      end
    end
    local before = model.store:digest()
    raises("own: exists already; a copy of store", model.checkpoint, model, dir .. "/own")
    model:close()
    local _, sums = run("cd " .. store .. " && find . -type f | sort | xargs sha256sum")
    for _, copy in ipairs { "own", "other" } do
      local status, _, errors = run(("%s train lr --schema census --shuffle off --epochs 2 --store %s/%s")
        :format(PROGRAM, dir, copy))
      assert.matches("moonrock: [^\n]*: goes on where it was left, at epoch 1, record %d+, step %d+\n$", errors)
      assert.equal(0, status, errors)
      assert.not_equal(before, (digest(dir .. "/" .. copy)))
    end
    local _, now = run("cd " .. store .. " && find . -type f | sort | xargs sha256sum")
    assert.equal(sums, now)
    assert.equal(before, (digest(store)))
  end)

  it("is whole, and of a commit, however busy the writer is", function()
    run(("%s datasets/synthetic.lua --seed 3 --train 6400 --test 300 --out %s --format bin"):format(PROGRAM, dir))
    local script = [[
      PROGRAM tests/support/leader.lua DIR/busy DIR/train.bin DIR/test.bin 5 >DIR/leader & leader=$!
      until [ -s DIR/leader ]; do sleep 0.05; done
      for i in 1 2 3 4 5 6; do timeout 60 PROGRAM checkpoint --store DIR/busy --out DIR/copy$i || exit 1; sleep 0.2; done
      KILLED PROGRAM checkpoint --store DIR/busy --out DIR/killed
      wait $leader
    ]]
    local status, _, errors = run((script:gsub("%u+", { PROGRAM = PROGRAM, DIR = dir,
      KILLED = shell.killed_after(0.03) })))
    assert.equal(0, status, errors)
    local known = shell.read(dir .. "/leader")
    for i = 1, 6 do
      local d = digest(dir .. "/copy" .. i)
      assert.truthy(d and known:find(d, 1, true), "copy " .. i)
      mr.reopen(dir .. "/copy" .. i, { read_only = false }):close()
    end
    local left = io.open(dir .. "/killed/COMMIT")
    if left then
      left:close()
      assert.truthy(digest(dir .. "/killed"))
    end
  end)
end)

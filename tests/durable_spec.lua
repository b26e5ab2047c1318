-- What a store acknowledges is durable: the power goes after any step of its making, of a commit, of
-- keeping and restoring a state, of a copy and of imports, and all that was not synced is lost. The
-- store is then as it was before or after; once the operation was acknowledged, as after.
local faults = require "tests.support.faults"
local rows = require "tests.support.rows"
local shell = require "tests.support.shell"
local Store = require "moonrock.store"

local SEED = faults.seed()
local NAMES, SYNCS = 12, 5 -- losses after calls of a kind, for each operation

-- What each does: the steps of the store (nil: there is none) and of the state kept in it, before and after;
-- the store that is meant, beside the one it is called with.
local OPERATIONS = {
  { "create", new = true, before = { step = 0 }, after = { step = 1 } },
  { "commit", before = { step = 2, kept = 1 }, after = { step = 3, kept = 1 } },
  { "keep", before = { step = 2, kept = 1 }, after = { step = 2, kept = 2 } },
  { "restore", before = { step = 2, kept = 1 }, after = { step = 1, kept = 1 } },
  { "shrink", before = { step = 2, kept = 1 }, after = { step = "shrunk", kept = 1 } },
  { "copy", before = nil, after = { step = 2, kept = 1 }, of = ".copy" },
  { "import", new = true, file = "full", after = { step = 2 }, says = "an import of all" },
  { "import", file = "delta", before = { step = 2, kept = 1 }, after = { step = 3, kept = 1 },
    says = "an import of what changed" },
}

describe("after a loss of power", function()
  local dir = shell.directory()
  local work, base, record = dir .. "/work", dir .. "/base", dir .. "/record"
  local files = { full = dir .. "/full.bin", delta = dir .. "/delta.bin" }
  local digest = {}

  setup(function()
    print("  seed " .. SEED)
    local status, out, errors = shell.run(("%s tests/support/durable.lua prepare %s %s %s"):format(shell.program,
      base, files.full, files.delta))
    assert.equal("done\n", out, errors)
    assert.equal(0, status)
    local store, t = Store.open(dir .. "/steps", "create"), rows.table()
    store:load(t)
    digest[0] = store:digest()
    for step = 1, 3 do
      rows.step(t, step)
      rows.commit(store, t, step)
      digest[step] = store:digest()
    end
    store:close()
    shell.run(("cp -a %s %s/shrunk"):format(base, dir))
    status, out, errors = shell.run(("%s tests/support/durable.lua shrink %s/shrunk"):format(shell.program, dir))
    assert.equal("done\n", out, errors)
    assert.equal(0, status)
    store = Store.open(dir .. "/shrunk", "read")
    digest.shrunk = store:digest()
    store:close()
    assert.is_nil((function()
      for state, hex in pairs(digest) do
        if state ~= "shrunk" and hex == digest.shrunk then return state end
      end
    end)())
  end)

  local function state_of(hex)
    for state, known in pairs(digest) do
      if known == hex then return state end
    end
  end

  -- A store's state and the one kept in it, by their digests; nil and the problem if it cannot be opened.
  local function look(path)
    local ok, store = pcall(Store.open, path, "read")
    if not ok then return nil, store end
    local hex = store:digest()
    local now = { step = state_of(hex) }
    store:close()
    if not now.step then return nil, "a digest that no step has" end
    ok, store = pcall(Store.open, path, "write")
    if not ok then return nil, store end
    if store:digest() ~= hex then return nil, "another digest for a writer" end
    local kept, problem = pcall(store.restore, store, "best")
    if kept then
      now.kept = state_of(store:digest())
      if not now.kept then now, problem = nil, "the kept state has a digest that no step has" end
    elseif tostring(problem):find("no state is kept", 1, true) then
      problem = nil
    else
      now = nil
    end
    store:close()
    return now, problem
  end

  local function is(now, wanted) return now.step == wanted.step and now.kept == wanted.kept end

  -- One operation with a plan; `part`: nil, or the seed of what survives of what was not synced.
  local function loss(o, plan, part)
    local store = work .. "/store"
    shell.run(("rm -rf %s %s && mkdir %s"):format(work, record, work))
    if not o.new then shell.run(("cp -a %s %s"):format(base, store)) end
    local status, out, errors, counts = faults.run({ dir = work, plan = "nosync " .. plan, record = record },
      shell.program, "tests/support/durable.lua", o[1], store, o.file and files[o.file] or "")
    local context = ("SEED=%d: %s, %s, part %s: "):format(SEED, o.says or o[1], plan, tostring(part))
    assert.is_true(status == 137 or status == 0, context .. out .. errors)
    context = context .. faults.recover(work, record, part) .. ": "
    local done = out == "done\n"
    assert.equal(status == 0, done)
    store = store .. (o.of or "")
    local now, problem = look(store)
    if not now and not done and (o.new or not o.before) and tostring(problem):find("does not exist", 1, true) then
      return counts
    end
    assert.is_truthy(now, context .. tostring(problem))
    assert.is_true(is(now, o.after) or (not done and o.before ~= nil and is(now, o.before)),
      ("%sacknowledged: %s; it is at step %s and keeps %s"):format(context, tostring(done), now.step, now.kept))
    return counts
  end

  for _, o in ipairs(OPERATIONS) do
    it((o.says or o[1]) .. " is there once it was acknowledged, and never half", function()
      local calls = loss(o, "")
      loss(o, "", SEED)
      for class, most in pairs { name = NAMES, sync = SYNCS } do
        local n = math.min(most, calls[class])
        for i = 1, n do
          local nth = math.ceil(i * calls[class] / n)
          loss(o, ("class=%s nth=%d do=after"):format(class, nth), i % 3 == 0 and SEED + i or nil)
        end
      end
    end)
  end

  it("a file that is written over is the old one or the new one, whole", function()
    local file, new = work .. "/file", shell.read(files.full)
    local function written(plan)
      shell.run(("rm -rf %s %s && mkdir %s && cp -a %s %s/store && cp %s %s"):format(work, record, work, base, work,
        files.delta, file))
      local _, out, errors, counts = faults.run({ dir = work, plan = "nosync " .. plan, record = record },
        shell.program, "tests/support/durable.lua", "export", work .. "/store", file)
      local context = plan .. ": " .. errors .. faults.recover(work, record) .. ": "
      local now = shell.read(file)
      assert.is_true(now == new or (out == "" and now == shell.read(files.delta)),
        ("%s%d bytes, acknowledged: %s"):format(context, #(now or ""), out))
      return counts
    end
    local calls = written ""
    for nth = 1, calls.name do written(("class=name nth=%d do=after"):format(nth)) end
  end)

  it("COMMIT is whole though a write of it stops half way", function()
    local store = work .. "/store"
    shell.run(("rm -rf %s && mkdir %s && cp -a %s %s"):format(work, work, base, store))
    local status, _, errors, counts = faults.run({ dir = work,
      plan = "nosync class=write match=COMMIT.new do=short nth=1" }, shell.program, "tests/support/durable.lua",
      "commit", store)
    assert.equal(0, status, errors)
    assert.is_true(counts.write > 1)
    assert.is_true(is(assert(look(store)), { step = 3, kept = 1 }))
  end)

  it("COMMIT is prepared before the commit is made: without room for it there is none", function()
    local store = work .. "/store"
    shell.run(("rm -rf %s && mkdir %s && cp -a %s %s"):format(work, work, base, store))
    local status, _, errors = faults.run({ dir = work, plan = "nosync match=COMMIT.new do=ENOSPC sticky nth=1" },
      shell.program, "tests/support/durable.lua", "commit", store)
    assert.equal(1, status)
    assert.matches("No space left", errors)
    assert.is_true(is(assert(look(store)), { step = 2, kept = 1 }))
  end)
end)

-- The store: commits are atomic and durable, damage is reported, one process writes.
package.path = "./tests/?.lua;" .. package.path
local rows = require "support.rows"
local Store = require "moonrock.store"

local shell = require "tests.support.shell"

local PROGRAM, read, write = shell.program, shell.read, shell.write

local function run(command)
  local _, out, errors = shell.run(command)
  return out .. errors
end

local function problem(work)
  local ok, message = pcall(work)
  assert.is_false(ok)
  return message
end

describe("a store", function()
  local dir, path
  before_each(function()
    dir = shell.directory()
    path = dir .. "/store"
  end)

  -- A store of `steps` commits; returns its digest.
  local function make(steps)
    local store, t = Store.open(path, "create"), rows.table()
    for step = 1, steps do
      rows.step(t, step)
      rows.commit(store, t, step)
    end
    local digest = store:digest()
    store:close()
    t:free()
    return digest
  end

  it("gives back what was committed, rows and records", function()
    local digest = make(5)
    local store, t, same = Store.open(path, "write"), rows.table(), rows.table()
    for step = 1, 5 do rows.step(same, step) end
    assert.equal(digest, store:digest())
    assert.equal("step 5", store:get "state")
    assert.is_nil(store:get "nothing")
    store:load(t)
    assert.equal(5, t:rows())
    for _, key in ipairs { 0ULL, 1ULL, 2ULL, 3ULL, 18446744073709551615ULL } do
      assert.same({ same:peek(key, "v") }, { t:peek(key, "v") })
    end
    store:close()
  end)

  it("goes on from a reopened table as if it had never been closed", function()
    make(5)
    local store, t = Store.open(path, "write"), rows.table()
    store:load(t)
    for step = 6, 8 do
      rows.step(t, step)
      rows.commit(store, t, step)
    end
    local digest = store:digest()
    store:close()
    run("rm -rf " .. path)
    assert.equal(make(8), digest)
  end)

  it("returns to a state that was kept", function()
    local digest = make(3)
    local store, t = Store.open(path, "write"), rows.table()
    store:load(t)
    store:checkpoint "best"
    for step = 4, 6 do
      rows.step(t, step)
      rows.commit(store, t, step)
    end
    assert.not_equal(digest, store:digest())
    store:restore "best"
    assert.equal(digest, store:digest())
    assert.equal("step 3", store:get "state")
    store:close()
    store = Store.open(path, "write")
    assert.equal(digest, store:digest())
    store:close()
  end)

  it("does not return to a state that is not the one its COMMIT tells of", function()
    make(3)
    local store, t = Store.open(path, "write"), rows.table()
    store:load(t)
    store:checkpoint "early"
    rows.step(t, 4)
    rows.commit(store, t, 4)
    store:checkpoint "late"
    local digest = store:digest()
    for from, to in pairs { early = "late", late = "early" } do
      os.execute(("cp %s/kept/%s.1/COMMIT %s/kept/%s.1/COMMIT.saved && cp %s/kept/%s.1/COMMIT %s/kept/%s.1/COMMIT"):format(
        path, to, path, to, path, from, path, to))
      assert.error_matches(function() store:restore(to) end, "is damaged: its manifest does not lead to commit")
      assert.equal(digest, store:digest())
      os.execute(("mv %s/kept/%s.1/COMMIT.saved %s/kept/%s.1/COMMIT"):format(path, to, path, to))
    end
    store:restore "late"
    assert.equal(digest, store:digest())
    store:close()
  end)

  it("is read while another process writes, and a second writer is told its pid", function()
    local digest = make(2)
    local writer = Store.open(path, "write")
    local reader = Store.open(path, "read")
    assert.equal(digest, reader:digest())
    local message = problem(function() Store.open(path, "write") end)
    local pid = message:match("process (%d+) is writing to it")
    assert.is_truthy(pid, message)
    reader:close()
    writer:close()
  end)

  it("is left byte for byte as it was by a reader", function()
    make(2)
    local before = run("cd " .. path .. " && find . -type f | sort | xargs sha256sum")
    local reader = Store.open(path, "read")
    reader:digest()
    reader:close()
    assert.equal(before, run("cd " .. path .. " && find . -type f | sort | xargs sha256sum"))
  end)

  it("refuses a directory that is something else", function()
    run("mkdir " .. path .. " && touch " .. path .. "/letter.txt")
    assert.matches("the directory is not a store", problem(function() Store.open(path, "create") end))
    assert.matches("does not exist", problem(function() Store.open(dir .. "/no", "read") end))
  end)

  it("reports a missing, truncated or altered COMMIT", function()
    make(2)
    local text = read(path .. "/COMMIT")
    os.remove(path .. "/COMMIT")
    assert.matches("COMMIT is missing", problem(function() Store.open(path, "create") end))
    for cut = 0, #text - 1 do
      write(path .. "/COMMIT", text:sub(1, cut))
      assert.matches("COMMIT is damaged", problem(function() Store.open(path, "write") end))
    end
    for at = 1, #text do
      local flipped = text:sub(1, at - 1) .. string.char(bit.bxor(text:byte(at), 4)) .. text:sub(at + 1)
      write(path .. "/COMMIT", flipped)
      local ok = pcall(function() Store.open(path, "read"):close() end)
      assert.is_false(ok, "byte " .. at)
    end
    write(path .. "/COMMIT", text)
    Store.open(path, "write"):close()
  end)

  it("reports a manifest that lost its tail, and changes nothing", function()
    make(4)
    local manifest = run("ls " .. path .. "/db-1/MANIFEST-*"):gsub("%s+$", "")
    local text = read(manifest)
    local commit = read(path .. "/COMMIT")
    for cut = 1, #text - 1, 7 do
      write(manifest, text:sub(1, #text - cut))
      local message = problem(function() Store.open(path, "write") end)
      assert.matches("^.*store " .. path:gsub("%p", "%%%0"), message)
      assert.equal(commit, read(path .. "/COMMIT"))
    end
    write(manifest, text)
    Store.open(path, "write"):close()
  end)

  it("is exactly at a commit, acknowledged or under way, after kills at any time", function()
    local seed = os.time()
    math.randomseed(seed)
    local expected, t = {}, rows.table() -- digest by step
    local last = 0
    for kill = 1, 12 do
      local _, said = shell.run(shell.killed_after(0.05 + math.random() * 0.4)
        .. ("%s tests/support/committer.lua %s"):format(PROGRAM, path))
      local acknowledged = last
      for step in said:gmatch("(%d+)\n") do acknowledged = tonumber(step) end
      if run("ls " .. path):match("COMMIT") then
        local store = Store.open(path, "read")
        local step = store:info().commit.step
        local context = ("seed %d, kill %d: at %d, acknowledged %d"):format(seed, kill, step, acknowledged)
        assert.is_true(step == acknowledged or step == acknowledged + 1, context)
        expected[#expected + 1] = { step = step, digest = store:digest(), context = context }
        store:close()
        last = step
      end
    end
    assert.is_true(last > 0)
    local reference = Store.open(dir .. "/reference", "create")
    for step = 1, last do
      rows.step(t, step)
      rows.commit(reference, t, step)
      for _, e in ipairs(expected) do
        if e.step == step then assert.equal(e.digest, reference:digest(), e.context) end
      end
    end
    reference:close()
  end)

  it("keeps the last commit when the disk is full, and goes on when it is not", function()
    local out = run(("(ulimit -f 40; trap '' XFSZ; %s -e '"):format(PROGRAM)
      .. [[package.path = "./tests/?.lua;" .. package.path
        local rows, Store = require "support.rows", require "moonrock.store"
        local store, t = Store.open(arg[1], "create"), rows.table()
        rows.step(t, 1) rows.commit(store, t, 1)
        local ok, e = pcall(function()
          store:begin() store:put("state", ("x"):rep(100000)) store:put_table(t) store:finish(2)
        end)
        print(ok, e) rows.step(t, 2) rows.commit(store, t, 2) print(store:digest())]]
      .. "' " .. path .. ")")
    assert.matches("^false\t", out)
    local digest = out:match("(%x+)\n$")
    run("rm -rf " .. path)
    assert.equal(make(2), digest, out)
  end)
end)

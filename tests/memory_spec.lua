-- Memory that runs out: whichever block is refused, an opening, a step or a commit fails with one
-- clean error, and what was committed stays.
local ffi = require "ffi"
local C = require "moonrock.ffi"
local mr = require "moonrock"
local runs = require "tests.support.runs"
local shell = require "tests.support.shell"

ffi.cdef "int64_t mr_memory_fail(int64_t);"

local OPTIONS = { size = 32, epochs = 1, shuffle = true, window = 64 }

describe("when the n-th block of memory is refused", function()
  local dir = shell.directory()
  local data = runs.data(dir, 256)
  local number = 0

  local function fresh()
    number = number + 1
    return ("%s/store%d"):format(dir, number)
  end

  local function open(store)
    return mr.find "wide_deep" { data = mr.data { files = data, format = "bin", fields = 39 }, store = store,
      threads = 2, seed = 5, dim = 4, hidden = { 8 }, commit_every = 100000 }
  end

  -- Calls work with its n-th block refused, and checks the error. Returns whether n was reached, and
  -- whether the work was done all the same.
  local function refuse(n, work)
    C.mr_memory_fail(n)
    local ok, problem = pcall(work)
    local reached = C.mr_memory_fail(0) <= 0
    if not reached then assert.is_true(ok, tostring(problem)) end
    if not ok then assert.matches("out of memory", tostring(problem)) end
    return reached, ok
  end

  -- Trains to the end; returns the digest.
  local function train(model)
    for batch in model:batches(data, OPTIONS) do
      mr.bce(model(batch), batch.label):backward()
      model:step()
    end
    model:commit()
    return model:info().digest
  end

  local whole

  it("not at all, training ends with a digest", function()
    local model = open(fresh())
    whole = train(model)
    assert.matches("^%x+$", whole)
    model:close()
  end)

  it("opening a new store fails, or succeeds; it can be opened after", function()
    local n, reached, failures = 0, true, 0
    while reached do
      n = n + 1
      local store, model = fresh(), nil
      local was, ok = refuse(n, function() model = open(store) end)
      reached = was
      if not ok then
        failures = failures + 1
        model = open(store)
      end
      if n % 10 == 1 then assert.equal(whole, train(model)) end
      model:close()
    end
    assert.is_true(failures > 10, failures .. " failures")
  end)

  it("opening a store that has rows fails, or succeeds; nothing of it is lost", function()
    local store = fresh()
    local model = open(store)
    train(model)
    model:close()
    local n, reached, failures = 0, true, 0
    while reached do
      n = n + 1
      local ok
      reached, ok = refuse(n, function() model = open(store) end)
      if not ok then
        failures = failures + 1
        model = open(store)
      end
      assert.equal(whole, model:info().digest)
      model:close()
    end
    assert.is_true(failures > 10, failures .. " failures")
  end)

  it("a step fails, or is made; a new run from the last commit ends the same", function()
    local n, reached, failures = 0, true, 0
    while reached do
      n = n + 1
      local store = fresh()
      local model = open(store)
      local batches = model:batches(data, OPTIONS)
      local batch = batches()
      local ok
      reached, ok = refuse(n, function()
        mr.bce(model(batch), batch.label):backward()
        model:step()
      end)
      batches:close()
      model:close()
      if not ok then failures = failures + 1 end
      if n % 10 == 1 then
        model = open(store)
        assert.equal(whole, train(model))
        model:close()
      end
    end
    assert.is_true(failures > 5, failures .. " failures")
  end)

  it("a commit fails, or is made; the next one holds everything", function()
    local n, reached, failures = 0, true, 0
    while reached do
      n = n + 1
      local model = open(fresh())
      local count = 0
      for batch in model:batches(data, OPTIONS) do
        mr.bce(model(batch), batch.label):backward()
        model:step()
        count = count + 1
        if count == 3 then
          local was, ok = refuse(n, function() model:commit() end)
          reached = was
          if not ok then failures = failures + 1 end
        end
      end
      model:commit()
      assert.equal(whole, model:info().digest)
      model:close()
    end
    assert.is_true(failures > 0, failures .. " failures")
  end)
end)

-- What is said of work that has no effect: nothing is skipped, left out or learned from in vain without a line.
local ffi = require "ffi"
local mr = require "moonrock"
local shell = require "tests.support.shell"

local dir = shell.directory()
local count = 0
local function fresh()
  count = count + 1
  return ("%s/store%d"):format(dir, count)
end

local function samples(n)
  local lines = {}
  for i = 1, n do lines[i] = ("%d 1:1 %d:1"):format(i % 3 == 0 and 1 or 0, i % 50 + 2) end
  return table.concat(lines, "\n") .. "\n"
end
local data = shell.write(dir .. "/data.svm", samples(400))

-- A model of its own, and the list of what it says.
local function model(options)
  local said, o = {}, { data = mr.data {}, on_notice = false }
  for name, value in pairs(options or {}) do o[name] = value end
  function o.on_notice(text) said[#said + 1] = text end
  return mr.find "lr"(o), said
end

describe("a training script", function()
  it("is told at its first step that no backward came before", function()
    local m, said = model()
    for batch in m:batches(data, { size = 100 }) do
      mr.bce(m(batch), batch.label)
      m:step()
    end
    m:close()
    assert.equal(1, #said)
    assert.matches("model lr: step 1 changes nothing: no loss:backward() came before it", said[1], 1, true)
  end)

  it("is told that gradients were never used, at its commit, evaluation or end", function()
    for _, ending in ipairs { "commit", "eval", "close" } do
      local m, said = model { store = fresh() }
      for batch in m:batches(data, { size = 100 }) do mr.bce(m(batch), batch.label):backward() end
      m[ending](m)
      assert.equal(1, #said, ending)
      assert.matches("nothing is learned from the last 4 batches", said[1], 1, true)
      if ending ~= "close" then m:close() end
      assert.equal(1, #said)
    end
  end)

  it("is told nothing while it adds up gradients for a step of several batches", function()
    local m, said = model { store = fresh() }
    local n = 0
    for batch in m:batches(data, { size = 50 }) do
      mr.bce(m(batch), batch.label):backward()
      n = n + 1
      if n % 2 == 1 then m:commit() end
      if n % 4 == 0 then m:step() end
    end
    m:close()
    assert.same({}, said)
  end)

  it("is told nothing where a batch whose loss is not finite is left out", function()
    local m, said = model()
    m.on_nan = "skip"
    for batch in m:batches(data, { size = 100 }) do
      local loss = mr.bce(m(batch), batch.label)
      if batch.c.position.sample == 200 then loss = loss * (0 / 0) end
      loss:backward()
      m:step()
    end
    m:close()
    assert.same({}, said)
  end)

  it("that asks for the next batch before its step records the batch that it learned from", function()
    local dir_a, dir_b = fresh(), fresh()
    local a = model { store = dir_a }
    local it_a = a:batches(data, { size = 100 })
    local batch = it_a()
    for step = 1, 3 do
      mr.bce(a(batch), batch.label):backward()
      batch = it_a()
      a:step()
      assert.equal(100 * step, tonumber(a.position.sample))
    end
    a:commit()
    local b = model { store = dir_b }
    local it_b = b:batches(data, { size = 100 })
    for _ = 1, 3 do
      batch = it_b()
      mr.bce(b(batch), batch.label):backward()
      b:step()
    end
    b:commit()
    assert.equal(b:info().digest, a:info().digest)
    a:close()
    b:close()
  end)

  it("goes on to the same bits in a stream whose steps are of several batches", function()
    local lines = { "x,y" }
    for i = 1, 1200 do lines[i + 1] = ("%g,%d"):format(i * 7919 % 1000, i % 3 == 0 and 1 or 0) end
    local stream = shell.write(dir .. "/stream.csv", table.concat(lines, "\n") .. "\n")
    local function learn(store, stops)
      local digest, running
      for _, steps in ipairs(stops) do
        local m = mr.find "lr" { store = store, schema = mr.schema { name = "s", label = "y",
          fields = { mr.numeric "x", mr.bucket("x", { quantiles = 4 }) } } }
        local batches = m:stream(stream, { size = 20 })
        for _ = 1, steps do
          for _ = 1, 3 do
            local batch = batches()
            mr.bce(m(batch), batch.label):backward()
          end
          m:step()
        end
        batches()
        batches:close()
        m:commit()
        digest, running = m:info().digest, ffi.string(m.schema:running_bytes())
        m:close()
      end
      return digest, running
    end
    local digest, running = learn(fresh(), { 12 })
    local again, running_again = learn(fresh(), { 1, 2, 4, 5 })
    assert.equal(digest, again)
    assert.is_true(running == running_again)
  end)
end)

describe("a schedule that has run out", function()
  local function train(schedule, ...)
    local status, _, said = shell.moonrock("train", "lr", "--data", data, "--batch", "10", "--store", fresh(),
      "--schedule", schedule, ...)
    assert.equal(0, status, said)
    return said
  end

  it("is said once, with the step and how to go on", function()
    local said = train "cosine(30)"
    assert.matches("its schedule cosine(30, 0) has run out: from step 30 on the learning rate is 0", said, 1, true)
    assert.matches("--schedule", said, 1, true)
    assert.equal(1, select(2, said:gsub("has run out", "")))
    for _, schedule in ipairs { "polynomial(5)", "step(1, 0)", "exponential(1, 1e-3)", "warmup(5, cosine(9))" } do
      assert.matches("has run out", train(schedule), schedule)
    end
  end)

  it("is none where something is left, or comes back", function()
    for _, schedule in ipairs { "cosine(40)", "cosine(10, 0.01)", "linear_cosine(40, 3, 0, 0)", "constant(0.5)" } do
      assert.equal("", (train(schedule)), schedule)
    end
  end)
end)

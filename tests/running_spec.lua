-- Streams without given statistics: means, deviations and quantiles run along, each sample by those before it,
-- and are part of every commit; and what `learn` reaches on a stream that drifts with nothing set.
local ffi = require "ffi"
local json = require "dkjson"

local mr = require "moonrock"
local shell = require "tests.support.shell"

local dir = shell.directory()

local count = 0
local function fresh()
  count = count + 1
  return dir .. "/store" .. count
end

local state = 7
local function random()
  state = (state * 16807) % 2147483647
  return state / 2147483647
end
local function normal() return math.sqrt(-2 * math.log(random())) * math.cos(2 * math.pi * random()) end

-- A market by the half hour: the levels of price and demand drift, and with them what the label depends on: whether
-- the price is above its mean of a day.
local function market(name, n, broken)
  local lines, mean, shock = { "hour,price,demand,transfer,up" }, 300, 0
  for i = 1, n do
    local hour, phase = i % 48, 2 * math.pi * i / n
    local wave = math.sin(2 * math.pi * hour / 48 + phase)
    shock = 0.9 * shock + 0.4 * normal()
    local price = 300 + 100 * math.sin(2 * phase) + 150 * i / n + 60 * wave + 30 * shock + 5 * normal()
    mean = mean + (price - mean) / 48
    local demand = 5000 + 1500 * i / n + 800 * wave + 200 * normal()
    local transfer = 0.5 + 0.2 * math.sin(3 * phase) + 0.05 * normal() - 0.05 * shock
    local up = (price > mean) ~= (random() < 0.05) and 1 or 0
    lines[#lines + 1] = ("%d,%.2f,%.1f,%.4f,%d"):format(hour, price, demand, transfer, up)
    if broken and i % 100 == 0 then lines[#lines + 1] = ("1,1e6,%s,0,1"):format(broken) end
    if i % 97 == 0 then lines[#lines + 1] = "5,,6000,,1" end -- missing cells
  end
  return shell.write(dir .. "/" .. name, table.concat(lines, "\n") .. "\n")
end

local NUMBERS = [[local mr = require "moonrock"
return mr.schema { name = "market", label = "up", fields = { mr.numeric "hour", mr.numeric "price",
  mr.numeric "demand", mr.numeric "transfer" } }]]
local ALL = [[local mr = require "moonrock"
return mr.schema { name = "market", label = "up", fields = { mr.numeric("price", { scale = "log_standard" }),
  mr.bucket("price", { quantiles = 8 }), mr.bucket "demand", mr.numeric "transfer", mr.category "hour",
  mr.cross { "price.bucket", "hour" } } }]]
local numbers, all = shell.write(dir .. "/numbers.lua", NUMBERS), shell.write(dir .. "/all.lua", ALL)
local drifting, short = market("drifting.csv", 20000), market("short.csv", 3000)

local function learn(schema, source, store, ...)
  local status, out, problem = shell.moonrock("learn", "lr", "--schema", schema, "--source", source, "--store",
    store, "--json", ...)
  assert.equal(0, status, problem)
  local last
  for line in out:gmatch "[^\n]+" do last = json.decode(line) end
  return last
end

local function info(store)
  local _, out = shell.moonrock("info", "--store", store, "--json")
  local r = assert(json.decode(out), out)
  return r.digest, r.position.samples
end

describe("moonrock learn on a stream that drifts, with nothing set", function()
  it("is right in at least 85 of 100 samples by numbers alone, of 95 that can be", function()
    local r = learn(numbers, drifting, fresh())
    assert.equal(20206, r.rows)
    assert.is_true(r.total.accuracy > 0.85, "accuracy " .. r.total.accuracy)
  end)

  it("keeps up with buckets, too", function()
    local r = learn(all, drifting, fresh())
    assert.is_true(r.total.accuracy > 0.84, "accuracy " .. r.total.accuracy)
  end)
end)

describe("statistics that run along", function()
  local schema = mr.schema_of(numbers)

  -- The values of all samples of a stream, in batches of `size`.
  local function values(size, from)
    local list = {}
    local m = mr.find "lr" { schema = mr.schema_of(numbers) }
    for batch in m:stream(from or short, { size = size }) do
      for i = 0, batch.c.entries - 1 do list[#list + 1] = batch.c.values ~= nil and batch.c.values[i] or 1 end
      m:skip()
    end
    m:close()
    return list
  end

  it("scale each number by the mean and deviation of those before it, at most 10 deviations away", function()
    local path = shell.write(dir .. "/tiny.csv",
      "hour,price,demand,transfer,up\n1,10,5,0,1\n1,14,5,0,0\n1,9,5,,1\n1,1e9,5,0.5,0\n")
    local v = values(1, path)
    local function at(sample, field) return v[4 * (sample - 1) + field] end
    assert.equal(0, at(1, 2))               -- nothing is known yet
    assert.near(1, at(2, 2), 1e-6)          -- one number: no deviation; at most sqrt(1)
    assert.near(-math.sqrt(2), at(3, 2), 1e-6) -- (9 - 12) / 2, but at most sqrt(2)
  end)

  it("do not depend on how the stream is cut into batches", function()
    local one = values(1)
    assert.is_true(#one > 12000)
    assert.same(one, values(64))
    assert.same(one, values(1000))
  end)

  it("are Welford's over the samples so far, and fade from 8192 numbers on", function()
    for _, path in ipairs { short, drifting } do
      local list, i, n, mean, variance = values(100, path), 0, 0, 0, 0
      for price in io.open(path):read("*a"):gmatch "\n%d+,([%d.]*)," do
        i = i + 1
        local x = tonumber(price)
        if x then
          if n > 20 then
            local z = (x - mean) / math.sqrt(variance)
            assert.near(math.max(-10, math.min(10, z)), list[4 * (i - 1) + 2], 1e-4 * (1 + math.abs(z)))
          end
          n = n + 1
          local share, d = 1 / math.min(n, 8192), x - mean
          mean = mean + d * share
          variance = (1 - share) * (variance + d * d * share)
        end
      end
      assert.is_true(n > (path == short and 2900 or 19000))
    end
  end)

  it("leave out lines that are skipped", function()
    state = 7
    local clean = market("clean.csv", 1000)
    state = 7
    local broken = market("broken.csv", 1000, "x")
    local m = mr.find "lr" { schema = mr.schema_of(numbers) }
    local list = {}
    for batch in m:stream(broken, { size = 10, bad_lines = "skip" }) do
      for i = 0, batch.c.entries - 1 do list[#list + 1] = batch.c.values[i] end
      m:skip()
    end
    m:close()
    assert.same(values(10, clean), list)
  end)

  it("cut a bucket into parts of about the same size, and follow where the numbers go", function()
    local lines = { "x,up" }
    for i = 1, 40000 do lines[i + 1] = ("%g,%d"):format(random() + (i > 20000 and 5 or 0), i % 2) end
    local path = shell.write(dir .. "/moved.csv", table.concat(lines, "\n") .. "\n")
    local m = mr.find "lr" { schema = mr.schema { label = "up", fields = { mr.bucket("x", { quantiles = 10 }) } } }
    local seen, at = {}, 0
    for batch in m:stream(path, { size = 100 }) do
      for i = 0, 99 do
        local part = at < 20000 and (at >= 8192 and 1) or at >= 32768 and 2
        if part then
          local key = part .. " " .. tostring(batch.c.keys[i])
          seen[key] = (seen[key] or 0) + 1
        end
        at = at + 1
      end
      m:skip()
    end
    m:close()
    local parts = { 0, 0 }
    for key, n in pairs(seen) do
      local part = tonumber(key:match "^%d")
      parts[part] = parts[part] + 1
      local share = n / (part == 1 and 20000 - 8192 or 40000 - 32768)
      assert.is_true(share > 0.06 and share < 0.14, key .. ": " .. share) -- a tenth, of a sample of 1024
    end
    assert.same({ 10, 10 }, parts)
  end)

  it("are used by eval and predict as they are, and do not change by it", function()
    local store = fresh()
    learn(all, short, store)
    local before = info(store)
    local status, first, problem = shell.moonrock("predict", "--store", store, "--data", short)
    assert.equal(0, status, problem)
    shell.moonrock("eval", "--store", store, "--data", short, "--json")
    local _, again = shell.moonrock("predict", "--store", store, "--data", short)
    assert.equal(first, again)
    assert.equal(before, (info(store)))
  end)

  it("give the score to the next sample that the online loop gave it", function()
    local store = fresh()
    local m = mr.find "lr" { schema = mr.schema_of(all), store = store }
    local scores, at = {}, 0
    for batch in m:stream(short, { size = 1 }) do
      at = at + 1
      local z = m(batch)
      if at == 2001 then
        scores[1] = 1 / (1 + math.exp(-z:get(1, 1)))
        break
      end
      mr.bce(z, batch.label):backward()
      m:step()
    end
    m:skip()
    m:close()
    m = mr.find "lr" { schema = mr.schema_of(all), store = fresh() }
    local list = m:stream(short, { size = 1 })
    for _ = 1, 2000 do
      local batch = list()
      mr.bce(m(batch), batch.label):backward()
      m:step()
    end
    list:close()
    m:commit()
    mr.predict(m, m.schema:batches(short, { size = 1, skip = 2000, limit = 1 }), function(z)
      scores[2] = 1 / (1 + math.exp(-z:get(1, 1)))
    end)
    m:close()
    assert.equal(scores[1], scores[2])
  end)

  it("of a schema that was fitted stay as they were fitted", function()
    local m = mr.find "lr" { schema = schema }
    schema:fit { files = short }
    for _ in m:stream(short, { size = 100 }) do m:skip() end
    assert.is_false(schema:running())
    m:close()
  end)

  it("are what training goes on with after a stream", function()
    local store = fresh()
    learn(all, short, store)
    local status, _, problem = shell.moonrock("train", "lr", "--schema", all, "--data", short, "--store", store)
    assert.equal(0, status, problem)
  end)
end)

describe("a stream whose statistics run along", function()
  it("goes on to the same bits after kills, on any number of threads", function()
    local whole, again = fresh(), fresh()
    learn(all, drifting, whole, "--batch", "4", "--commit-every", "50", "--threads", "1")
    local digest, samples = info(whole)
    assert.equal(20206, samples)
    for kill, wait in ipairs { 0.25, 0.35, 0.45 } do
      local command = "%s %s learn lr --schema %s --source %s --store %s --batch 4 --commit-every 50 --threads %d"
      shell.run(command:format(shell.killed_after(wait), shell.program, all, drifting, again, kill))
    end
    learn(all, drifting, again, "--batch", "4", "--commit-every", "50", "--threads", "2")
    local end_digest, end_samples = info(again)
    assert.equal(20206, end_samples)
    assert.equal(digest, end_digest)
  end)

  it("takes in the samples, too, that negative sampling drops", function()
    local lines = {}
    for line in io.lines(short) do lines[#lines + 1] = line end
    local m = mr.find "lr" { schema = mr.schema_of(all), optim = mr.optim.sgd { lr = 1e-9 } }
    mr.learn(m, short, { size = 32, negative_rate = 0.3 })
    local sampled, bias = ffi.string(m.schema:running_bytes()), m.params[1]:weight(1)
    m:close()
    m = mr.find "lr" { schema = mr.schema_of(all) }
    for _ in m:stream(short, { size = 32 }) do m:skip() end
    local all_samples = ffi.string(m.schema:running_bytes())
    m:close()
    assert.is_true(all_samples == sampled, "running statistics differ after sampled negatives")
    local positive = 0
    for i = 2, 1300 do positive = positive + tonumber(lines[i]:sub(-1)) end
    assert.near(math.log(positive / (1299 - positive)), bias, 0.3) -- of the data as it is
  end)

  it("goes on to the same bits after it was broken off between any two batches", function()
    local function some(stops)
      local store, digest = fresh(), nil
      for _, steps in ipairs(stops) do
        local m = mr.find "lr" { schema = mr.schema_of(all), store = store }
        local list = m:stream(short, { size = 32 })
        for _ = 1, steps do
          local batch = list()
          mr.bce(m(batch), batch.label):backward()
          m:step()
        end
        list:close()
        m:commit()
        digest = m:info().digest
        m:close()
      end
      return digest
    end
    assert.equal(some { 60 }, some { 1, 1, 2, 5, 11, 40 })
  end)
end)

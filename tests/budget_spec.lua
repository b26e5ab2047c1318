-- The memory budget: the process stays inside it whatever the number of keys, and what it learns
-- does not depend on it.
--
-- KEYS (distinct ones of the large run) and MEMORY come from the environment; `make torture` sets
-- them.
local ffi = require "ffi"
local json = require "dkjson"
local shell = require "tests.support.shell"

local KEYS = tonumber(os.getenv "KEYS") or 5e6
local MEMORY = tonumber(os.getenv "MEMORY") or 96e6
local SANITIZED = shell.program:find("/san/") ~= nil -- sanitizers take memory of their own
local SLACK, MORE = SANITIZED and 1e3 or 1.1, SANITIZED and 400e6 or 0
local FIELDS = 39

-- Samples of the raw format, whose keys are all distinct, or drawn from `keys` with small ones more
-- frequent.
local function write(path, samples, keys)
  local file = assert(io.open(path, "wb"))
  local row = ffi.new("int64_t[?]", FIELDS + 1)
  local state, key = 12345, 0
  local function random()
    state = (state * 16807) % 2147483647
    return state / 2147483647
  end
  for _ = 1, samples do
    for j = 0, FIELDS - 1 do
      if keys then key = math.floor(random() ^ 4 * keys) else key = key + 1 end
      row[j] = key * 2654435761LL
    end
    row[FIELDS] = random() < 0.3 and 1 or 0
    file:write(ffi.string(row, 8 * (FIELDS + 1)))
  end
  file:close()
  return path
end

local function must(...)
  local status, out, errors = shell.moonrock(...)
  assert.equal(0, status, errors)
  return out
end

local function result_of(out) return json.decode(out:match("({\"event\":\"result\".-})\n$")) end

describe("the memory budget", function()
  local dir = shell.directory()
  local number = 0

  local function train(data, memory, ...)
    number = number + 1
    local store = dir .. "/store" .. number
    local out = must("train", "fm", "--data", data, "--format", "bin", "--store", store, "--shuffle", "off",
      "--json", "--memory", ("%.0f"):format(memory), ...)
    local info = json.decode(must("info", "--store", store, "--json", "--memory", "1GB"))
    shell.run("rm -rf " .. store)
    return result_of(out), info
  end

  it(("holds for %.0f million keys under %.0f MB"):format(KEYS / 1e6, MEMORY / 1e6), function()
    local data = write(dir .. "/keys.bin", math.ceil(KEYS / FIELDS))
    local r = train(data, MEMORY, "--batch", "256", "--threads", "2")
    os.remove(data)
    assert.equal(math.ceil(KEYS / FIELDS) * FIELDS, r.table_rows)
    print(("  peak %.1f MB of %.0f MB, %.0f s"):format(r.peak_rss_bytes / 1e6, MEMORY / 1e6, r.seconds))
    assert.is_true(r.peak_rss_bytes <= SLACK * MEMORY, ("peak %.0f"):format(r.peak_rss_bytes))
  end)

  it("changes nothing of what is learned, nor do threads and commits", function()
    local data = write(dir .. "/zipf.bin", 20000, 400000)
    local large, whole = train(data, 4e9, "--threads", "2")
    assert.is_true(whole.table_rows > 150000)
    local status, _, errors = shell.moonrock("train", "fm", "--data", data, "--format", "bin", "--store",
      dir .. "/none", "--memory", "1MB")
    assert.equal(1, status)
    local floor = tonumber(errors:match("at least (%d+) MB"))
    assert.is_truthy(floor, errors)
    for _, run in ipairs {
      { floor * 1e6 + MORE + 64e6, "--threads", "2" },
      { floor * 1e6 + MORE + 20e6, "--threads", "1", "--commit-every", "7" },
      { floor * 1e6 + MORE + 8e6, "--threads", "2", "--commit-every", "1000" },
    } do
      local r, info = train(data, unpack(run))
      local context = ("%.0f MB: peak %.1f MB"):format(run[1] / 1e6, r.peak_rss_bytes / 1e6)
      print("  " .. context)
      assert.equal(whole.digest, info.digest, context)
      assert.equal(large.table_rows, r.table_rows)
      assert.is_true(r.peak_rss_bytes <= SLACK * run[1], context)
    end
  end)

  -- A cache of fewer than three batches: what is read ahead must leave room for the batch at hand.
  it("reads a row once for a batch", function()
    if SANITIZED then pending "sanitizers take memory of their own" end
    local data, script = write(dir .. "/all.bin", 20480), dir .. "/once.lua"
    shell.write(script, [[
      local mr = require "moonrock"
      local data, store, memory = ...
      local model = mr.find "fm" { store = store, memory = memory, threads = 2, commit_every = 2,
        data = mr.data { format = "bin", fields = 39 } }
      local entries = 0
      for batch in model:batches(data, { size = 1024, shuffle = false,
        epochs = tonumber(model.position.epoch) + 1 }) do
        mr.bce(model(batch), batch.label):backward()
        model:step()
        entries = entries + 1024 * 39
      end
      model:commit()
      local t = model:info().tables[1]
      print(entries, t.missed, t.cached)
      model:close()]])
    must(script, data, dir .. "/once", "1GB")
    local out = must(script, data, dir .. "/once", "113MB")
    local entries, missed, cached = out:match "(%d+)%s+(%d+)%s+(%d+)"
    print(("  %s rows wanted, %s read, %s cached"):format(entries, missed, cached))
    assert.is_true(tonumber(cached) < 3 * 1024 * 39, cached .. " rows cached")
    assert.equal(tonumber(entries), tonumber(missed))
  end)

  it("is refused when it is less than the model needs", function()
    local data = write(dir .. "/few.bin", 100, 1000)
    local status, _, errors = shell.moonrock("train", "fm", "--data", data, "--format", "bin", "--store",
      dir .. "/small", "--memory", "10MB")
    assert.equal(1, status)
    assert.matches("model fm: 10 MB of memory are less than it needs: at least %d+ MB %(%-%-memory%)", errors)
  end)
end)

-- `make bench` in short: all of it but tables larger than memory, on some thousand rows.
local json = require "dkjson"
local shell = require "tests.support.shell"

local dir = shell.directory()

describe("make bench", function()
  it("trains from memory, bin and text beside the machine's limit, and writes what it found", function()
    local out = dir .. "/bench.json"
    local code, text = shell.run(("ROWS=40960 TEST_ROWS=2000 REPEAT=2 LARGE=0 MODELS='lr wide_deep' OUT=%s "
      .. "sh tests/bench/run.sh 2>&1"):format(out))
    assert.equal(0, code, text)
    local file = assert(io.open(out))
    local results = json.decode(file:read "*a")
    file:close()
    assert.equal(12, #results.runs)
    local seen = {}
    for _, r in ipairs(results.runs) do
      assert.equal(2, #r.rates)
      assert.truthy(r.rates[1] > 0 and r.rows > 0 and r.peak_rss_bytes > 0)
      seen[("%s %s %d %d"):format(r.model, r.from, r.threads, r.batch)] = r
    end
    for _, known in ipairs { "lr memory 2 1024", "lr memory 1 1024", "lr memory 2 256", "lr svm 2 1024",
      "wide_deep bin 2 1024", "wide_deep ffm 2 1024" } do
      assert.truthy(seen[known], known)
      assert.truthy(text:find((known:gsub(" ", " +"))), known)
    end
    local main = seen["lr memory 2 1024"]
    assert.equal(40960, main.rows)
    assert.truthy(main.auc > 0.5 and main.auc < 1)
    assert.truthy(main.limits[2] > 0)
    assert.truthy(results.machine.processors >= 1 and results.text_lines.svm > 0)
  end)

  it("shows what growing costs a table that lies in memory, beside cache misses alone", function()
    local limit, out = dir .. "/limit", dir .. "/growth.json"
    local code, text = shell.run(("cc -std=gnu11 -D_GNU_SOURCE -O2 -o %s $(pkg-config --cflags openblas) "
      .. "tests/bench/limit.c $(pkg-config --libs openblas) -lpthread -lm && %s tests/bench/growth.lua "
      .. "--limit %s --rows '2e4 2e5' --batches 3 --repeat 2 --out %s"):format(limit, shell.program, limit, out))
    assert.equal(0, code, text)
    local results = json.decode(shell.read(out))
    assert.equal(4, #results)
    for i, r in ipairs(results) do
      assert.equal(i <= 2 and 2e4 or 2e5, r.rows)
      assert.truthy(r.rate > 0 and r.unique > 1000 and r.unique <= 39936)
    end
  end)
end)

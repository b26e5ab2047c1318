-- How training slows down as a table that lies in memory grows: FM with Adagrad, a row for each of so many
-- keys, in batches of 1024 samples of 39 keys, uniform and Zipf(1.1). Beside it what cache misses alone
-- explain: limit.c's random rows in as much memory as the rows take, and as their index takes.
--
--   ./moonrock tests/bench/growth.lua --limit LIMIT [--rows "1e6 1e7 5e7"]
--
-- `make bench GROWTH="1e6 1e7 5e7"` runs it; 50 million rows take 12 GB.
local ffi = require "ffi"
local json = require "dkjson"
local mr = require "moonrock"
local C = require "moonrock.ffi"
local reader = require "moonrock.reader"
local common = require "tests.bench.common"

local parser = require "argparse"("growth.lua", "Training as a resident table grows.")
parser:option("--limit", "The compiled limit.c."):count(1)
parser:option("--rows", "Rows of the table, separated by spaces.", "1e6 1e7 5e7")
parser:option("--batches", "Batches of a pass.", "100"):convert(tonumber)
parser:option("--threads", "Threads.", "2"):convert(tonumber)
parser:option("--repeat", "Passes, after one that is not counted.", "5"):convert(tonumber):target "times"
parser:option("--precision", "Of the rows.", "float32"):choices { "float32", "bf16" }
parser:option("--out", "File that the results are written to, as JSON.")
parser:option("--child", "One size, in a process of its own."):convert(tonumber)
local opt = parser:parse()

local BATCH, FIELDS = 1024, 39
local ENTRIES = BATCH * FIELDS

-- ---- one size ----------------------------------------------------------------------------------

-- A batch whose keys are those of ranks that are drawn.
local function batch_of(rank)
  local kept = { keys = ffi.new("uint64_t[?]", ENTRIES), offsets = ffi.new("uint32_t[?]", BATCH + 1),
    label = ffi.new("float[?]", BATCH), c = ffi.new "mr_batch" }
  for e = 0, ENTRIES - 1 do kept.keys[e] = common.mix(ffi.cast("uint64_t", rank()) + 1) end
  for s = 0, BATCH - 1 do
    kept.offsets[s + 1] = (s + 1) * FIELDS
    kept.label[s] = common.uniform() < 0.3 and 1 or 0
  end
  local c = kept.c
  c.n, c.entries, c.fields, c.keys, c.offsets, c.label = BATCH, ENTRIES, FIELDS, kept.keys, kept.offsets,
    kept.label
  local batch = reader.batch(c)
  batch.kept = kept
  return batch
end

local function learn(model, batch)
  mr.bce(model(batch), batch.label):backward()
  model:step()
end

-- Rows a second of each pass, and distinct keys of a batch.
local function passes(model, rank)
  local batches, rates, distinct = {}, {}, 0
  for i = 1, opt.batches do batches[i] = batch_of(rank) end
  for pass = 0, opt.times do
    local began = C.mr_clock()
    for _, batch in ipairs(batches) do learn(model, batch) end
    if pass > 0 then rates[pass] = opt.batches * BATCH / (C.mr_clock() - began) end
  end
  for _, batch in ipairs(batches) do
    local keys, seen = batch.c.keys, {}
    for e = 0, ENTRIES - 1 do
      local key = tonumber(keys[e] % 0x1fffffffffffffULL)
      if not seen[key] then
        seen[key] = true
        distinct = distinct + 1
      end
    end
  end
  return { rates = rates, unique = distinct / opt.batches }
end

local function run_child(n)
  local model = mr.find "fm" { dim = 16, threads = opt.threads, memory = 2e9 + n * 320,
    precision = opt.precision }
  local next_key = 0
  local function each() -- all keys in turn
    next_key = next_key + 1
    return (next_key - 1) % n
  end
  for _ = 1, math.ceil(n / ENTRIES) do
    learn(model, batch_of(each))
  end
  local result = { zipf = passes(model, common.zipf_ranks(n)),
    uniform = passes(model, function() return math.floor(common.uniform() * n) end) }
  result.rows, result.peak_rss_bytes = model.tables[1]:rows(), C.mr_memory_peak()
  print(json.encode(result))
  model:close()
end

if opt.child then
  run_child(opt.child)
  return
end

-- ---- all of them -------------------------------------------------------------------------------

-- Nanoseconds that a random row of so many bytes takes in a table of n.
local function limit(bytes, n, of)
  local mb = math.max(1, math.ceil(n * of / 2 ^ 20))
  return 1e9 / common.must(("%s rows %d %d %d"):format(opt.limit, opt.threads, bytes, mb))
end

local ROW, ENTRY = opt.precision == "bf16" and 128 or 192, 12 * 1.6

print(("FM, %d threads, batch %d, medians of %d passes; ns: of a distinct key of a batch, more than at the "
  .. "first size\n"):format(opt.threads, BATCH, opt.times))
print(("%-8s %10s %10s %20s %6s %9s %8s %12s"):format("keys", "rows", "rows/s", "range", "rel.", "unique",
  "ns more", "by misses"))

local results, first = {}, {}
for n in opt.rows:gmatch "%S+" do
  n = tonumber(n)
  local misses = limit(ROW, n, ROW) + limit(64, n, ENTRY)
  local run = common.must(("./moonrock tests/bench/growth.lua --limit - --batches %d --threads %d "
    .. "--repeat %d --precision %s --child %d"):format(opt.batches, opt.threads, opt.times, opt.precision, n))
  for _, keys in ipairs { "zipf", "uniform" } do
    local r = run[keys]
    local rate, low, high = common.median(r.rates)
    local own = { keys = keys, rows = run.rows, rate = rate, rates = r.rates, unique = r.unique,
      step_ns = BATCH / rate * 1e9, miss_ns = misses, peak_rss_bytes = run.peak_rss_bytes }
    local base = first[keys] or own
    first[keys] = base
    own.more_ns = (own.step_ns - base.step_ns * own.unique / base.unique) / own.unique
    print(("%-8s %10.0f %10.0f %20s %6.2f %9.0f %8.1f %12.1f"):format(keys, own.rows, rate,
      ("%.0f-%.0f"):format(low, high), rate / base.rate, own.unique, own.more_ns, misses - base.miss_ns))
    results[#results + 1] = own
  end
  io.stdout:flush()
end

if opt.out then common.save(opt.out, results) end

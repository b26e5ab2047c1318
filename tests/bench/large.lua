-- Tables larger than memory: training speed with a table 1, 4 and 16 times the cache, uniform and
-- Zipf-distributed keys, and what a row that was not cached costs, beside what RocksDB alone takes
-- for the same rows (plain.c). `make bench` runs it.
--
-- A store is filled with a row for every key once; every run trains on a copy of it. Three quarters
-- of the run warm the cache up, the last one is timed. Cost of a missed row: processor seconds of all
-- threads until the last compaction is over, less those of the resident run of the same batches and
-- commits, by rows missed.
local ffi = require "ffi"
local json = require "dkjson"
local mr = require "moonrock"
local C = require "moonrock.ffi"
local common = require "tests.bench.common"

ffi.cdef [[
int clock_gettime(int clock, struct timespec *now);
struct timespec { long seconds, nanoseconds; };
]]

local parser = require "argparse"("large.lua", "Training with tables larger than memory.")
parser:option("--dir", "Directory to work in (a few GB)."):count(1)
parser:option("--plain", "The compiled plain.c."):count(1)
parser:option("--keys", "Rows of the table.", "2000000"):convert(tonumber)
parser:option("--rows", "Samples of a run: three quarters warm up, one is timed.", "400000"):convert(tonumber)
parser:option("--models", "Names, separated by spaces.", "fm wide_deep")
parser:option("--threads", "Threads.", "2"):convert(tonumber)
parser:option("--repeat", "Runs of each.", "3"):convert(tonumber):target "times"
parser:option("--out", "File that the results are written to, as JSON.")
parser:option("--child", "One run: MODEL STORE DATA MEMORY TRACE"):args(5)
local opt = parser:parse()

local BATCH, FIELDS, COMMIT_EVERY = 1024, 39, 20

local now = ffi.new "struct timespec"
local function cpu() -- of all threads
  ffi.C.clock_gettime(2, now)
  return tonumber(now.seconds) + tonumber(now.nanoseconds) / 1e9
end

-- ---- one run, in a process of its own --------------------------------------------------------

-- Writes the keys of a batch that are not in the cache.
local function trace(file, t, batch)
  local seen, list = {}, {}
  for i = 0, batch.c.entries - 1 do
    local key = batch.c.keys[i]
    local text = tostring(key)
    if not seen[text] then
      seen[text] = true
      if C.mr_table_holds(t.c, key) == 0 then list[#list + 1] = key end
    end
  end
  table.sort(list, function(a, b) return a < b end)
  local bytes = ffi.new("uint64_t[?]", #list + 1, #list)
  for i, key in ipairs(list) do bytes[i] = key end
  file:write(ffi.string(bytes, 8 * (#list + 1)))
end

local function run_child(name, dir, path, memory, traced)
  local data = mr.data { format = "bin", fields = FIELDS }
  local model = mr.find(name) { store = dir, data = data, memory = tonumber(memory), dim = 16,
    threads = opt.threads, commit_every = COMMIT_EVERY }
  local t = model.tables[1]
  local epoch = tonumber(model.position.epoch)
  local file = traced ~= "-" and io.open(traced, "wb")
  local batches = model:batches(path, { size = BATCH, epochs = epoch + 1, shuffle = false })
  if file then batches.ahead = nil end
  local rows, n, began, used, missed = 0, 0, nil, nil, nil
  for batch in batches do
    n = n + batch.n
    if not began and n > opt.rows * 3 / 4 then
      began, used, missed = C.mr_clock(), cpu(), C.mr_table_missed(t.c)
      if file then -- the state that plain.c reads: with as many files in each level as the run met
        os.execute("rm -rf " .. opt.dir .. "/state")
        model:checkpoint(opt.dir .. "/state")
      end
    elseif began then
      rows = rows + batch.n
      if file then trace(file, t, batch) end
    end
    mr.bce(model(batch), batch.label):backward()
    model:step()
  end
  local seconds = C.mr_clock() - began
  model:commit()
  while C.mr_store_number(model.store.c, "compacting") > 0 do os.execute "sleep 0.05" end
  local processor = cpu() - used
  print(json.encode { rows = rows, rows_per_second = rows / seconds, cpu = processor,
    missed = C.mr_table_missed(t.c) - missed, cached = C.mr_table_cached(t.c), table_rows = t:rows(),
    resident = C.mr_table_resident(t.c), peak_rss_bytes = C.mr_memory_peak() })
  batches:close()
  model:close()
  if file then file:close() end
end

if opt.child then
  run_child(unpack(opt.child))
  return
end

-- ---- data ------------------------------------------------------------------------------------

local mix, uniform, zipf_ranks = common.mix, common.uniform, common.zipf_ranks

local function write(path, rows, rank)
  local file = assert(io.open(path, "wb"))
  local sample = ffi.new("uint64_t[?]", FIELDS + 1)
  for _ = 1, rows do
    for j = 0, FIELDS - 1 do sample[j] = mix(ffi.cast("uint64_t", rank()) + 1) end
    sample[FIELDS] = uniform() < 0.3 and 1 or 0
    file:write(ffi.string(sample, 8 * (FIELDS + 1)))
  end
  file:close()
end

-- ---- all of them -----------------------------------------------------------------------------

-- With uniform keys a cache is warm at once, and every sample costs thirty reads.
local function rows_of(data) return data == "uniform" and math.floor(opt.rows / 8) or opt.rows end

local function child(model, data, memory, traced)
  local copy = opt.dir .. "/copy"
  os.execute(("rm -rf %s && cp -a %s/%s %s && cat %s/db-1/*.sst >/dev/null"):format(copy, opt.dir, model,
    copy, copy))
  return common.must(("./moonrock tests/bench/large.lua --dir %s --plain - --rows %d --threads %d "
    .. "--child %s %s %s/%s.bin %d %s"):format(opt.dir, rows_of(data), opt.threads, model, copy, opt.dir,
    data, memory, traced or "-"))
end

local n, next_key = opt.keys, 0
os.execute("mkdir -p " .. opt.dir)
write(opt.dir .. "/all.bin", math.ceil(n / FIELDS), function()
  next_key = next_key + 1
  return (next_key - 1) % n
end)
write(opt.dir .. "/zipf.bin", opt.rows, zipf_ranks(n))
write(opt.dir .. "/uniform.bin", rows_of "uniform", function() return math.floor(uniform() * n) end)

-- Memory that holds so many rows in the cache, beside the rest of the process; measured by trial.
local function memory_for(rows) return 95e6 + rows * 285 end

print(("%d keys, %d threads, batch %d, medians of %d runs (range)\n"):format(n, opt.threads, BATCH,
  opt.times))
print(("%-10s %-8s %9s %10s %20s %8s %9s %9s %6s"):format("model", "keys", "table is", "rows/s", "range",
  "missed", "us a miss", "plain us", "ratio"))

local results = {}
for model in opt.models:gmatch "%S+" do
  os.execute(("rm -rf %s/%s"):format(opt.dir, model))
  local rows = opt.rows
  opt.rows = 2 * BATCH
  common.must(("./moonrock tests/bench/large.lua --dir %s --plain - --rows 1024 --threads %d "
    .. "--child %s %s/%s %s/all.bin %d -"):format(
    opt.dir, opt.threads, model, opt.dir, model, opt.dir, memory_for(2 * n)))
  opt.rows = rows
  for _, data in ipairs { "zipf", "uniform" } do
    local sets = { { times = 1, runs = {} }, { times = 4, runs = {} }, { times = 16, runs = {} } }
    for _ = 1, opt.times do
      for _, set in ipairs(sets) do
        set.runs[#set.runs + 1] = child(model, data, memory_for(set.times == 1 and 2 * n or n / set.times))
      end
    end
    for i, set in ipairs(sets) do
      local rates = {}
      for k, own in ipairs(set.runs) do rates[k] = own.rows_per_second end
      local rate, low, high = common.median(rates)
      local r = set.runs[1]
      local line = ("%-10s %-8s %8.1fx %10.0f %20s %8.2f"):format(model, data, r.table_rows / r.cached, rate,
        ("%.0f-%.0f"):format(low, high), r.missed / r.rows)
      if i > 1 then
        local keys = opt.dir .. "/keys"
        child(model, data, memory_for(n / set.times), keys)
        os.execute(("cat %s/state/db-1/*.sst >/dev/null"):format(opt.dir))
        local plain = common.must(("%s %s/state/db-1 %s 0"):format(opt.plain, opt.dir, keys))
        local cost = {}
        for k, own in ipairs(set.runs) do cost[k] = (own.cpu - sets[1].runs[k].cpu) / own.missed * 1e6 end
        local per_miss = common.median(cost)
        line = line .. (" %9.2f %9.2f %6.2f"):format(per_miss, plain.microseconds,
          per_miss / plain.microseconds)
        set.per_miss, set.plain = per_miss, plain.microseconds
      end
      print(line)
      io.stdout:flush()
      set.model, set.data, set.rate = model, data, rate
      results[#results + 1] = set
    end
  end
end

if opt.out then common.save(opt.out, results) end

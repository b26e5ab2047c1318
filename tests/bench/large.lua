-- Tables larger than memory: training speed with a table 1, 4 and 16 times the cache, uniform and
-- Zipf-distributed keys, and what a row that was not cached costs, beside what RocksDB alone takes
-- for the same rows (plain.c). `make bench` runs it.
--
-- A store is filled with a row for every key once; every run trains on a copy of it: resident, with a
-- table 4 times the cache, and with one 16 times. A quarter of the samples warm the cache up. The
-- others are trained in turns, one run after the other, so that all of them meet the machine in the
-- same mood; who waits for its turn is stopped, with its read-ahead and its compactions.
--
-- First, for two quarters, as a user would train, which gives the speed. Then for what a missed row
-- costs: processor seconds of all threads, less those of the resident run, by rows missed. A small
-- cache commits more often, as rows that changed fill it; so in this part each run commits at the
-- end of its turn and waits for compaction. RocksDB alone takes its turn too, on a copy of the
-- database as it is then.
local ffi = require "ffi"
local json = require "dkjson"
local mr = require "moonrock"
local C = require "moonrock.ffi"
local common = require "tests.bench.common"

ffi.cdef [[
int clock_gettime(int clock, struct timespec *now);
struct timespec { long seconds, nanoseconds; };
int kill(int pid, int signal);
int getpid(void);
int prctl(int option, unsigned long value);
enum { SIGKILL = 9, SIGCONT = 18, SIGSTOP = 19, PR_SET_PDEATHSIG = 1 };
]]

local parser = require "argparse"("large.lua", "Training with tables larger than memory.")
parser:option("--dir", "Directory to work in (a few GB)."):count(1)
parser:option("--plain", "The compiled plain.c."):count(1)
parser:option("--keys", "Rows of the table.", "2000000"):convert(tonumber)
parser:option("--rows", "Samples of a run with Zipf keys, 400000 or more.", "800000"):convert(tonumber)
parser:option("--models", "Names, separated by spaces.", "fm wide_deep")
parser:option("--threads", "Threads.", "2"):convert(tonumber)
parser:option("--out", "File that the results are written to, as JSON.")
parser:option("--child", "One run: MODEL STORE KEYS MEMORY ROWS TRACE"):args(6)
local opt = parser:parse()

local BATCH, FIELDS = 1024, 39
local COMMIT_EVERY = 20 -- batches, in the first part
local LONG, SHORT = { zipf = 100, uniform = 20 }, { zipf = 5, uniform = 2 } -- batches of a turn in each part

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

-- How many batches warm up, and how many turns each part has.
local function parts(keys, rows)
  local batches = math.floor(rows / BATCH)
  local long, short = math.floor(batches / 2 / LONG[keys]), math.floor(batches / 4 / SHORT[keys])
  return batches - long * LONG[keys] - short * SHORT[keys], long, short
end

local function train_on(model, batch)
  mr.bce(model(batch), batch.label):backward()
  model:step()
end

-- Trains, and says its figures since the process began when the cache is warm, after every turn of the
-- first part, when the second one begins, and after every turn of that. With TRACE a copy of the store, and
-- the keys missed in turn i of the second part, are kept as TRACE.i and TRACE.i.keys.
local function run_child(name, dir, kind, memory, rows, traced)
  ffi.C.prctl(ffi.C.PR_SET_PDEATHSIG, ffi.new("unsigned long", ffi.C.SIGKILL))
  local data = mr.data { format = "bin", fields = FIELDS }
  local model = mr.find(name) { store = dir, data = data, memory = tonumber(memory), dim = 16,
    threads = opt.threads, commit_every = COMMIT_EVERY }
  local t = model.tables[1]
  local batches = model:batches(("%s/%s.bin"):format(opt.dir, kind), { size = BATCH, shuffle = false,
    epochs = tonumber(model.position.epoch) + 1 })
  traced = traced ~= "-" and traced
  if traced then batches.ahead = nil end

  if kind == "all" then -- fills the store
    for batch in batches do train_on(model, batch) end
    model:commit()
    model:close()
    return
  end

  local function report()
    print(json.encode { pid = ffi.C.getpid(), cpu = cpu(), missed = C.mr_table_missed(t.c),
      cached = C.mr_table_cached(t.c), rows = t:rows() })
    io.stdout:flush()
  end
  local function settle()
    model:commit()
    while C.mr_store_number(model.store.c, "compacting") > 0 do os.execute "sleep 0.01" end
  end
  local function train(count, keys)
    for _ = 1, count do
      local batch = batches()
      if keys then trace(keys, t, batch) end
      train_on(model, batch)
    end
  end

  local warm, long, short = parts(kind, rows)
  train(warm)
  report()
  for _ = 1, long do
    train(LONG[kind])
    report()
  end
  model.manual_commits = true
  settle()
  report()
  for i = 1, short do
    local keys
    if traced then
      model:checkpoint(("%s.%d"):format(traced, i))
      keys = io.open(("%s.%d.keys"):format(traced, i), "wb")
    end
    train(SHORT[kind], keys)
    settle()
    if keys then keys:close() end
    report()
  end
  batches:close()
  model:close()
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
local function rows_of(keys) return keys == "uniform" and math.floor(opt.rows / 8) or opt.rows end

-- The command of a run on a copy of the model's store.
local function command(model, copy, keys, memory, rows, traced)
  return ("./moonrock tests/bench/large.lua --dir %s --plain - --threads %d --child %s %s %s %d %d %s")
    :format(opt.dir, opt.threads, model, copy, keys, memory, rows, traced or "-")
end

local function copy_of(model, name)
  local copy = opt.dir .. "/" .. name
  os.execute(("rm -rf %s && cp -a %s/%s %s && cat %s/db-1/*.sst >/dev/null"):format(copy, opt.dir, model,
    copy, copy))
  return copy
end

-- Lets a run go on until it says its figures, and stops it there; what they changed by, and the seconds.
local function turn(run)
  if run.pid then ffi.C.kill(run.pid, ffi.C.SIGCONT) end
  local began = C.mr_clock()
  local line = run.pipe:read "*l"
  local seconds = C.mr_clock() - began
  local figures = line and json.decode(line)
  if not figures then -- no error: the others are stopped, and a pipe that is collected waits for them
    io.stderr:write "large.lua: a run ended early\n"
    os.exit(1)
  end
  local last = run.last or figures
  run.pid, run.last = figures.pid, figures
  ffi.C.kill(run.pid, ffi.C.SIGSTOP)
  return { seconds = seconds, cpu = figures.cpu - last.cpu, missed = figures.missed - last.missed }
end

-- The same for RocksDB alone: microseconds a row.
local function plain(run, i)
  local state = ("%s.%d"):format(run.traced, i)
  os.execute(("cat %s/db-1/*.sst >/dev/null"):format(state))
  local figures = common.must(("%s %s/db-1 %s.keys 0 %d"):format(opt.plain, state, state, opt.threads))
  os.execute(("rm -rf %s %s.keys"):format(state, state))
  return figures.microseconds
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

-- Trains a model on one kind of keys with every size of the cache, in turns; a list of their figures.
local function measure(model, keys)
  local rows, runs = rows_of(keys), {}
  for i, times in ipairs { 1, 4, 16 } do
    local run = { model = model, keys = keys, times = times, long = {}, short = {} }
    local memory, name = memory_for(times == 1 and 2 * n or n / times), ("%s-%d"):format(model, times)
    if times > 1 then
      run.traced = ("%s/state-%d"):format(opt.dir, times)
      common.output(command(model, copy_of(model, name), keys, memory, rows, run.traced))
    end
    run.pipe = io.popen(command(model, copy_of(model, name), keys, memory, rows))
    turn(run)
    runs[i] = run
  end
  local _, long, short = parts(keys, rows)
  for i = 1, long do
    for _, run in ipairs(runs) do run.long[i] = turn(run) end
  end
  for _, run in ipairs(runs) do turn(run) end
  for i = 1, short do
    for _, run in ipairs(runs) do
      run.short[i] = turn(run)
      if run.traced then run.short[i].plain = plain(run, i) end
    end
  end
  for _, run in ipairs(runs) do
    ffi.C.kill(run.pid, ffi.C.SIGCONT)
    run.pipe:close()
    run.pipe = nil
  end
  return runs
end

-- A list of what `of` makes of each turn.
local function each(turns, of)
  local list = {}
  for i, figures in ipairs(turns) do list[i] = of(figures, i) end
  return list
end

local function sum(turns, name)
  local total = 0
  for _, figures in ipairs(turns) do total = total + figures[name] end
  return total
end

print(("%d keys, %d threads, batch %d; medians of turns (range; of the ratio, quartiles)\n"):format(n,
  opt.threads, BATCH))
print(("%-10s %-8s %9s %9s %16s %7s %10s %9s %6s %10s"):format("model", "keys", "table is", "rows/s", "range",
  "missed", "us a miss", "plain us", "ratio", "quartiles"))

local results = {}
for model in opt.models:gmatch "%S+" do
  os.execute(("rm -rf %s/%s"):format(opt.dir, model))
  common.output(command(model, opt.dir .. "/" .. model, "all", memory_for(2 * n), math.ceil(n / FIELDS)))
  for _, keys in ipairs { "zipf", "uniform" } do
    local runs = measure(model, keys)
    for _, run in ipairs(runs) do
      local samples = LONG[keys] * BATCH
      local rates = each(run.long, function(own) return samples / own.seconds end)
      run.rate, run.low, run.high = common.median(rates)
      local line = ("%-10s %-8s %8.1fx %9.0f %16s %7.2f"):format(model, keys, run.last.rows / run.last.cached,
        run.rate, ("%.0f-%.0f"):format(run.low, run.high), sum(run.long, "missed") / #run.long / samples)
      if run.traced then
        local resident = runs[1].short
        local costs = each(run.short, function(own, i)
          return (own.cpu - resident[i].cpu) / own.missed * 1e6
        end)
        local ratios = each(costs, function(cost, i) return cost / run.short[i].plain end)
        run.microseconds = common.median(costs)
        run.plain = common.median(each(run.short, function(own) return own.plain end))
        run.ratio = common.median(ratios)
        table.sort(ratios)
        line = line .. (" %10.2f %9.2f %6.2f %10s"):format(run.microseconds, run.plain, run.ratio,
          ("%.2f-%.2f"):format(ratios[math.ceil(#ratios / 4)], ratios[math.ceil(#ratios * 3 / 4)]))
      end
      print(line)
      io.stdout:flush()
      results[#results + 1] = run
    end
  end
end

if opt.out then common.save(opt.out, results) end

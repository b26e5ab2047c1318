-- The benchmarks of training, and the table of what came out: every model from memory, from bin files
-- and from text, on one thread and on several, in batches of three sizes. Rounds go through all runs
-- in turn, because machines drift; ratios are taken within rounds, limits and the peer are measured
-- beside the run that they are held against. A run is of two epochs, or more where they are short, each
-- of a fresh model; the first does not count, and of the others the median: memory that no program used
-- lately is slow to come by on a virtual machine.
local json = require "dkjson"
local common = require "tests.bench.common"
local output, must, median = common.output, common.must, common.median

local parser = require "argparse"("run.lua", "Runs the benchmarks; see tests/bench/README.md.")
parser:option("--data", "Directory with train.bin, test.bin, train.svm and train.ffm."):count(1)
parser:option("--rows", "Of train.bin.", "1000000"):convert(tonumber)
parser:option("--limit", "The compiled limit.c."):count(1)
parser:option("--out", "File that the results are written to, as JSON."):count(1)
parser:option("--last", "Results to compare with."):count(1)
parser:option("--repeat", "Runs of each."):convert(tonumber):target "times"
parser:option("--threads", "Threads."):convert(tonumber)
parser:option("--batch", "Rows a step."):convert(tonumber)
parser:option("--models", "Names, separated by spaces.")
parser:flag("--peer", "PyTorch too, in turn.")
local opt = parser:parse()

local OPENMP_BLAS = "/usr/lib/" .. io.popen("uname -m"):read "*l" .. "-linux-gnu/openblas-openmp"
local DISTINCT = 8.5 -- keys of a sample of a batch of 1024 that no sample before it has

-- part: of the rows; epochs of a run, by default two, so that it lasts some seconds; limit: arguments of
-- limit.c, its unit, what it is, and how many of them a sample takes.
local TRAIN = " '" .. opt.data .. "/train.bin'"
local MODELS = {
  lr = { text = "svm", part = 1, epochs = 6, peer = true,
    limit = { "lr %d %d" .. TRAIN, "of plain C" } },
  fm = { text = "svm", part = 1, epochs = 4, peer = true,
    limit = { "fm %d %d" .. TRAIN, "of plain C" } },
  ffm = { text = "ffm", part = 0.4, epochs = 3, dim = 4,
    limit = { "rows %d 1280", "of its rows alone", DISTINCT } },
  wide_deep = { text = "ffm", part = 0.2, peer = true, limit = { "mlp %d %d", "of its matmuls" } },
  deepfm = { text = "ffm", part = 0.2, peer = true, limit = { "mlp %d %d", "of its matmuls" } },
  dcnv2 = { text = "ffm", part = 0.05, limit = { "mlp %d %d 3", "of its matmuls" } },
}
local FORMAT = { bin = "bin", svm = "libsvm", ffm = "libffm" }

local function range(t, format)
  return (format .. "-" .. format):format(math.min(unpack(t)), math.max(unpack(t)))
end

local function arguments(r, file, part, epochs)
  return (" --model %s --data '%s/train.%s' --rows %d --dim %d --batch %d --threads %d --repeat %d --json")
    :format(r.model, opt.data, file, part < 1 and math.floor(opt.rows * part) or 0,
      MODELS[r.model].dim or 16, r.batch, r.threads, epochs)
end

local function train(r)
  local file = r.from == "memory" and "bin" or r.from
  local stream = r.from ~= "memory" and " --stream --format " .. FORMAT[file] or ""
  local of = MODELS[r.model]
  return must("./moonrock tests/bench/train.lua" .. arguments(r, file, of.part, of.epochs or 2) .. stream)
end

local function peer(r)
  return must(("LD_LIBRARY_PATH=%s:$LD_LIBRARY_PATH %s tests/bench/peer.py"):format(OPENMP_BLAS,
    os.getenv "PYTHON" or "/usr/bin/python3") .. arguments(r, "bin", MODELS[r.model].part, 2))
end

-- The rate of a run, without its first epoch.
local function settled(run) return median { unpack(run.rows_per_second_all, 2) } end

-- The most that this machine can do of a model's work, or of its largest part, in samples a second.
local function limit_of(r)
  local limit = MODELS[r.model].limit
  return tonumber(output(opt.limit .. " " .. limit[1]:format(r.threads, r.batch))) / (limit[3] or 1)
end

-- After the whole epoch: AUC of the test rows.
local function quality(r)
  return must(("./moonrock tests/bench/train.lua%s --test '%s/test.bin'"):format(arguments(r, "bin", 1, 1),
    opt.data)).auc
end

-- ---- the machine -----------------------------------------------------------------------------

local function line_of(path, pattern)
  for line in io.lines(path) do
    local found = line:match(pattern)
    if found then return found end
  end
end

local machine = {
  processor = line_of("/proc/cpuinfo", "^model name%s*:%s*(.+)") or "unknown",
  family = line_of("/proc/cpuinfo", "^cpu family%s*:%s*(.+)"),
  vectors = line_of("/proc/cpuinfo", "^flags.*(avx512f)") or line_of("/proc/cpuinfo", "^flags.*(avx2)"),
  processors = tonumber(output "nproc"),
  l2_bytes = tonumber(output "getconf LEVEL2_CACHE_SIZE"),
  l3_bytes = tonumber(output "getconf LEVEL3_CACHE_SIZE"),
  memory_kib = tonumber(line_of("/proc/meminfo", "^MemTotal:%s*(%d+)")),
  virtual = line_of("/proc/cpuinfo", "^flags.*hypervisor") ~= nil,
  kernel = output "uname -sr":match "[^\n]*",
  huge_pages = output "cat /sys/kernel/mm/transparent_hugepage/enabled":match "%[(%w+)%]",
}
local load = tonumber(output "cat /proc/loadavg":match "%S+") or 0
if load > 0.5 then
  io.stderr:write(("bench: the load average is %.1f before it starts: others use this machine, and "
    .. "the figures say little. PyTorch's threads suffer most, so its ratios flatter us.\n"):format(
    load))
end

-- ---- the runs --------------------------------------------------------------------------------

local runs = {}
for model in opt.models:gmatch "%S+" do
  local known = MODELS[model]
  if not known then
    io.stderr:write("bench: no model ", model, "\n")
    os.exit(2)
  end
  local function add(from, threads, batch)
    local r = { model = model, from = from, threads = threads, batch = batch, rates = {} }
    runs[#runs + 1] = r
    return r
  end
  local main = add("memory", opt.threads, opt.batch)
  main.main, main.limits = main, {}
  if opt.peer and known.peer then main.peer_rates, main.ratios = {}, {} end
  if opt.threads > 1 then add("memory", 1, opt.batch).main = main end
  for _, batch in ipairs { 256, 4096 } do
    if batch ~= opt.batch then add("memory", opt.threads, batch).main = main end
  end
  for _, from in ipairs { "bin", known.text } do add(from, opt.threads, opt.batch).main = main end
end

for round = 1, opt.times do
  for _, r in ipairs(runs) do
    io.stderr:write(("\rround %d of %d: %-10s %-6s %d x %-5d"):format(round, opt.times, r.model, r.from,
      r.threads, r.batch))
    local own = train(r)
    r.rates[round], r.rows = settled(own), own.rows
    r.peak_rss_bytes = math.max(r.peak_rss_bytes or 0, own.peak_rss_bytes)
    if r.limits then r.limits[round] = limit_of(r) end
    if r.ratios then
      local other = peer(r)
      r.peer, r.peer_rates[round] = other.peer, settled(other)
      r.ratios[round] = r.rates[round] / r.peer_rates[round]
    end
  end
end
for _, r in ipairs(runs) do
  if r.main == r then r.auc = quality(r) end
end
io.stderr:write("\r", (" "):rep(60), "\r")

-- ---- the table -------------------------------------------------------------------------------

local last = {}
local kept = io.open(opt.last)
if kept then
  local results = json.decode(kept:read "*a") or {}
  kept:close()
  if results.machine and results.machine.processor == machine.processor then last = results.runs end
end

local function was(r)
  for _, l in ipairs(last) do
    if l.model == r.model and l.from == r.from and l.threads == r.threads and l.batch == r.batch
      and l.rows == r.rows then
      return ("%.2f"):format(median(r.rates) / median(l.rates))
    end
  end
  return ""
end

-- Median over the rounds of its rate by that of the model's main run.
local function of_main(r)
  local t = {}
  for i, rate in ipairs(r.rates) do t[i] = rate / r.main.rates[i] end
  return median(t)
end

print(("%s, %d processors%s; one epoch, medians of %d; rates in samples a second\n"):format(
  machine.processor, machine.processors, machine.virtual and ", virtual" or "", opt.times))
print(("%-10s %-6s %7s %5s %9s %17s %5s %5s  %5s  %-22s%s"):format("model", "from", "threads", "batch",
  "rate", "range", "rel.", "last", "MB", "limit", "PyTorch"))
for _, r in ipairs(runs) do
  local limit, other = "", ""
  if r.limits then
    limit = ("%3.0f %% %s"):format(100 * median(r.rates) / median(r.limits), MODELS[r.model].limit[2])
  end
  if r.ratios then
    other = ("%.0f, %.1fx (%s)"):format(median(r.peer_rates), median(r.ratios), range(r.ratios, "%.1f"))
  end
  print((("%-10s %-6s %7d %5d %9.0f %17s %5.2f %5s  %5.0f  %-22s%s"):format(r.model, r.from, r.threads,
    r.batch, median(r.rates), range(r.rates, "%.0f"), of_main(r), was(r), r.peak_rss_bytes / 1e6,
    limit, other)):match "^(.-)%s*$")
end
print "\nAUC after the whole epoch:"
for _, r in ipairs(runs) do
  if r.auc then print(("%-10s %.4f"):format(r.model, r.auc)) end
end
local texts = {}
for _, file in ipairs { "svm", "ffm" } do
  texts[file] = tonumber(output(("%s text '%s/train.%s'"):format(opt.limit, opt.data, file)))
end
print(("\nNumbers of text read by a plain loop, one thread: %.0f lines a second of libsvm, %.0f of libffm")
  :format(texts.svm, texts.ffm))

for _, r in ipairs(runs) do r.main = nil end
common.save(opt.out, { machine = machine, load = load, date = os.date "!%Y-%m-%dT%H:%M:%SZ",
  commit = output("git rev-parse --short HEAD 2>/dev/null"):match "%S+", text_lines = texts, runs = runs })

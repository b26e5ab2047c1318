-- The benchmarks, one after the other, and the table of what came out. Each pair of runs (ours, the
-- peer's) is made back to back, because machines drift; ratios are taken within pairs.
local json = require "dkjson"

local parser = require "argparse"("run.lua", "Runs the benchmarks; see tests/bench/README.md.")
parser:option("--data", "Directory with train.bin and test.bin."):count(1)
parser:option("--limit", "The compiled limit.c."):count(1)
parser:option("--out", "File that the results are written to, as JSON."):count(1)
parser:option("--repeat", "Runs of each."):convert(tonumber):target "times"
parser:option("--threads", "Threads."):convert(tonumber)
parser:option("--batch", "Rows a step."):convert(tonumber)
parser:option("--models", "Names, separated by spaces.")
parser:flag("--peer", "PyTorch too, in turn.")
local opt = parser:parse()

local OPENMP_BLAS = "/usr/lib/" .. io.popen("uname -m"):read "*l" .. "-linux-gnu/openblas-openmp"

local function output(command)
  local pipe = io.popen(command)
  local text = pipe:read "*a"
  pipe:close()
  return text
end

local function must(command)
  local text = output(command)
  local result = json.decode(text)
  if not result then
    io.stderr:write("bench: this command failed: ", command, "\n", text)
    os.exit(1)
  end
  return result
end

local function median(t)
  local s = { unpack(t) }
  table.sort(s)
  local middle = math.floor(#s / 2)
  return #s % 2 == 1 and s[middle + 1] or (s[middle] + s[middle + 1]) / 2
end

local function range(t, format)
  return (format .. "-" .. format):format(math.min(unpack(t)), math.max(unpack(t)))
end

local function arguments(model, with_test)
  local test = with_test and (" --test '%s/test.bin'"):format(opt.data) or ""
  return (" --model %s --data '%s/train.bin'%s --batch %d --threads %d --repeat 1 --json"):format(
    model, opt.data, test, opt.batch, opt.threads)
end

-- The most that this machine can do of a model's work, or of its largest part.
local LIMITS = {
  fm = { "fm %d %d '" .. opt.data .. "/train.bin'", "of FM in plain C" },
  wide_deep = { "mlp %d %d", "of its matmuls alone" },
  deepfm = { "mlp %d %d", "of its matmuls alone" },
}

local function limit_of(model)
  local limit = LIMITS[model]
  if not limit then return nil end
  return tonumber(output(opt.limit .. " " .. limit[1]:format(opt.threads, opt.batch)))
end

local function run(model)
  local r = { model = model, batch = opt.batch, threads = opt.threads, rates = {}, limits = {},
    peer_rates = opt.peer and {} or nil, ratios = opt.peer and {} or nil }
  for i = 1, opt.times do
    local own = must("./moonrock tests/bench/train.lua" .. arguments(model, i == 1))
    r.rates[i], r.rows = own.rows_per_second, own.rows
    r.auc, r.peak_rss_bytes = r.auc or own.auc, r.peak_rss_bytes or own.peak_rss_bytes
    r.limits[i] = limit_of(model)
    if opt.peer then
      local peer = must(("LD_LIBRARY_PATH=%s:$LD_LIBRARY_PATH %s tests/bench/peer.py"):format(
        OPENMP_BLAS, os.getenv "PYTHON" or "/usr/bin/python3") .. arguments(model, i == 1))
      r.peer_rates[i], r.ratios[i] = peer.rows_per_second, own.rows_per_second / peer.rows_per_second
      r.peer, r.peer_auc = peer.peer, r.peer_auc or peer.auc
    end
  end
  return r
end

local machine = output("sed -n 's/^model name[^:]*: //p' /proc/cpuinfo"):match "[^\n]*" or "unknown"
print(("\n%s, %d threads, batch %d, in memory, one epoch; medians of %d\n"):format(machine,
  opt.threads, opt.batch, opt.times))
print(("%-10s %9s %17s %6s %7s  %-26s%s"):format("model", "rows/s", "range", "auc", "peak MB",
  "limit", opt.peer and "  PyTorch rows/s   auc  ratio (range)" or ""))

local load = tonumber(output "cat /proc/loadavg":match "%S+") or 0
if load > 0.5 then
  io.stderr:write(("bench: the load average is %.1f before it starts: others use this machine, and "
    .. "the figures say little. PyTorch's threads suffer most, so its ratios flatter us.\n"):format(
    load))
end

local results = { machine = machine, load = load, data = opt.data, date = os.date "!%Y-%m-%dT%H:%M:%SZ",
  models = {} }
for model in opt.models:gmatch "%S+" do
  local r = run(model)
  local rate = median(r.rates)
  local line = ("%-10s %9.0f %17s %6.4f %7.0f  "):format(model, rate, range(r.rates, "%.0f"), r.auc,
    r.peak_rss_bytes / 1e6)
  local limit = ""
  if #r.limits > 0 then
    limit = ("%.0f %% %s"):format(100 * rate / median(r.limits), LIMITS[model][2])
  end
  line = line .. ("%-26s"):format(limit)
  if r.ratios then
    line = line .. ("  %14.0f %.4f  %.2f (%s)"):format(median(r.peer_rates), r.peer_auc,
      median(r.ratios), range(r.ratios, "%.2f"))
  end
  print(line)
  io.stdout:flush()
  results.models[#results.models + 1] = r
end

local file = assert(io.open(opt.out, "w"))
file:write(json.encode(results, { indent = true }), "\n")
file:close()

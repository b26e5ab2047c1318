-- One model, one epoch. From memory, forward, backward and optimizer steps are timed, and reading and
-- parsing are not; with --stream they are. Nothing is shuffled. tests/bench/peer.py is the same from
-- memory in PyTorch, with the same options and output.
--
--   ./moonrock tests/bench/train.lua --model fm --data d/train.bin --test d/test.bin --json
local json = require "dkjson"
local mr = require "moonrock"
local C = require "moonrock.ffi"

local parser = require "argparse"("train.lua", "Times one epoch of training from memory.")
parser:option("--model", "A shipped model, or the path of one."):count(1)
parser:option("--data", "Training rows; as bin, FIELDS int64 ids and an int64 label each.")
  :count(1)
parser:option("--format", "Of both files.", "bin"):choices { "bin", "libsvm", "libffm" }
parser:flag("--stream", "Read and parse the file while training on it, in every epoch.")
parser:option("--test", "Rows to give the AUC of after the first epoch.")
parser:option("--fields", "Ids a row.", "39"):convert(tonumber)
parser:option("--dim", "Width of the vectors.", "16"):convert(tonumber)
parser:option("--batch", "Rows a step.", "1024"):convert(tonumber)
parser:option("--threads", "Threads.", "2"):convert(tonumber)
parser:option("--rows", "Train on the first ROWS rows only; 0: all.", "0"):convert(tonumber)
parser:option("--repeat", "Epochs, each of a fresh model.", "3"):convert(tonumber):target "times"
parser:option("--opt", "Optimizer of the tables.", "adagrad"):choices { "adagrad", "adam" }
parser:flag("--json", "One JSON object instead of a line.")
local opt = parser:parse()

local tables = opt.opt == "adam" and mr.optim.adam { lr = 0.003 } or mr.optim.adagrad { lr = 0.05 }
local dense = mr.optim.adam { lr = 1e-3 }
local definition = mr.find(opt.model)

-- Batches of a file. In memory, the first epoch, which reads it, is gone through before any clock
-- starts; those after it hand out what is there.
local function load(path, size, epochs, limit, stream)
  local data = mr.data { files = path, format = opt.format, fields = opt.fields }
  local it = data:batches(nil, { size = size, epochs = epochs + (stream and 0 or 1), limit = limit,
    memory = not stream })
  if not stream then
    for batch in it do
      if batch.last_of_epoch then break end
    end
  end
  return data, it
end

-- One epoch of a fresh model over the full batches: rows and seconds.
local function epoch(data, batches, seed)
  local model = definition { data = data, seed = seed, threads = opt.threads, dim = opt.dim,
    optim = tables, dense = dense, dense_optim = dense }
  local rows = 0
  local began = C.mr_clock()
  local ended
  if opt.stream then batches = select(2, load(opt.data, opt.batch, 1, opt.rows, true)) end
  for batch in batches do
    if batch.n == opt.batch then
      mr.bce(model(batch), batch.label):backward()
      model:step()
      rows, ended = rows + batch.n, C.mr_clock()
    end
    if batch.last_of_epoch then break end
  end
  if opt.stream then batches:close() end
  return model, rows, ended - began
end

local function median(t)
  local s = { unpack(t) }
  table.sort(s)
  local middle = math.floor(#s / 2)
  return #s % 2 == 1 and s[middle + 1] or (s[middle] + s[middle + 1]) / 2
end

local data, batches = load(opt.data, opt.batch, opt.times, opt.rows, opt.stream)
if opt.stream then batches:close() end
local rates, rows, peak, auc = {}, nil, nil, nil
for r = 1, opt.times do
  local model, n, seconds = epoch(data, batches, r)
  rows, rates[r] = n, math.floor(n / seconds + 0.5)
  if r == 1 then
    peak = C.mr_memory_peak()
    if opt.test then
      local _, test = load(opt.test, 4096, 1)
      auc = mr.evaluate(model, test).auc
    end
  end
  model:close()
end
if not opt.stream then batches:close() end

local out = { peer = "moonrock " .. mr.version, model = opt.model, opt = opt.opt, batch = opt.batch,
  from = opt.stream and opt.format or "memory", threads = opt.threads, rows = rows,
  rows_per_second = math.floor(median(rates) + 0.5),
  rows_per_second_all = rates, auc = auc, peak_rss_bytes = peak }
if opt.json then
  print(json.encode(out))
else
  print(("%s %s: %d rows/s (of %s), auc %s, %.0f MB"):format(out.peer, out.model,
    out.rows_per_second, table.concat(rates, ", "), auc and ("%.4f"):format(auc) or "-",
    peak / 1e6))
end

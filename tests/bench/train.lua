-- One model, one epoch. From memory, forward, backward and optimizer steps are timed, and reading and
-- parsing are not; with --stream they are. Nothing is shuffled. tests/bench/peer.py is the same from
-- memory in PyTorch, with the same options and output.
--
--   ./moonrock tests/bench/train.lua --model fm --data d/train.bin --test d/test.bin --json
local json = require "dkjson"
local mr = require "moonrock"
local C = require "moonrock.ffi"
local median = require("tests.bench.common").median

local parser = require "argparse"("train.lua", "Times one epoch of training.")
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
parser:option("--opt", "Optimizer of the tables.", "adagrad"):choices { "adagrad", "adam", "ftrl" }
parser:option("--lr", "Their learning rate; Adagrad's is 0.05, Adam's 0.003, FTRL's 0.1."):convert(tonumber)
parser:option("--precision", "Of their rows.", "float32"):choices { "float32", "bf16" }
parser:flag("--json", "One JSON object instead of a line.")
local opt = parser:parse()

local RATES = { adagrad = 0.05, adam = 0.003, ftrl = 0.1 }
opt.lr = opt.lr or RATES[opt.opt]
local tables = mr.optim[opt.opt] { lr = opt.lr }
local dense = mr.optim.adam { lr = 1e-3 }
local definition = mr.find(opt.model)

local function data_of(path)
  return mr.data { files = path, format = opt.format, fields = opt.fields }
end

-- Batches of a file that is read and parsed before the first of them is handed out, for so many epochs.
local function in_memory(data, size, epochs, limit)
  local it = data:batches(nil, { size = size, epochs = epochs + 1, limit = limit, memory = true })
  for batch in it do
    if batch.last_of_epoch then break end
  end
  return it
end

local data = data_of(opt.data)
local kept = not opt.stream and in_memory(data, opt.batch, opt.times, opt.rows)

-- One epoch of a fresh model over the full batches: rows and seconds.
local function epoch(seed)
  local model = definition { data = data, seed = seed, threads = opt.threads, dim = opt.dim,
    optim = tables, dense = dense, dense_optim = dense,
    precision = opt.precision }
  local rows = 0
  local began = C.mr_clock()
  local ended
  local batches = kept or data:batches(nil, { size = opt.batch, epochs = 1, limit = opt.rows,
    memory = false })
  for batch in batches do
    if batch.n == opt.batch then
      mr.bce(model(batch), batch.label):backward()
      model:step()
      rows, ended = rows + batch.n, C.mr_clock()
    end
    if batch.last_of_epoch then break end
  end
  if not kept then batches:close() end
  if not ended then error(("%s: holds no full batch of %d rows"):format(opt.data, opt.batch), 0) end
  return model, rows, ended - began
end

local rates, rows, peak, auc = {}, nil, nil, nil
for r = 1, opt.times do
  local model, n, seconds = epoch(r)
  rows, rates[r] = n, math.floor(n / seconds + 0.5)
  if r == 1 then
    peak = C.mr_memory_peak()
    if opt.test then
      auc = mr.evaluate(model, in_memory(data_of(opt.test), 4096, 1)).auc
    end
  end
  model:close()
end
if kept then kept:close() end

local out = { peer = "moonrock " .. mr.version, model = opt.model, opt = opt.opt, lr = opt.lr,
  precision = opt.precision, batch = opt.batch,
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

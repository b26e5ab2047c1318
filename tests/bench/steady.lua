-- Two figures of a table that is resident:
--
--   ./moonrock tests/bench/steady.lua new --dir DIR           a stream of nothing but new keys, beside
--                                                             the same keys again, in another order
--   ./moonrock tests/bench/steady.lua commits --dir DIR       training that commits every ten seconds,
--                                                             beside training that does not
local ffi = require "ffi"
local mr = require "moonrock"
local C = require "moonrock.ffi"

local parser = require "argparse"("steady.lua", "New keys, and commits, in a resident table.")
parser:argument("what", "new or commits"):choices { "new", "commits" }
parser:option("--dir", "Directory to work in."):count(1)
parser:option("--keys", "Distinct keys.", "2000000"):convert(tonumber)
parser:option("--seconds", "Of each kind of training, in turns of 30.", "90"):convert(tonumber)
parser:option("--model", "A shipped model.", "fm")
parser:option("--threads", "Threads.", "2"):convert(tonumber)
local opt = parser:parse()

local FIELDS, BATCH = 39, 1024

os.execute("mkdir -p " .. opt.dir)
local path, store = opt.dir .. "/steady.bin", opt.dir .. "/steady"
os.execute("rm -rf " .. store)

-- Every key once, or Zipf-like draws of them.
local function write(samples, draw, to)
  local file = assert(io.open(to or path, "wb"))
  local row = ffi.new("uint64_t[?]", FIELDS + 1)
  for s = 0, samples - 1 do
    for j = 0, FIELDS - 1 do
      row[j] = (ffi.cast("uint64_t", draw(s * FIELDS + j)) + 1) * 0x9e3779b97f4a7c15ULL
    end
    row[FIELDS] = s % 3 == 0 and 1 or 0
    file:write(ffi.string(row, 8 * (FIELDS + 1)))
  end
  file:close()
end

local function model_of(options)
  options.store, options.data = store, mr.data { format = "bin", fields = FIELDS }
  options.threads = opt.threads
  return mr.find(opt.model)(options)
end

local function step(model, batch)
  mr.bce(model(batch), batch.label):backward()
  model:step()
end

if opt.what == "new" then
  local samples = math.floor(opt.keys / FIELDS)
  local n, again = samples * FIELDS, opt.dir .. "/again.bin"
  local a, b = 7368787 % n, n -- a number without common divisors with n makes a permutation
  while b ~= 0 do a, b = b, a % b end
  assert(a == 1, "choose another number of keys")
  write(samples, function(i) return i end)
  write(samples, function(i) return (i * 7368787) % n end, again)
  local model = model_of { commit_seconds = 1e9 }
  local function rate(file, epoch)
    local began
    local batches = model:batches(file, { size = BATCH, epochs = epoch, shuffle = false })
    for batch in batches do
      began = began or C.mr_clock()
      step(model, batch)
    end
    batches:close()
    return samples / (C.mr_clock() - began)
  end
  local new, old = rate(path, 1), rate(again, 2)
  print(("%.0f new keys: %.0f rows/s; the same keys in another order: %.0f rows/s; ratio %.2f; resident %d")
    :format(model.tables[1]:rows(), new, old, new / old, C.mr_table_resident(model.tables[1].c)))
  model:close()
else
  local state = 42
  local function random()
    state = (state * 16807) % 2147483647
    return state / 2147483647
  end
  write(200000, function() return math.floor(random() ^ 3 * opt.keys) end)
  local model = model_of { commit_seconds = 10 }
  local rows, seconds, turn, began, turns = { 0, 0 }, { 0, 0 }, 2, nil, 0
  local commits = 0
  local behind = model.commit_behind
  function model:commit_behind() -- luacheck: ignore self
    if turn == 2 then return end
    commits = commits + 1
    behind(model)
  end
  for batch in model:batches(path, { size = BATCH, epochs = 100000, shuffle = false, memory = true }) do
    began = began or C.mr_clock()
    step(model, batch)
    rows[turn] = rows[turn] + batch.n
    if C.mr_clock() - began >= 30 then
      seconds[turn] = seconds[turn] + C.mr_clock() - began
      turns = turns + 1
      if turns * 30 >= 2 * opt.seconds then break end
      turn = 3 - turn
      model.committed_at, began = C.mr_clock(), C.mr_clock()
    end
  end
  local with, without = rows[1] / seconds[1], rows[2] / seconds[2]
  print(("%.0f rows in the table; %d commits in %.0f s: %.0f rows/s, without: %.0f rows/s; they cost %.1f %%"
    ):format(model.tables[1]:rows(), commits, seconds[1], with, without, 100 * (1 - with / without)))
  model:close()
end

-- Every option of every command, by what it does. The list is the program's own: an option that is declared
-- and has no test here fails the suite.
local ffi = require "ffi"
local json = require "dkjson"
local argparse = require "argparse"
local shell = require "tests.support.shell"
local cli = require "moonrock.cli"
local size = require "moonrock.size"

local dir = shell.directory()
local run, write = shell.moonrock, shell.write

-- 64 samples: keys 1 to 7 come again and again, 101 to 164 once.
local function samples(name, n, from)
  local lines = {}
  for i = 1, n do lines[i] = ("%d %d:1 %d:1"):format(i % 2, i % 7 + 1, from + i) end
  return write(dir .. "/" .. name, table.concat(lines, "\n") .. "\n")
end

local DATA, OTHER, FIFTY = samples("a.libsvm", 64, 100), samples("b.libsvm", 64, 1000),
  samples("c.libsvm", 50, 100)

local number = 0
local function fresh()
  number = number + 1
  return ("%s/s%d"):format(dir, number)
end

local function good(...)
  local status, out, errors = run(...)
  assert.equal(0, status, errors)
  return out, errors
end

local function events(...)
  local list = {}
  for line in good(...):gmatch "[^\n]+" do
    local event = assert(json.decode(line), line)
    list[#list + 1], list[event.event or "only"] = event, event
  end
  return list
end

local function info(store) return events("info", "--store", store, "--json").only end

-- Rows of a store by key: step, count, weight.
local function rows(store, ...)
  local list, n = {}, 0
  for key, step, count, w in good("export", "--store", store, "--out", "-", "--format", "tsv", ...)
    :gmatch "\n[^\t]+\t(%d+)\t(%d+)\t(%d+)\t([^\t\n]+)" do
    list[key], n = { step = tonumber(step), count = tonumber(count), w = tonumber(w) }, n + 1
  end
  return list, n
end

local function norm(store)
  local sum = 0
  for _, row in pairs((rows(store))) do sum = sum + row.w ^ 2 end
  return math.sqrt(sum)
end

-- A model that is trained or that learns, on DATA; words that come later count. Returns its store, what was
-- printed, and standard error.
local function train_with(model, data, ...)
  local store = fresh()
  return store, events("train", model, "--store", store, "--data", data, "--json", ...)
end

local function learn_with(model, data, ...)
  local store = fresh()
  return store, events("learn", model, "--store", store, "--source", data, "--json", ...)
end

local function digest(store) return info(store).digest end

-- A command in a process that then says how many threads and bytes it was given.
local function machine(...)
  local words = {}
  for i, word in ipairs { ... } do words[i] = ("%q"):format(word) end
  local out = good("-e", ([=[local status = require("moonrock.cli").main { %s }
    local C = require "moonrock.ffi"
    print(("\n%%d %%d %%.0f"):format(status, C.mr_threads(), C.mr_memory_limit()))]=]):format(table.concat(words, ", ")))
  local status, threads, bytes = out:match "\n(%d+) (%d+) (%d+)\n$"
  assert.equal("0", status)
  return tonumber(threads), tonumber(bytes)
end

-- A model with two tables of two columns each, and one that it may be cut down to; each tells the samples of
-- its batches while it scores.
local function model_file(name, text) return write(dir .. "/" .. name, text) end
local TWO = model_file("two.lua", [=[
local mr = require "moonrock"
return mr.model("two", function(m)
  local a = m:table("a", { w = { dim = 1, init = { "normal", 1 } }, v = { dim = 2, init = { "normal", 0.5 }, admit = 2 } })
  local b = m:table("b", { w = { dim = 1 } })
  return function(x)
    local r = a(x)
    return r.w:sum() + b(x).w:sum() + mr.fm(r.v)
  end
end, { optim = "sgd" })
]=])
local LESS = model_file("less.lua", [=[
local mr = require "moonrock"
return mr.model("two", function(m)
  local a = m:table("a", { w = { dim = 1, init = { "normal", 1 } }, v = { dim = 2, init = { "normal", 0.5 }, admit = 2 } })
  return function(x)
    local r = a(x)
    return r.w:sum() + mr.fm(r.v)
  end
end, { optim = "sgd" })
]=])
local TELLS = model_file("lr.lua", [=[
local mr = require "moonrock"
return mr.model("lr", function(m)
  local row = m:table("features", { w = { dim = 1 } })
  local bias = m:param("bias", { 1 })
  return function(x)
    io.stderr:write("samples ", x.n, "\n")
    return row(x).w:sum() + bias
  end
end, { optim = "adagrad" })
]=])

-- Columns of text: a schema that names its files.
local function cells(name, from)
  local lines = { "y,city,x" }
  for i = 1, 30 do lines[i + 1] = ("%d,%s,%d"):format(i % 2, ({ "Rome", "Oslo", "Bern" })[i % 3 + 1], from + i) end
  return write(dir .. "/" .. name, table.concat(lines, "\n") .. "\n")
end
local CELLS = cells("cells.csv", 0)
cells("cells_test.csv", 5)
local SCHEMA = write(dir .. "/places.lua", [=[
local mr = require "moonrock"
return mr.schema { name = "places", label = "y", files = { train = "cells.csv", test = "cells_test.csv" },
  fields = { mr.category "city", mr.bucket("x", { edges = { 10, 20 } }) } }
]=])

-- An epoch in one step, from weights of 0, by plain descent.
local ONE = { "--batch", "64", "--optim", "sgd" }
local function with(list, ...)
  local all = { unpack(list) }
  for _, word in ipairs { ... } do all[#all + 1] = word end
  return unpack(all)
end

local FAKE_BLANK = write(dir .. "/bad.libsvm", "1 1:1\nnonsense here\n0 2:1\n")

-- ---- what train and learn share ----------------------------------------------------------------

local function shared(teach)
  local t = {}
  local command, data = teach == train_with and "train" or "learn", teach == train_with and "--data" or "--source"
  t["--store"] = function() assert.equal("lr", info((teach("lr", DATA))).model) end
  t["--lr"] = function()
    local slow, fast = teach("lr", DATA, with(ONE, "--lr", "0.1")), teach("lr", DATA, with(ONE, "--lr", "0.5"))
    assert.near(5, norm(fast) / norm(slow), 1e-4)
  end
  t["--optim"] = function()
    assert.truthy(info((teach("lr", DATA, "--optim", "adam"))).tables[1].columns:find("optimizer adam ", 1, true))
  end
  t["--schedule"] = function()
    local plain, late = teach("lr", DATA, with(ONE, "--lr", "1")), teach("lr", DATA, with(ONE, "--lr", "1",
      "--schedule", "warmup(1000000)"))
    assert.truthy(norm(late) > 0 and norm(late) < norm(plain) / 10000)
  end
  t["--set"] = function()
    assert.truthy(info((teach("fm", DATA, "--set", "dim=3"))).tables[1].columns:find("dim 3", 1, true))
  end
  t["--seed"] = function()
    local a = digest((teach("fm", DATA, "--seed", "7")))
    assert.equal(a, digest((teach("fm", DATA, "--seed", "7"))))
    assert.not_equal(a, digest((teach("fm", DATA, "--seed", "8"))))
  end
  t["--commit-every"] = function()
    local function commits(every)
      local _, out = shell.run(("ACKNOWLEDGED=digest %s tests/support/acknowledged.lua %s lr --store %s %s %s "
        .. "--batch 8 --commit-every %s"):format(shell.program, command, fresh(), data, DATA, every))
      local steps = {}
      for step in out:gmatch "done (%d+)" do steps[step] = true end
      return steps
    end
    local two, four = commits "2", commits "4"
    assert.same({ true, true, true, true }, { two["2"], two["4"], two["6"], two["8"] })
    assert.same({ true, true }, { four["4"], four["8"] })
    assert.falsy(four["2"] or four["6"])
  end
  t["--loss"] = function()
    local store = teach("lr", DATA, "--loss", "mse")
    local test = events("eval", "--store", store, "--data", DATA, "--json").result.test
    assert.is_nil(test.logloss)
    assert.truthy(test.rmse)
  end
  t["--clip-norm"] = function()
    assert.truthy(norm((teach("lr", DATA, with(ONE, "--lr", "1")))) > 0.03)
    local clipped = norm((teach("lr", DATA, with(ONE, "--lr", "1", "--clip-norm", "0.01"))))
    assert.truthy(clipped > 0.005 and clipped < 0.0100001, clipped)
  end
  t["--admit"] = function()
    assert.equal(71, info((teach("lr", DATA, "--batch", "8"))).table_rows)
    assert.equal(7, info((teach("lr", DATA, "--batch", "8", "--admit", "2"))).table_rows)
  end
  t["--precision"] = function()
    local store = teach("lr", DATA, "--precision", "bf16")
    for _, row in pairs((rows(store))) do
      local cell = ffi.new("union { float f; uint32_t u; }", { f = row.w })
      assert.equal(0, cell.u % 65536)
    end
  end
  t["--ttl"] = function()
    for _, more in ipairs { { "--ttl", "1s" }, {} } do
      local store, word = teach("lr", DATA, unpack(more)), teach == train_with and "--data" or "--source"
      os.execute "sleep 2.1"
      good(teach == train_with and "train" or "learn", "lr", "--store", store, word, OTHER, unpack(more))
      assert.equal(not more[1], (rows(store))["101"] ~= nil)
    end
  end
  t["--threads"] = function()
    assert.equal(digest((teach("fm", DATA, "--threads", "1"))), digest((teach("fm", DATA, "--threads", "3"))))
    assert.equal(3, (machine(command, "lr", "--store", fresh(), data, DATA, "--threads", "3")))
  end
  t["--memory"] = function()
    assert.equal(3e9, select(2, machine(command, "lr", "--store", fresh(), data, DATA, "--memory", "3GB")))
    local status, _, problem = run(command, "lr", "--store", fresh(), data, DATA, "--memory", "1KB")
    assert.equal(1, status)
    assert.truthy(problem:find("less than it needs", 1, true), problem)
  end
  t["--schema"] = function()
    assert.equal("places", info((teach("lr", CELLS, "--schema", SCHEMA))).schema)
  end
  t["--fields"] = function()
    local status, _, problem = run(command, "ffm", "--store", fresh(), data, DATA)
    assert.equal(1, status)
    assert.truthy(problem:find("--fields", 1, true), problem)
    teach("ffm", DATA, "--fields", "2")
    status, _, problem = run(command, "ffm", "--store", fresh(), data, DATA, "--fields", "3")
    assert.equal(1, status)
    assert.truthy(problem:find("expected 3 entries", 1, true), problem)
  end
  t["--allow-drop"] = function()
    local store = teach(TWO, DATA)
    local status, _, problem = run(command, LESS, "--store", store, data, OTHER)
    assert.equal(1, status)
    assert.truthy(problem:find('would lose what the store has: table "b"', 1, true), problem)
    assert.equal(2, #info(store).tables)
    good(command, LESS, "--store", store, data, OTHER, "--allow-drop")
    assert.equal(1, #info(store).tables)
  end
  t["--bad-lines"] = function()
    local _, list = teach("lr", FAKE_BLANK, "--bad-lines", "skip")
    assert.equal(1, list.result.bad_lines)
    assert.equal(1, (run(teach == train_with and "train" or "learn", "lr", "--store", fresh(),
      teach == train_with and "--data" or "--source", FAKE_BLANK, "--bad-lines", "error")))
  end
  t["--batch"] = function()
    local _, list = teach("lr", DATA, "--batch", "16")
    assert.equal(4, list.result.steps)
  end
  t["--format"] = function()
    local plain = write(dir .. "/plain", shell.read(DATA))
    assert.equal(71, info((teach("lr", plain, "--format", "libsvm"))).table_rows)
  end
  t["--json"] = function()
    local _, list = teach("lr", DATA)
    assert.truthy(list.result)
  end
  t["--normalize"] = function()
    assert.not_equal(digest((teach("lr", DATA))), digest((teach("lr", DATA, "--normalize", "sample"))))
  end
  t["--max-rows"] = function()
    local more = teach == train_with and { "--epochs", "200" } or { "--batch", "1" }
    local many = teach == train_with and FIFTY or samples("long.libsvm", 10000, 100)
    local store = teach("lr", many, "--batch", "1", "--max-rows", "10", unpack(more))
    assert.equal(10, info(store).table_rows)
  end
  t["--from"] = function()
    local store = teach("lr", DATA, "--batch", "16")
    local words = teach == train_with and { "train", "lr", "--store", store, "--data", DATA }
      or { "learn", "lr", "--store", store, "--source", DATA }
    good(with(words, "--batch", "16"))
    assert.equal(4, info(store).step)
    good(with(words, "--batch", "16", "--from", "start"))
    assert.equal(8, info(store).step)
  end
  return t
end

-- ---- each command --------------------------------------------------------------------------------

local tests = { train = shared(train_with), learn = shared(learn_with) }
local train, learn = tests.train, tests.learn

train["--data"] = function() assert.equal(135, info((train_with("lr", DATA, "--data", OTHER))).table_rows) end
train["--valid"] = function()
  local _, list = train_with("lr", DATA, "--valid", "0.25")
  assert.equal(64, list.epoch.rows + list.epoch.valid.rows)
end
train["--test"] = function()
  local _, list = train_with("lr", DATA, "--test", OTHER)
  assert.equal(64, list.result.test.rows)
end
train["--no-test"] = function()
  local function tested(...) return events("train", "lr", "--store", fresh(), "--schema", SCHEMA, "--json", ...).result.test end
  assert.equal(30, tested().rows)
  assert.is_nil(tested "--no-test")
end
do
  local plain = train["--bad-lines"]
  train["--bad-lines"] = function()
    plain()
    local three = write(dir .. "/three.libsvm", "1 1:1\nno\n0 2:1\nno\nno\n")
    local _, list = train_with("lr", FAKE_BLANK, "--bad-lines", "skip", "--test", three)
    assert.equal(2, list.result.test.rows)
    assert.equal(1, list.result.bad_lines) -- of the training data
  end
end
train["--epochs"] = function()
  local _, list = train_with("lr", DATA, "--epochs", "3", "--batch", "64")
  assert.equal(3, list.result.steps)
end
train["--patience"] = function()
  local _, list = train_with("lr", DATA, "--epochs", "50", "--valid", OTHER, "--patience", "1", "--lr", "1000")
  assert.truthy(list.epoch.epoch < 50)
end
train["--shuffle"] = function()
  local off = digest((train_with("lr", DATA, "--batch", "8", "--shuffle", "off")))
  assert.not_equal(off, digest((train_with("lr", DATA, "--batch", "8", "--shuffle", "window"))))
  assert.not_equal(off, digest((train_with("lr", DATA, "--batch", "8", "--shuffle", "full"))))
end
train["--window"] = function()
  assert.equal(digest((train_with("lr", DATA, "--batch", "8", "--shuffle", "off"))),
    digest((train_with("lr", DATA, "--batch", "8", "--window", "1"))))
end
train["--folds"] = function()
  local store, list = train_with("lr", DATA, "--folds", "2")
  assert.equal(2, list.folds.folds)
  assert.equal(1, info(store .. ".1").step)
  assert.equal(1, info(store .. ".2").step)
end
train["--profile"] = function()
  local _, list = train_with("lr", DATA, "--profile")
  assert.truthy(list.profile)
end
learn["--source"] = function() assert.equal(71, info((learn_with("lr", DATA))).table_rows) end
learn["--window"] = function()
  local _, list = learn_with("lr", DATA, "--window", "16")
  assert.equal(16, list.result.window.rows)
end
learn["--max-wait"] = function()
  -- The last sample comes only after the first three were learned, though a batch has room for a hundred.
  local out = dir .. "/waited"
  local status, _, problem = shell.run(("rm -f %s; { head -3 %s; n=0; while [ ! -s %s ] && [ $n -lt 600 ]; do sleep 0.1; "
    .. "n=$((n+1)); done; tail -1 %s; } | %s learn lr --source - --format libsvm --store %s --batch 100 --max-wait 0.1 "
    .. "--every 1 --json >%s"):format(out, DATA, out, DATA, shell.program, fresh(), out))
  assert.equal(0, status, problem)
  local text = shell.read(out)
  assert.truthy(text:find('"event":"window"[^\n]*"rows":3,'), text)
  assert.equal(2, json.decode(text:match "([^\n]+)\n$").steps)
end
learn["--follow"] = function()
  local grows, out, store = write(dir .. "/grows.libsvm", shell.read(DATA)), dir .. "/followed", fresh()
  local status, _, problem = shell.run(([[
    lines() { n=0; while [ "$(grep -c window %s)" -lt $1 ] && [ $n -lt 600 ]; do sleep 0.1; n=$((n+1)); done; }
    %s learn lr --source %s --store %s --follow --batch 16 --every 16 --json >%s & pid=$!
    lines 4; cat %s >>%s; lines 8; kill -TERM $pid; wait $pid]]):format(out, shell.program, grows, store, out, OTHER, grows))
  assert.equal(128 + 15, status, problem)
  assert.equal(128, info(store).position.samples)
end
learn["--every"] = function()
  local _, list = learn_with("lr", DATA, "--every", "16 samples")
  assert.equal(16, list[1].rows)
  assert.equal(32, list[2].rows)
end

local STORE
local function trained()
  STORE = STORE or train_with("lr", DATA, "--batch", "8")
  return STORE
end

-- A store whose code another user signed, each of other code.
local function foreign()
  local store = fresh()
  local model = write(store .. ".lua", ("%s-- %s\n"):format(shell.read(TWO), store))
  local status, _, problem = shell.run(("MOONROCK_CONFIG=%s/other %s train %s --store %s --data %s"):format(dir,
    shell.program, model, store, DATA))
  assert.equal(0, status, problem)
  return store
end

local function scoring(command)
  local t = {}
  t["--store"] = function() good(command, "--store", trained(), "--data", DATA) end
  t["--threads"] = function()
    local function out(n) return good(command, "--store", trained(), "--data", DATA, "--threads", n) end
    assert.equal(out "1":gsub("seconds[^\n]*", ""), out "3":gsub("seconds[^\n]*", ""))
    assert.equal(3, (machine(command, "--store", trained(), "--data", DATA, "--threads", "3")))
  end
  t["--memory"] = function()
    assert.equal(3e9, select(2, machine(command, "--store", trained(), "--data", DATA, "--memory", "3GB")))
    assert.equal(1, (run(command, "--store", trained(), "--data", DATA, "--memory", "1KB")))
  end
  t["--batch"] = function()
    local sizes = {}
    local _, told = good(command, TELLS, "--store", trained(), "--data", DATA, "--batch", "24")
    for n in told:gmatch "samples (%d+)" do sizes[#sizes + 1] = tonumber(n) end
    assert.same({ 24, 24, 16 }, sizes)
  end
  t["--trust"] = function()
    local words = { command, "--store", foreign(), "--data", DATA }
    local status, _, problem = run(unpack(words))
    assert.equal(1, status)
    assert.truthy(problem:find("not known to be yours", 1, true), problem)
    good(with(words, "--trust"))
  end
  return t
end

tests.eval, tests.predict = scoring "eval", scoring "predict"
local function evaluated(...)
  return events("eval", "--store", trained(), "--data", DATA, "--json", ...).result.test
end
tests.eval["--data"] = function() assert.equal(128, evaluated("--data", OTHER).rows) end
tests.eval["--json"] = function() assert.equal(64, evaluated().rows) end
tests.eval["--metrics"] = function()
  local out = good("eval", "--store", trained(), "--data", DATA, "--metrics", "auc")
  assert.truthy(out:find("auc", 1, true))
  assert.falsy(out:find("logloss", 1, true))
end
-- Three groups, ranked within; one has only negatives.
local GROUPS = write(dir .. "/groups.svm", "1 qid:1 1:1\n0 qid:1 2:1\n0 qid:1 3:1\n0 qid:2 1:1\n1 qid:2 2:1\n1 qid:2 101:1\n"
  .. "0 qid:3 1:1\n")
local function grouped(...)
  return events("eval", "--store", trained(), "--data", GROUPS, "--json", "--group", "qid", ...).result.test
end
tests.eval["--group"] = function()
  assert.equal(2, grouped().groups)
  assert.is_nil(evaluated().groups)
end
tests.eval["--k"] = function()
  assert.equal(10, grouped().k)
  local all, two = grouped(), grouped("--k", "2")
  assert.equal(2, two.k)
  assert.near((1 + 2) / 2 / 10, all.precision, 1e-9) -- positives among the first ten ranks
  assert.truthy(two.precision > 0 and two.precision <= 1 and two.precision * 4 % 1 == 0, two.precision)
end
tests.eval["--slice"] = function()
  local store = train_with("lr", CELLS, "--schema", SCHEMA)
  local function slices(...) return events("eval", "--store", store, "--data", CELLS, "--json", ...).result.test.slices end
  assert.is_nil(slices())
  local list, named = slices("--slice", "city=Rome,Oslo"), {}
  assert.equal(3, #list)
  for _, slice in ipairs(list) do
    assert.equal(10, slice.rows)
    named[slice.value or "other"] = true
  end
  assert.same({ Rome = true, Oslo = true, other = true }, named)
end
for _, command in ipairs { "eval", "predict" } do
  tests[command]["--bad-lines"] = function()
    assert.equal(1, (run(command, "--store", trained(), "--data", FAKE_BLANK)))
    local out, errors = good(command, "--store", trained(), "--data", FAKE_BLANK, "--bad-lines", "skip")
    assert.truthy(errors:find("1 bad line", 1, true))
    if command == "predict" then assert.equal("nan", out:match "\n(.-)\n") end
  end
end
tests.predict["--data"] = function()
  assert.equal(64, select(2, good("predict", "--store", trained(), "--data", DATA):gsub("\n", "")))
end
tests.predict["--out"] = function()
  local file = dir .. "/scores"
  assert.equal("", (good("predict", "--store", trained(), "--data", DATA, "--out", file)))
  assert.equal(good("predict", "--store", trained(), "--data", DATA), shell.read(file))
end

tests.info = {
  ["--store"] = function() assert.equal(71, info(trained()).table_rows) end,
  ["--json"] = function() assert.equal("lr", info(trained()).model) end,
  ["--memory"] = function()
    local out = events("info", "--store", trained(), "--memory", "3GB", "--json").only
    assert.equal(size "3GB", out.memory.limit)
  end,
}
tests.verify = {
  ["--store"] = function() good("verify", "--store", trained()) end,
  ["--json"] = function() assert.is_true(events("verify", "--store", trained(), "--json").verify.ok) end,
}
tests.checkpoint = {
  ["--store"] = function() good("checkpoint", "--store", trained(), "--out", fresh()) end,
  ["--out"] = function()
    local copy = fresh()
    good("checkpoint", "--store", trained(), "--out", copy)
    assert.equal(digest(trained()), digest(copy))
  end,
  ["--json"] = function()
    assert.equal(8, events("checkpoint", "--store", trained(), "--out", fresh(), "--json").checkpoint.step)
  end,
}
tests.show = {
  ["--store"] = function() assert.truthy(good("show", "--store", trained()):find("lr", 1, true)) end,
  ["--source"] = function() assert.truthy(good("show", "--store", trained(), "--source"):find("mr.model", 1, true)) end,
  ["--json"] = function() assert.equal("lr", events("show", "--store", trained(), "--json").show.model) end,
}
tests.export = {
  ["--store"] = function() assert.equal(71, select(2, rows(trained()))) end,
  ["--out"] = function()
    local file = dir .. "/e.tsv"
    good("export", "--store", trained(), "--out", file)
    assert.truthy(shell.read(file):find "^table\tkey")
  end,
  ["--format"] = function() assert.equal(71, select(2, rows(trained()))) end,
  ["--since"] = function()
    local all, n = rows(trained()), 0
    for _, row in pairs(all) do n = n + (row.step > 6 and 1 or 0) end
    assert.equal(n, select(2, rows(trained(), "--since", "6")))
  end,
  ["--table"] = function()
    local store, seen = train_with(TWO, DATA), 0
    assert.equal(2, #info(store).tables)
    for name in good("export", "--store", store, "--out", "-", "--format", "tsv", "--table", "b"):gmatch "\n([^\t]+)\t%d" do
      assert.equal("b", name)
      seen = seen + 1
    end
    assert.equal(71, seen)
  end,
  ["--min-count"] = function() assert.equal(7, select(2, rows(trained(), "--min-count", "2"))) end,
  ["--age"] = function()
    local all, n = rows(trained()), 0
    for _, row in pairs(all) do n = n + (row.step > 6 and 1 or 0) end
    assert.truthy(n > 0 and n < 71)
    assert.equal(n, select(2, rows(trained(), "--age", "2")))
  end,
  ["--json"] = function()
    assert.equal(71, events("export", "--store", trained(), "--out", dir .. "/j.tsv", "--json").export.rows)
  end,
}

local function shrunk(...)
  local copy = fresh()
  good("checkpoint", "--store", trained(), "--out", copy)
  local list = events("shrink", "--store", copy, "--json", ...)
  return info(copy).table_rows, list.shrink
end
tests.shrink = {
  ["--store"] = function() assert.equal(7, (shrunk("--min-count", "2"))) end,
  ["--min-count"] = function() assert.equal(7, (shrunk("--min-count", "2"))) end,
  ["--max-rows"] = function() assert.equal(5, (shrunk("--max-rows", "5"))) end,
  ["--min-norm"] = function()
    local n = 0
    for _, row in pairs((rows(trained()))) do n = n + (math.abs(row.w) >= 0.1 and 1 or 0) end
    assert.equal(n, (shrunk("--min-norm", "0.1")))
  end,
  ["--by"] = function()
    local copy = fresh()
    good("checkpoint", "--store", trained(), "--out", copy)
    good("shrink", "--store", copy, "--max-rows", "7", "--by", "count")
    for key in pairs((rows(copy))) do assert.truthy(tonumber(key) <= 7, key) end
    local last = 0
    for _, row in pairs((rows(trained()))) do last = last + (row.step == 8 and 1 or 0) end
    copy = fresh()
    good("checkpoint", "--store", trained(), "--out", copy)
    good("shrink", "--store", copy, "--max-rows", tostring(last), "--by", "step")
    for key, row in pairs((rows(copy))) do assert.equal(8, row.step, key) end
  end,
  ["--min-score"] = function()
    local n = 0
    for _, row in pairs((rows(trained()))) do n = n + (row.count * 2 ^ ((row.step - 8) / 2) >= 0.5 and 1 or 0) end
    assert.truthy(n > 7 and n < 71)
    assert.equal(n, (shrunk("--min-score", "0.5", "--half-life", "2")))
  end,
  ["--half-life"] = function()
    local function left(half_life)
      local n = 0
      for _, row in pairs((rows(trained()))) do n = n + (row.count * 2 ^ ((row.step - 8) / half_life) >= 0.5 and 1 or 0) end
      return n
    end
    assert.not_equal(left(1), left(4))
    for _, half_life in ipairs { 1, 4 } do
      assert.equal(left(half_life), (shrunk("--min-score", "0.5", "--half-life", tostring(half_life))))
    end
  end,
  ["--table"] = function()
    local store = train_with(TWO, DATA, "--batch", "8")
    good("shrink", "--store", store, "--min-count", "2", "--table", "b")
    local of = {}
    for _, t in ipairs(info(store).tables) do of[t.name] = t.rows end
    assert.same({ a = 71, b = 7 }, of)
  end,
  ["--column"] = function()
    -- Column v is admitted at a key's second sighting: until then it has no weights.
    local store, seen, n = train_with(TWO, DATA, "--batch", "8"), 0, { w = 0, v = 0 }
    for v0, v1, w in good("export", "--store", store, "--out", "-", "--format", "tsv", "--table", "a")
      :gmatch "\na\t%d+\t%d+\t%d+\t([^\t\n]*)\t([^\t\n]*)\t%d+\t([^\t\n]*)" do
      v0, v1, seen = tonumber(v0) or 0, tonumber(v1) or 0, seen + 1
      n.w, n.v = n.w + (math.abs(tonumber(w)) >= 0.5 and 1 or 0), n.v + (math.sqrt(v0 ^ 2 + v1 ^ 2) >= 0.5 and 1 or 0)
    end
    assert.equal(71, seen)
    assert.not_equal(n.w, n.v)
    for column, left in pairs(n) do
      local copy = fresh()
      good("checkpoint", "--store", store, "--out", copy)
      good("shrink", "--store", copy, "--table", "a", "--column", column, "--min-norm", "0.5")
      local rest = {}
      for _, t in ipairs(info(copy).tables) do rest[t.name] = t.rows end
      assert.equal(left, rest.a)
    end
  end,
  ["--forget"] = function()
    local copy = fresh()
    good("checkpoint", "--store", trained(), "--out", copy)
    good("shrink", "--store", copy, "--min-count", "2")
    assert.equal(64, events("export", "--store", copy, "--out", dir .. "/drops.bin", "--since", "3", "--json").export.drops)
    good("shrink", "--store", copy, "--forget", "8")
    local status, _, problem = run("export", "--store", copy, "--out", dir .. "/drops2.bin", "--since", "3")
    assert.equal(1, status)
    assert.truthy(problem:find("dropped at step 8 and before are not known any more", 1, true), problem)
  end,
  ["--threads"] = function()
    assert.equal(3, (machine("shrink", "--store", trained(), "--min-count", "2", "--dry-run", "--threads", "3")))
  end,
  ["--memory"] = function()
    assert.equal(3e9, select(2, machine("shrink", "--store", trained(), "--min-count", "2", "--dry-run", "--memory", "3GB")))
  end,
  ["--dry-run"] = function()
    local left, event = shrunk("--min-count", "2", "--dry-run")
    assert.equal(71, left)
    assert.equal(64, event.dropped)
  end,
  ["--json"] = function()
    local _, event = shrunk("--min-count", "2")
    assert.equal(64, event.dropped)
  end,
}
tests.import = {
  ["--store"] = function()
    local file, copy = dir .. "/i.bin", fresh()
    good("export", "--store", trained(), "--out", file)
    good("import", "--store", copy, file)
    assert.equal(digest(trained()), digest(copy))
  end,
  ["--format"] = function()
    local store, file = fresh(), dir .. "/rows"
    good("checkpoint", "--store", trained(), "--out", store)
    good("export", "--store", trained(), "--out", file, "--format", "tsv")
    good("import", "--store", store, file, "--format", "tsv")
    assert.equal(71, info(store).table_rows)
  end,
  ["--json"] = function()
    local file = dir .. "/k.bin"
    good("export", "--store", trained(), "--out", file)
    assert.truthy(events("import", "--store", fresh(), file, "--json").import)
  end,
}
tests.import["--trust"] = function()
  local store, file = foreign(), dir .. "/foreign.tsv"
  good("export", "--store", store, "--out", file)
  local status, _, problem = run("import", "--store", store, file)
  assert.equal(1, status)
  assert.truthy(problem:find("not known to be yours", 1, true), problem)
  good("import", "--store", store, file, "--trust")
end
tests.trust = {
  ["--json"] = function()
    local store = foreign()
    local told = events("trust", store, "--json").trust
    assert.truthy(#told.hash == 64 and told.store == store)
    assert.truthy(shell.read(told.list):find(told.hash, 1, true))
    good("eval", "--store", store, "--data", DATA)
  end,
}

describe("Every option", function()
  local function declared(command)
    local parser = argparse("moonrock " .. command)
    require("moonrock.cli." .. command).declare(parser)
    local names = {}
    for _, option in ipairs(parser._options) do
      if option._aliases[#option._aliases] ~= "--help" then names[#names + 1] = option._aliases[#option._aliases] end
    end
    return names
  end

  for command in pairs(cli.commands) do
    for _, name in ipairs(declared(command)) do
      local key, test = command .. " " .. name, (tests[command] or {})[name]
      it("does what it says: " .. key, function()
        assert(test, key .. " has no test by its effect")
        test()
      end)
    end
  end
end)

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
    local command, word = teach == train_with and "train" or "learn", teach == train_with and "--data" or "--source"
    local function commits(every)
      local _, out = shell.run(("ACKNOWLEDGED=digest %s tests/support/acknowledged.lua %s lr --store %s %s %s "
        .. "--batch 8 --commit-every %s"):format(shell.program, command, fresh(), word, DATA, every))
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
    local data = teach == train_with and FIFTY or samples("long.libsvm", 10000, 100)
    local store = teach("lr", data, "--batch", "1", "--max-rows", "10", unpack(more))
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

local function scoring(command)
  local t = {}
  t["--store"] = function() good(command, "--store", trained(), "--data", DATA) end
  t["--threads"] = function()
    local function out(n) return good(command, "--store", trained(), "--data", DATA, "--threads", n) end
    assert.equal(out "1":gsub("seconds[^\n]*", ""), out "3":gsub("seconds[^\n]*", ""))
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
    local store = train_with("wide_deep", DATA)
    local name = info(store).tables[1].name
    for line in good("export", "--store", store, "--out", "-", "--format", "tsv", "--table", name):gmatch "\n([^\t]+)\t%d" do
      assert.equal(name, line)
    end
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
tests.trust = {}

-- No test by effect is known of these yet; each that gets one leaves the list.
local UNTESTED = {}
for key in ([[learn --follow, learn --schema, learn --fields, learn --max-wait, learn --allow-drop, learn --memory,
  trust --json, predict --batch, predict --memory, predict --trust, shrink --table, shrink --column,
  shrink --min-score, shrink --half-life, shrink --by, shrink --forget, shrink --threads, shrink --memory,
  import --trust, eval --batch, eval --group, eval --k, eval --slice, eval --memory, eval --trust,
  train --no-test, train --schema, train --fields, train --allow-drop, train --memory]]):gmatch "[^,]+" do
  UNTESTED[key:match "^%s*(.-)$"] = true
end

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
      if not UNTESTED[key] then
        it("does what it says: " .. key, function()
          assert(test, key .. " has no test by its effect")
          test()
        end)
      end
    end
  end
end)

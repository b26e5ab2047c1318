-- What is said of work that has no effect: nothing is skipped, left out or learned from in vain without a line.
local ffi = require "ffi"
local mr = require "moonrock"
local shell = require "tests.support.shell"

local dir = shell.directory()
local count = 0
local function fresh()
  count = count + 1
  return ("%s/store%d"):format(dir, count)
end

local function samples(n)
  local lines = {}
  for i = 1, n do lines[i] = ("%d 1:1 %d:1"):format(i % 3 == 0 and 1 or 0, i % 50 + 2) end
  return table.concat(lines, "\n") .. "\n"
end
local data = shell.write(dir .. "/data.svm", samples(400))

-- A model of its own, and the list of what it says.
local function model(options)
  local said, o = {}, { data = mr.data {}, on_notice = false }
  for name, value in pairs(options or {}) do o[name] = value end
  function o.on_notice(text) said[#said + 1] = text end
  return mr.find "lr"(o), said
end

describe("a training script", function()
  it("is told at its first step that no backward came before", function()
    local m, said = model()
    for batch in m:batches(data, { size = 100 }) do
      mr.bce(m(batch), batch.label)
      m:step()
    end
    m:close()
    assert.equal(1, #said)
    assert.matches("model lr: step 1 changes nothing: no loss:backward() came before it", said[1], 1, true)
  end)

  it("is told that gradients were never used, at its commit, evaluation or end", function()
    for _, ending in ipairs { "commit", "eval", "close" } do
      local m, said = model { store = fresh() }
      for batch in m:batches(data, { size = 100 }) do mr.bce(m(batch), batch.label):backward() end
      m[ending](m)
      assert.equal(1, #said, ending)
      assert.matches("nothing is learned from the last 4 batches", said[1], 1, true)
      if ending ~= "close" then m:close() end
      assert.equal(1, #said)
    end
  end)

  it("is told nothing while it adds up gradients for a step of several batches", function()
    local m, said = model { store = fresh() }
    local n = 0
    for batch in m:batches(data, { size = 50 }) do
      mr.bce(m(batch), batch.label):backward()
      n = n + 1
      if n % 2 == 1 then m:commit() end
      if n % 4 == 0 then m:step() end
    end
    m:close()
    assert.same({}, said)
  end)

  it("is told nothing where a batch whose loss is not finite is left out", function()
    local m, said = model()
    m.on_nan = "skip"
    for batch in m:batches(data, { size = 100 }) do
      local loss = mr.bce(m(batch), batch.label)
      if batch.c.position.sample == 200 then loss = loss * (0 / 0) end
      loss:backward()
      m:step()
    end
    m:close()
    assert.same({}, said)
  end)

  it("that asks for the next batch before its step records the batch that it learned from", function()
    local dir_a, dir_b = fresh(), fresh()
    local a = model { store = dir_a }
    local it_a = a:batches(data, { size = 100 })
    local batch = it_a()
    for step = 1, 3 do
      mr.bce(a(batch), batch.label):backward()
      batch = it_a()
      a:step()
      assert.equal(100 * step, tonumber(a.position.sample))
    end
    a:commit()
    local b = model { store = dir_b }
    local it_b = b:batches(data, { size = 100 })
    for _ = 1, 3 do
      batch = it_b()
      mr.bce(b(batch), batch.label):backward()
      b:step()
    end
    b:commit()
    assert.equal(b:info().digest, a:info().digest)
    a:close()
    b:close()
  end)

  it("goes on to the same bits in a stream whose steps are of several batches", function()
    local lines = { "x,y" }
    for i = 1, 1200 do lines[i + 1] = ("%g,%d"):format(i * 7919 % 1000, i % 3 == 0 and 1 or 0) end
    local stream = shell.write(dir .. "/stream.csv", table.concat(lines, "\n") .. "\n")
    local function learn(store, stops)
      local digest, running
      for _, steps in ipairs(stops) do
        local m = mr.find "lr" { store = store, schema = mr.schema { name = "s", label = "y",
          fields = { mr.numeric "x", mr.bucket("x", { quantiles = 4 }) } } }
        local batches = m:stream(stream, { size = 20 })
        for _ = 1, steps do
          for _ = 1, 3 do
            local batch = batches()
            mr.bce(m(batch), batch.label):backward()
          end
          m:step()
        end
        batches()
        batches:close()
        m:commit()
        digest, running = m:info().digest, ffi.string(m.schema:running_bytes())
        m:close()
      end
      return digest, running
    end
    local digest, running = learn(fresh(), { 12 })
    local again, running_again = learn(fresh(), { 1, 2, 4, 5 })
    assert.equal(digest, again)
    assert.is_true(running == running_again)
  end)
end)

describe("a schedule that has run out", function()
  local function train(schedule, ...)
    local status, _, said = shell.moonrock("train", "lr", "--data", data, "--batch", "10", "--store", fresh(),
      "--schedule", schedule, ...)
    assert.equal(0, status, said)
    return said
  end

  it("is said once, with the step and how to go on", function()
    local said = train "cosine(30)"
    assert.matches("its schedule cosine(30, 0) has run out: from step 30 on the learning rate is 0", said, 1, true)
    assert.matches("--schedule", said, 1, true)
    assert.equal(1, select(2, said:gsub("has run out", "")))
    for _, schedule in ipairs { "polynomial(5)", "step(1, 0)", "exponential(1, 1e-3)", "warmup(5, cosine(9))" } do
      assert.matches("has run out", train(schedule), schedule)
    end
  end)

  it("is none where something is left, or comes back", function()
    for _, schedule in ipairs { "cosine(40)", "cosine(10, 0.01)", "linear_cosine(40, 3, 0, 0)", "constant(0.5)" } do
      assert.equal("", (train(schedule)), schedule)
    end
  end)
end)

-- ---- commands --------------------------------------------------------------------------------

local function run(...)
  local status, out, said = shell.moonrock(...)
  return status, out, said
end

local function rows_of(n, label)
  local lines = { "a,b,y" }
  for i = 1, n do
    lines[i + 1] = ("u%d,%d,%d"):format(i % 20, i * 37 % 101, label or (i * 7919 % 10 < 3 and 1 or 0))
  end
  return table.concat(lines, "\n") .. "\n"
end

local FIELDS = 'local mr = require "moonrock"\nreturn mr.schema { name = "s", label = "y", fields = { %s } }'
local schema = shell.write(dir .. "/s.lua", FIELDS:format 'mr.category "a", mr.numeric "b"')
local other = shell.write(dir .. "/s2.lua", FIELDS:format 'mr.category "a"')
local day1, day2 = shell.write(dir .. "/d1.csv", rows_of(400)), shell.write(dir .. "/d2.csv", rows_of(500))
local ones = shell.write(dir .. "/ones.csv", rows_of(60, 1))
local empty = shell.write(dir .. "/empty.csv", "a,b,y\n")

describe("an option that has no effect", function()
  local function refused(words, text)
    local given = {}
    for word in words:gmatch "%S+" do
      given[#given + 1] = word:gsub("^DATA$", day1):gsub("^SCHEMA$", schema)
    end
    given[#given + 1] = "--store"
    given[#given + 1] = fresh()
    local status, _, said = run(unpack(given))
    assert.equal(2, status, words .. "\n" .. said)
    assert.matches(text, said, 1, true)
  end

  local train, learn = "train lr --schema SCHEMA --data DATA ", "learn lr --schema SCHEMA --source DATA "
  for words, text in pairs {
    [train .. "--shuffle off --window 9"] = "--window 9 has no effect: the samples are not shuffled",
    [train .. "--set fit.shuffle=off --window 9"] = "--window 9 has no effect",
    [train .. "--shuffle full --window 9"] = "--shuffle full mixes all samples",
    [train .. "--shuffle off --set fit.window=9"] = "--set fit.window=9 has no effect",
    [train .. "--format csv"] = "--format csv has no effect",
    [train .. "--fields 3"] = "--fields 3 has no effect",
    [train .. "--no-test --test DATA"] = "--no-test has no effect",
    [train .. "--folds 3 --profile"] = "--profile has no effect",
    [train .. "--set fit.correction=q"] = "fit.negative_rate",
    [train .. "--set fit.split.fraction=0.1"] = "give --valid FRACTION",
    [train .. "--set fit.valid=x"] = "give --valid FILE",
    [train .. "--patience 2"] = "--patience 2: there is nothing to judge an epoch by",
    [train .. "--set fit.monitor=auc"] = "--set fit.monitor=auc: there is nothing to judge an epoch by",
    [train .. "--set fit.validate_every=5"] = "--set fit.validate_every=5: there is nothing",
    [learn .. "--max-wait 2 --batch 10"] = "--max-wait 2 has no effect: all of a file is there",
    [learn .. "--max-wait 2 --follow"] = "a batch of one sample never waits",
    [learn .. "--set fit.correction=q"] = "fit.negative_rate",
    [learn .. "--set fit.follow=yes"] = "give --follow",
    ["shrink --max-rows 5 --half-life 3"] = "--half-life 3 has no effect",
    ["shrink --min-count 5 --by norm"] = "--by norm has no effect",
    ["shrink --max-rows 5 --column w"] = "--column w has no effect",
  } do
    it("is wrong usage: " .. words, function() refused(words, text) end)
  end

  it("is said of mr.fit", function()
    local m, said = model()
    mr.fit(m, { train = data, patience = 2, window = 10, shuffle = false, correction = "q", split = 0.1 })
    table.sort(said)
    assert.same({
      "correction has no effect: no negatives are left out",
      "patience has no effect: there is no validation data (valid =)",
      "what split holds out is neither trained on nor scored: give valid = the same data",
      "window has no effect: the samples are not shuffled" }, said)
  end)
end)

describe("the wrong one of two settings", function()
  it("is the one that is blamed", function()
    for words, blamed in pairs {
      ["--set linear.lr=0.1 --set linear.foo=3"] = "--set linear.foo=3: optimizer adagrad has no setting \"foo\"",
      ["--set linear.lr=x --set linear.l1=1"] = "--set linear.lr=x: ",
      ["--set linear.rule=ftrl --set linear.l1=1 --set linear.eps=1"] = "--set linear.eps=1: optimizer ftrl",
      ["--optim ftrl --set optim.l1=1 --set optim.zork=2"] = "--set optim.zork=2: optimizer ftrl",
    } do
      local given = { "train", "fm", "--schema", schema, "--data", day1, "--store", fresh() }
      for word in words:gmatch "%S+" do given[#given + 1] = word end
      local status, _, said = run(unpack(given))
      assert.equal(2, status, said)
      assert.matches("moonrock: " .. blamed, said, 1, true)
    end
  end)
end)

describe("labels of one class", function()
  it("are said at the end of the epoch, and why a metric is undefined", function()
    local status, out, said = run("train", "lr", "--schema", schema, "--data", ones, "--store", fresh(), "--test", ones)
    assert.equal(0, status, said)
    assert.matches("all 60 labels that were trained on are 1", said, 1, true)
    assert.matches("auc undefined (all 60 labels are 1)", out, 1, true)
    local store = fresh()
    status, out, said = run("learn", "lr", "--schema", schema, "--source", ones, "--store", store)
    assert.equal(0, status, out)
    assert.matches("auc is not defined: all 60 labels are 1", said, 1, true)
    out = select(2, run("eval", "--store", store, "--data", ones))
    assert.matches("auc undefined (all 60 labels are 1)", out, 1, true)
  end)
end)

describe("moonrock learn", function()
  it("ends with one line of metrics for its last rows, and one of what was learned", function()
    local _, out = run("learn", "lr", "--schema", schema, "--source", day1, "--store", fresh(), "--every", "200")
    assert.equal(1, select(2, out:gsub("rows 400 ", "")))
    assert.matches("all: logloss [%d.]+ auc_all [%d.]+ accuracy", out)
    assert.matches("d1%.csv: 400 rows learned in 400 steps\n$", out)
  end)

  it("does so when a signal ends it", function()
    shell.run(([[cd %s; mkfifo fifo; { cat %s; exec sleep 30; } >fifo & writer=$!
      %s learn lr --schema %s --source - --store %s --every 400 <fifo >lines 2>/dev/null & learner=$!
      for i in $(seq 300); do grep -q "rows 400" lines && break; sleep 0.1; done
      kill -TERM $learner; wait $learner; echo "status $?" >>lines; kill $writer]]):format(dir, day1,
      shell.program:match "^/" and shell.program or "$OLDPWD/" .. shell.program, schema, fresh()))
    local lines = shell.read(dir .. "/lines")
    assert.equal(1, select(2, lines:gsub("rows 400 ", "")), lines)
    assert.matches("terminated: 400 rows learned in 400 steps\nstatus 143", lines, 1, true)
  end)

  it("says from which record it goes on", function()
    local store, live = fresh(), shell.write(dir .. "/live.csv", rows_of(100))
    run("learn", "lr", "--schema", schema, "--source", live, "--store", store)
    shell.write(live, rows_of(150))
    local _, out, said = run("learn", "lr", "--source", live, "--store", store)
    assert.matches("live.csv: goes on behind record 100, step 100", said, 1, true)
    assert.matches("without --schema, data is read by the store's own schema \"s\"", said, 1, true)
    assert.matches("50 rows learned", out, 1, true)
  end)
end)

describe("moonrock train", function()
  it("uses the schema of its store where none is given, as the error about another one says", function()
    local store, beside = fresh(), fresh()
    assert.equal(0, (run("train", "lr", "--schema", schema, "--data", day1, "--store", store)))
    local status, _, said = run("train", "lr", "--schema", other, "--data", day2, "--store", store)
    assert.equal(1, status)
    assert.matches("Leave --schema out to go on with the store's", said, 1, true)
    status, _, said = run("train", "lr", "--data", day2, "--store", store)
    assert.equal(0, status, said)
    for _, day in ipairs { day1, day2 } do run("train", "lr", "--schema", schema, "--data", day, "--store", beside) end
    local _, out = run("info", "--store", store, "--json")
    local _, expected = run("info", "--store", beside, "--json")
    assert.equal(expected:match '"digest":"(%w+)"', out:match '"digest":"(%w+)"')
  end)

  it("says that a file with a header only holds no samples, and leaves no store", function()
    for _, file in ipairs { schema, other } do
      local store = fresh()
      local status, _, said = run("train", "lr", "--schema", file, "--data", empty, "--store", store)
      assert.equal(1, status)
      assert.matches("empty.csv: holds no samples", said, 1, true)
      assert.equal(0, (run("train", "lr", "--schema", file, "--data", day1, "--store", store)))
    end
  end)

  it("looks at data that is to be scored before it trains", function()
    local broken = shell.write(dir .. "/broken.csv", "a,y\nu1,1\n")
    for _, option in ipairs { "--valid", "--test" } do
      for _, file in ipairs { empty, broken } do
        local status, out, said = run("train", "lr", "--schema", schema, "--data", day1, "--store", fresh(), option,
          file)
        assert.equal(1, status)
        assert.matches(file, said, 1, true)
        assert.equal("", out)
      end
    end
  end)

  it("says where a run that was killed goes on", function()
    local store = fresh()
    local script = shell.write(dir .. "/killed.lua", [[
      local mr = require "moonrock"
      local m = mr.find "lr" { store = arg[1], data = mr.data {}, commit_every = 2 }
      mr.fit(m, { train = arg[2], size = 50, epochs = 2, on_step = function(step)
        if step == 6 then m:commit() os.execute "kill -9 $PPID" end
      end })]])
    assert.equal(137, (shell.run(("%s %s %s %s"):format(shell.program, script, store, data))))
    local status, _, said = run("train", "lr", "--data", data, "--store", store, "--batch", "50", "--epochs", "2")
    assert.equal(0, status)
    assert.matches("data.svm: goes on where it was left, at epoch 1, record 300, step 6", said, 1, true)
  end)

  it("forgets the best state by a metric when another one is watched", function()
    local store = fresh()
    local function train(...)
      local status, out, said = run("train", "lr", "--schema", schema, "--data", day1, "--valid", day2, "--store", store,
        ...)
      assert.equal(0, status, said)
      return out, said
    end
    train("--epochs", "2")
    local _, said = train("--epochs", "3", "--set", "fit.monitor=rmse")
    assert.matches("monitor is rmse, and was auc: the best state so far, step %d+ by auc, counts no more", said)
    said = select(2, train("--epochs", "4", "--set", "fit.monitor=rmse"))
    assert.is_nil(said:find "monitor is")
  end)

  it("takes the mean of a metric over the folds in which it is defined, and names the others", function()
    local lines = { "a,b,y" } -- one positive in every seventh record
    for i = 1, 21 do lines[i + 1] = ("u%d,%d,%d"):format(i, i, i % 7 == 0 and 1 or 0) end
    local few = shell.write(dir .. "/few.csv", table.concat(lines, "\n") .. "\n")
    local status, out, said = run("train", "lr", "--schema", other, "--data", few, "--store", fresh(), "--folds", "3",
      "--json")
    assert.equal(0, status, said)
    local last = require "dkjson".decode(out:match "([^\n]*)\n$")
    assert.truthy(last.undefined.auc >= 1 and last.undefined.auc <= 2, out)
    assert.truthy(last.mean.auc == last.mean.auc and last.mean.auc >= 0)
    assert.is_nil(last.undefined.logloss)
    assert.matches("auc is not defined in fold[s]? [%d, ]+ %(all %d labels are 0%): its mean is of the other %d", said)
  end)
end)

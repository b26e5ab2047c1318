-- Every option of the public functions of Lua, by what it does. The lists are the code's own: an option without a test
-- here fails the suite. A test is a function, or the name of another spec and of a test in it.
local C = require "moonrock.ffi"
local ffi = require "ffi"
local metrics = require "moonrock.metrics"
local Model = require "moonrock.model"
local mr = require "moonrock"
local raises = require "tests.support.raises"
local reader = require "moonrock.reader"
local schemas = require "moonrock.schema"
local search = require "moonrock.search"
local settings = require "moonrock.settings"
local shell = require "tests.support.shell"
local shrink = require "moonrock.shrink"
local Table = require "moonrock.table"
local trainer = require "moonrock.trainer"

local dir = shell.directory()
local write = function(name, text) return shell.write(dir .. "/" .. name, text) end

-- ---- the code's lists ---------------------------------------------------------------------------

-- A local table of a file, from a function that uses it, or that calls one that does.
local function list_of(f, name, file)
  local seen, queue = {}, { f }
  while #queue > 0 do
    local g = table.remove(queue, 1)
    local mine = debug.getinfo(g, "S").source:find("/" .. file .. ".lua", 1, true)
    for i = 1, debug.getinfo(g, "u").nups do
      local known, value = debug.getupvalue(g, i)
      if known == name and type(value) == "table" and mine then return value end
      if type(value) == "function" and not seen[value] and debug.getinfo(value, "S").what ~= "C" then
        seen[value] = true
        queue[#queue + 1] = value
      end
    end
  end
  error(("%s.lua: the list %s is not found"):format(file, name))
end

-- ---- data ------------------------------------------------------------------------------------------

local function samples(name, n, from)
  local lines = {}
  for i = 1, n do lines[i] = ("%d %d:1 %d:1"):format(i % 3 == 0 and 1 or 0, i % 5 + 1, from + i) end
  return write(name, table.concat(lines, "\n") .. "\n")
end
local A, B = samples("a.svm", 64, 100), samples("b.svm", 40, 1000)
local BAD = write("bad.svm", "1 1:1\nno sample\n0 2:1\n")
local data = mr.data { files = A, format = "libsvm" }

local number = 0
local function fresh()
  number = number + 1
  return ("%s/store%d"):format(dir, number)
end

local open = {} -- models, each of which holds memory until it is closed

local function make(options, columns, table_options, param_options)
  local o = { data = data, commit_seconds = 1e9 }
  for name, value in pairs(options or {}) do o[name] = value end
  local model = mr.model("m", function(m)
    local row = m:table("t", columns or { w = { dim = 1 } }, table_options)
    local bias = m:param("bias", { 1 }, param_options)
    return function(x) return bias + row(x).w:sum() end
  end, { optim = mr.optim.sgd { lr = 0.5 } })(o)
  open[#open + 1] = model
  return model
end

local function fit(o, model_options)
  local model = make(model_options)
  local given = { train = A, size = 16 }
  for name, value in pairs(o) do given[name] = value end
  local result = mr.fit(model, given)
  return model, result
end

local function records(o, from)
  local list, epochs = {}, {}
  local it = (from or data):batches(from and from.path or A, o)
  for batch in it do
    for s = 0, batch.n - 1 do list[#list + 1], epochs[#epochs + 1] = tonumber(batch.c.record[s]), batch.epoch end
  end
  it:close()
  return list, epochs
end

local function range(from, to)
  local list = {}
  for i = from, to do list[#list + 1] = i end
  return list
end

local function norm_of_step(o) -- of the weights after one step from 0
  local model = fit { size = 64, clip_norm = o.clip_norm, clip_each = o.clip_each, clip_value = o.clip_value }
  local sum = model.params[1]:weight(1) ^ 2
  for key = 1, 200 do sum = sum + model.tables[1]:peek(key, "w")[1] ^ 2 end
  return math.sqrt(sum) / 0.5, model
end

local tests = {}

-- ---- mr.fit ------------------------------------------------------------------------------------------

local f = {}
tests["mr.fit"] = { list_of(trainer.check_option, "OPTIONS", "trainer"), f }
f.train = function() assert.equal(4, (fit {}).step_number) assert.equal(3, (fit { train = B }).step_number) end
f.valid = function() assert.equal(40, select(2, fit { valid = B }).valid.rows) end
f.test = function() assert.equal(40, select(2, fit { test = B }).test.rows) end
f.epochs = function() assert.equal(12, (fit { epochs = 3 }).step_number) end
f.size = function() assert.equal(8, (fit { size = 8 }).step_number) end
local function order(o)
  local list = {}
  local given = { on_batch = function(batch)
    for s = 0, batch.n - 1 do list[#list + 1] = tonumber(batch.c.record[s]) end
  end }
  for name, value in pairs(o) do given[name] = value end
  fit(given)
  return list
end
f.shuffle = function()
  assert.same(range(0, 63), order { shuffle = false })
  assert.not_same(range(0, 63), order {})
end
f.window = function()
  assert.same(range(0, 63), order { window = 1 })
  for i, record in ipairs(order { window = 8 }) do assert.equal(math.floor((i - 1) / 8), math.floor(record / 8)) end
end
f.patience = { "fit_spec", "that is better renews patience, and the one that uses it up ends the run" }
f.reduce = { "fit_spec", "compounds, and a schedule multiplies it" }
f.monitor = { "fit_spec", "by another monitor is compared with none before" }
f.validate_every = { "fit_spec", "before a validation between epochs makes it, and after it makes no other" }
f.accumulate = { "trainer_spec", "of 4 batches makes the step of one that is 4 times as large, that of an epoch's end included" }
f.class_weight = { "trainer_spec", "weigh the loss of each sample: one step by hand" }
f.negative_rate = { "trainer_spec", "give scores of the data as it is, by each of the three corrections, and less to compute" }
f.correction = f.negative_rate
f.on_nan = { "trainer_spec", "names the batch in a loop of the user's too" }
f.on_event = function()
  local events = {}
  fit { epochs = 2, on_event = function(e) events[#events + 1] = e.event end }
  assert.same({ "epoch", "epoch", "result" }, events)
end
f.on_data = function()
  local parts = {}
  fit { valid = B, test = B, on_data = function(it, part) parts[#parts + 1] = part .. (it and "" or " none") end }
  assert.same({ "train", "valid", "test" }, parts)
end
f.on_batch = function() assert.equal(64, #order {}) end
f.on_step = { "trainer_spec", "see every step, epoch and validation, and end the training by returning false" }
f.on_epoch = f.on_step
f.on_validate = { "fit_spec", "ends the run where on_validate says so" }
f.bad_lines = function()
  raises("bad.svm:2", fit, { train = BAD })
  assert.equal(1, (fit { train = BAD, bad_lines = "skip" }).step_number)
end
f.split = { "fit_spec", "of a split is of the records that are not trained" }
f.memory = function() -- results do not depend on it
  assert.same(order { memory = true, epochs = 2 }, order { memory = false, epochs = 2 })
end
f.schedule = function() assert.near(0.25, C.mr_table_optim((fit { schedule = "constant(0.5)" }).tables[1].c, 0).lr, 1e-7) end
f.clip_norm = function()
  assert.truthy(norm_of_step {} > 0.05)
  assert.near(0.01, norm_of_step { clip_norm = 0.01 }, 1e-5)
end
f.clip_each = function()
  assert.near(0.01 * math.sqrt(2), norm_of_step { clip_each = 0.01 }, 1e-5) -- the table and the param
end
f.clip_value = function()
  local _, model = norm_of_step { clip_value = 0.001 }
  assert.near(0.0005, math.abs(model.params[1]:weight(1)), 1e-6)
end
f.metrics = { "trainer_spec", "names what is trained, with its scale, and can be validated by groups" }
f.from = function()
  local model = fit {}
  mr.fit(model, { train = A, size = 16 })
  assert.equal(4, model.step_number)
  mr.fit(model, { train = A, size = 16, from = "start" })
  assert.equal(8, model.step_number)
end

-- ---- mr.learn ----------------------------------------------------------------------------------------

local l = {}
tests["mr.learn"] = { list_of(trainer.check_option, "LEARN", "trainer"), l }
local function learn(o, model)
  model = model or make()
  local watch = mr.learn(model, o.source or A, (function()
    local given = {}
    for name, value in pairs(o) do if name ~= "source" then given[name] = value end end
    return given
  end)())
  return model, watch
end
l.size = function() assert.equal(4, (learn { size = 16 }).step_number) assert.equal(64, (learn {}).step_number) end
l.window = function() assert.equal(10, select(2, learn { window = 10 }):result().window.rows) end
l.class_weight = function()
  local plain, weighed = learn { size = 64 }, learn { size = 64, class_weight = { 2, 2 } }
  assert.near(2 * plain.params[1]:weight(1), weighed.params[1]:weight(1), 1e-6)
end
l.negative_rate = { "fit_spec", "is measured as it is, whatever is weighed or left out in training" }
l.correction = function()
  assert.near(math.log(0.5), (learn { negative_rate = 0.5, correction = "q" }).shift, 1e-12)
  assert.is_nil((learn { negative_rate = 0.5 }).shift)
end
l.on_nan = { "days_spec", "skips a batch that is not finite, and names its line" }
l.bad_lines = function()
  raises("bad.svm:2", learn, { source = BAD })
  assert.equal(1, select(2, learn { source = BAD, bad_lines = "skip" }).bad_lines)
end
l.schedule = function() assert.near(0.25, C.mr_table_optim((learn { schedule = "constant(0.5)" }).tables[1].c, 0).lr, 1e-7) end
for _, name in ipairs { "clip_norm", "clip_each", "clip_value" } do
  l[name] = function()
    local plain, clipped = learn { size = 64 }, learn { size = 64, [name] = 1e-4 }
    assert.truthy(math.abs(plain.params[1]:weight(1)) > 1e-2)
    assert.truthy(math.abs(clipped.params[1]:weight(1)) < 1e-4)
  end
end
l.from = function()
  local model = learn {}
  learn({}, model)
  assert.equal(64, model.step_number)
  learn({ from = "start" }, model)
  assert.equal(128, model.step_number)
end
l.on_batch = function()
  local n = 0
  learn { on_batch = function(batch, loss)
    n = n + batch.n
    assert.truthy(loss > 0)
  end }
  assert.equal(64, n)
end
l.max_wait = { "options_spec", 'learn["--max-wait"]' }
l.follow = { "options_spec", 'learn["--follow"]' }
l.every = function()
  local lines = 0
  learn { every = 16, on_line = function() lines = lines + 1 end }
  assert.equal(4, lines)
end
l.on_line = l.every

-- ---- mr.data, batches, splits ------------------------------------------------------------------------

local d = {}
tests["mr.data"] = { list_of(reader.data, "DATA", "reader"), d }
d.files = function() assert.equal(64, #records({ size = 7 }, mr.data { files = A, format = "libsvm" })) end
d.format = function()
  local plain = write("plain", shell.read(A))
  local it = mr.data { format = "libsvm" }:batches(plain, {})
  assert.equal(64, it().n)
  it:close()
  raises("", function() mr.data { format = "bin" }:batches(plain, {})() end)
end
d.fields = function()
  assert.equal(2, mr.data { format = "libsvm", fields = 2 }:fields_count())
  raises("expected 3 entries", function() mr.data { format = "libsvm", fields = 3 }:batches(A, {})() end)
end
d.task = function()
  local path = write("values.svm", "3.5 1:1\n")
  local it = mr.data { format = "libsvm", task = "regression" }:batches(path, {})
  assert.equal(3.5, it().c.label[0])
  it:close()
  raises("values.svm:1", function() mr.data { format = "libsvm" }:batches(path, {})() end)
end
d.normalize = { "normalize_spec", "go back with the state that a store goes back to" }

local b = {}
tests["batches"] = { list_of(reader.open, "OPTIONS", "reader"), b }
b.size = function()
  local it = data:batches(A, { size = 7 })
  assert.equal(7, it().n)
  it:close()
end
b.epochs = function()
  local list, epochs = records { epochs = 2 }
  assert.equal(128, #list)
  assert.same({ 1, 2 }, { epochs[64], epochs[65] })
end
b.shuffle = function()
  assert.same(range(0, 63), records {})
  assert.not_same(range(0, 63), records { shuffle = true, seed = 1 })
  assert.not_same(range(0, 63), records { shuffle = "full", seed = 1 })
  for i, record in ipairs((records { shuffle = 8, seed = 1 })) do
    assert.equal(math.floor((i - 1) / 8), math.floor(record / 8))
  end
end
b.window = function()
  for _, shuffle in ipairs { true, "none" } do
    local list = records { shuffle = shuffle == true or nil, window = 8, seed = 1 }
    assert.not_same(range(0, 63), list)
    for i, record in ipairs(list) do assert.equal(math.floor((i - 1) / 8), math.floor(record / 8)) end
  end
end
b.seed = function()
  assert.same(records { shuffle = true, seed = 5 }, records { shuffle = true, seed = 5 })
  assert.not_same(records { shuffle = true, seed = 5 }, records { shuffle = true, seed = 6 })
end
b.from = function()
  local list, epochs = records { epochs = 2, from = { epoch = 1, sample = 60 } }
  assert.same({ 60, 61, 62, 63 }, list)
  assert.equal(2, epochs[1])
end
b.split = function()
  local held = records { split = { fraction = 0.25, part = "valid" } }
  local rest = records { split = { fraction = 0.25, part = "train" } }
  assert.equal(64, #held + #rest)
  assert.truthy(#held > 4 and #held < 30)
end
b.bad_lines = function()
  local function n(how)
    local it, count, empty = data:batches(BAD, { bad_lines = how }), 0, 0
    for batch in it do
      count = count + batch.n
      for s = 0, batch.n - 1 do empty = empty + (batch.c.offsets[s] == batch.c.offsets[s + 1] and 1 or 0) end
    end
    it:close()
    return count, empty
  end
  raises("bad.svm:2", n, "error")
  assert.same({ 2, 0 }, { n "skip" })
  assert.same({ 3, 1 }, { n "keep" })
end
b.follow = { "days_spec", "begins at the start in a reader that follows" }
b.max_wait = { "files_spec", "hands out what is there when its writer pauses, with max_wait = 0" }
b.stream = b.max_wait
b.memory = function() assert.same(records { memory = true, epochs = 3 }, records { memory = false, epochs = 3 }) end
b.own = function()
  -- What is drawn from in one epoch is whole in the next.
  local it, n = data:batches(A, { size = 64, epochs = 2, own = true, memory = true }), 0
  for batch in it do
    if batch.epoch == 1 then
      C.mr_batch_draw(ffi.cast("mr_batch *", batch.c), 1, 1, 0.01)
    else
      n = n + batch.n
    end
  end
  it:close()
  assert.equal(64, n)
end
b.labels = function()
  local path = write("unlabelled.csv", "c\na\nb\n")
  local s = mr.schema { label = "y", fields = { mr.category "c" } }
  raises("y", function() s:batches(path, {})() end)
  local it = s:batches(path, { labels = false })
  assert.equal(2, it().n)
  it:close()
end
b.skip = function() assert.same(range(60, 63), records { skip = 60 }) end
b.limit = function() assert.same(range(0, 9), records { limit = 10 }) end
b.bytes = { "reader_spec", "bytes = 1000" }
b.running = { "kept_spec", "that runs along with a stream is the store's, to the bit" }
b.task = d.task
b.sizes = { "days_spec", "in a directory is what is new there; what grew is trained behind what it had" }

local s = {}
tests["split"] = { list_of(reader.write_split, "SPLIT", "reader"), s }
s.fraction = b.split
s.folds = function()
  local seen = {}
  for fold = 1, 4 do
    for _, record in ipairs((records { split = { fold = fold, folds = 4, part = "valid" } })) do
      assert.is_nil(seen[record])
      seen[record] = fold
    end
  end
  for record = 0, 63 do assert.truthy(seen[record]) end
end
s.fold, s.part = s.folds, b.split

-- ---- schemas ------------------------------------------------------------------------------------------

-- Labels, and the entries of each sample, of some text under a schema.
local function read(text, o)
  local given = { name = "s", label = "y", fields = { mr.category "c" } }
  for name, value in pairs(o) do given[name] = value end
  local schema, rows = mr.schema(given), {}
  local path = write("cells.csv", text)
  if not schema:fitted() then schema:fit { files = path } end
  local it = schema:batches(path, { size = 100 })
  local batch = it()
  for i = 0, batch.n - 1 do
    local row = { label = batch.c.label[i], weight = batch.c.weight ~= nil and batch.c.weight[i] or nil }
    for e = batch.c.offsets[i], batch.c.offsets[i + 1] - 1 do
      row[#row + 1] = { key = tostring(batch.c.keys[e]), value = batch.c.values ~= nil and batch.c.values[e] or 1 }
    end
    rows[i + 1] = row
  end
  it:close()
  return rows, schema
end
local function key_of(cell) return read(("y,c\n1,%s\n"):format(cell), {})[1][1].key end

local c = {}
tests["mr.schema"] = { list_of(schemas.schema, "OPTIONS", "schema"), c }
c.name = function() assert.equal("other", select(2, read("y,c\n1,a\n", { name = "other" })).name) end
c.format = function() assert.equal(key_of "a", read("y\tc\n1\ta\n", { format = "tsv" })[1][1].key) end
c.header = function()
  assert.equal(2, #read("1,a\n0,b\n", { header = false, columns = { "y", "c" } }))
  assert.equal(1, #read("what,ever\n0,b\n", { header = "skip", columns = { "y", "c" } }))
end
c.columns = c.header
c.separator = function()
  assert.equal(key_of "a", read("y;c\n1;a\n", { separator = ";" })[1][1].key)
  assert.equal(key_of "a", read("y  c\n1   a\n", { separator = "blanks" })[1][1].key)
end
c.missing = function()
  assert.equal(1, #read("y,c\n1,NA\n", {})[1])
  assert.not_same(read("y,c\n1,NA\n", {})[1], read("y,c\n1,NA\n", { missing = { "NA" } })[1])
end
c.trim = function()
  assert.equal(key_of "a", read("y,c\n1, a\n", {})[1][1].key)
  assert.not_equal(key_of "a", read("y,c\n1, a\n", { trim = false })[1][1].key)
end
c.quote = function()
  assert.equal(key_of "a", read('y,c\n1,"a"\n', {})[1][1].key)
  assert.not_equal(key_of "a", read('y,c\n1,"a"\n', { quote = false })[1][1].key)
end
c.escape = function()
  local escaped = read('y,c\n1,"a\\"b"\n', { escape = "\\" })[1][1].key
  assert.equal(read('y,c\n1,"a""b"\n', {})[1][1].key, escaped)
end
local plain_x = { mr.numeric("x", { scale = "none" }) }
c.decimal = function()
  assert.equal(1.5, read("y;x\n1;1,5\n", { separator = ";", decimal = ",", fields = plain_x })[1][1].value)
end
c.label = function()
  local rows = read("z,c\nyes,a\nno,b\n", { label = { "z", positive = { "yes" }, negative = { "no" } } })
  assert.same({ 1, 0 }, { rows[1].label, rows[2].label })
end
c.weight = function()
  assert.equal(4, read("y,c,s\n1,a,4\n", { weight = "s" })[1].weight)
  assert.is_nil(read("y,c,s\n1,a,4\n", {})[1].weight)
end
c.fields = function() assert.equal(2, #read("y,c,e\n1,a,b\n", { fields = { mr.category "c", mr.category "e" } })[1]) end
c.files = function()
  local path = write("named.csv", "y,c\n1,a\n0,b\n")
  local schema = mr.schema { label = "y", fields = { mr.category "c" }, files = { train = path } }
  assert.equal(2, schema:batches("train", {})().n)
end
c.recipe = { "trainer_spec", "gives options of fit, of the model and of its parts' optimizers, which --set overrides" }
c.task = function()
  assert.equal(2.5, read("y,c\n2.5,a\n", { task = "regression" })[1].label)
  raises("cells.csv:2", read, "y,c\n2.5,a\n", {})
end

-- Those of fields stand where each kind is made.
local k = {}
tests["fields"] = { { name = true, separator = true, scale = true, mean = true, deviation = true, quantiles = true,
  edges = true }, k }
k.name = function()
  assert.not_equal(key_of "a", read("y,c\n1,a\n", { fields = { mr.category("c", { name = "other" }) } })[1][1].key)
end
k.separator = function() assert.equal(2, #read("y,c\n1,a;b\n", { fields = { mr.categories("c", { separator = ";" }) } })[1]) end
k.scale = function()
  local function values(scale)
    local rows = read("y,x\n1,1\n0,3\n", { fields = { mr.numeric("x", { scale = scale }) } })
    return rows[1][1].value, rows[2][1].value
  end
  assert.same({ 1, 3 }, { values "none" })
  local low, high = values "standard"
  assert.near(-1, low, 1e-5)
  assert.near(1, high, 1e-5)
  low, high = values "log"
  assert.truthy(low > 0 and high > low and high < 3)
end
k.mean = function()
  assert.near((5 - 3) / 4, read("y,x\n1,5\n", { fields = { mr.numeric("x", { mean = 3, deviation = 4 }) } })[1][1].value, 1e-6)
end
k.deviation = k.mean
k.edges = function()
  local rows = read("y,x\n1,1\n1,9\n1,11\n", { fields = { mr.bucket("x", { edges = { 10 } }) } })
  assert.equal(rows[1][1].key, rows[2][1].key)
  assert.not_equal(rows[1][1].key, rows[3][1].key)
end
k.quantiles = function()
  local lines, keys, n = { "y,x" }, {}, 0
  for i = 1, 90 do lines[i + 1] = "1," .. i end
  for _, row in ipairs(read(table.concat(lines, "\n") .. "\n", { fields = { mr.bucket("x", { quantiles = 3 }) } })) do
    keys[row[1].key] = (keys[row[1].key] or 0) + 1
  end
  for _, count in pairs(keys) do
    n = n + 1
    assert.near(30, count, 2)
  end
  assert.equal(3, n)
end

-- ---- search, metrics, watch -----------------------------------------------------------------------------

local q = {}
tests["mr.search"] = { list_of(search.search, "OPTIONS", "search"), q }
for _, name in ipairs { "model", "options", "space", "fit", "print", "monitor" } do
  q[name] = { "trainer_spec", "tries all combinations of lists and prints them, the best of validation first" }
end
q.trials = { "trainer_spec", "draws random trials by its seed, and options of options by their path" }
q.seed = q.trials
q.folds = { "trainer_spec", "puts trials that diverge last, and can compare by folds" }
q.store = { "fit_spec", "resumes trials, and folds, that a store has" }

local function evaluate(o)
  local model = make { data = mr.data { files = A, format = "libsvm", fields = 2 } }
  mr.fit(model, { train = A, size = 16 })
  return mr.evaluate(model, model.data:batches(A, {}), o)
end
local m = {}
tests["mr.metrics"] = { list_of(metrics.new, "METRICS_OPTIONS", "metrics"), m }
m.loss = function() assert.is_nil(evaluate({ loss = "mse" }).logloss) end
m.bins = function()
  for bins, exact in pairs { [32] = false, [0] = true } do
    local meter = mr.metrics { bins = bins > 0 and bins or nil }
    meter:add(ffi.new("float[4]", 1, 1.01, 1.02, 1.03), ffi.new("float[4]", 0, 1, 0, 1), 4)
    meter:result()
    assert.equal(exact, (meter:auc_error()) == 0)
  end
end
m.group = function() assert.equal(5, evaluate({ group = 1 }).groups) end
m.k = function() assert.not_equal(evaluate({ group = 1, k = 1 }).precision, evaluate({ group = 1, k = 5 }).precision) end
m.slice = function()
  assert.equal(5, #evaluate({ slice = 1 }).slices)
  assert.equal(64, #evaluate({ slice = 2 }).slices)
end
m.values = { "options_spec", 'tests.eval["--slice"]' }

local w = {}
tests["mr.watch"] = { list_of(metrics.watch, "WATCH_OPTIONS", "metrics"), w }
w.loss = function() assert.is_nil(mr.watch({ loss = "mse" }):result().total.logloss) end
w.window, w.every = l.window, l.every

-- ---- shrink, tables, params, models -----------------------------------------------------------------------

local h = {}
tests["model:shrink"] = { list_of(shrink.run, "OPTIONS", "shrink"), h }
for name in pairs(tests["model:shrink"][1]) do
  h[name] = { "options_spec", ('["--%s"] = function()'):format((name:gsub("_", "-"))) }
end

-- Rows after a pass in batches of 8, from step 1 to 8.
local function rows(columns, table_options, model_options)
  local o = { store = fresh() }
  for name, value in pairs(model_options or {}) do o[name] = value end
  local model = make(o, columns, table_options)
  mr.fit(model, { train = A, size = 8, shuffle = false })
  return model.tables[1]:rows(), model
end

local t = {}
tests["tables"] = { list_of(Table.new, "OPTIONS", "table"), t }
t.ttl = { "options_spec", 't["--ttl"]' }
t.admission = function() assert.equal(5, (rows(nil, { admission = { count = 2 } }))) end
t.max_rows = function() assert.equal(9, (rows(nil, { max_rows = 9, shrink_every = 8 }))) end
t.shrink_every = function()
  assert.equal(69, (rows(nil, { max_rows = 9, shrink_every = 9 })))
  assert.equal(9 + 8, (rows(nil, { max_rows = 9, shrink_every = 7 })))
end
t.shrink_by = function()
  local n, model = rows(nil, { max_rows = 5, shrink_every = 8, shrink_by = "count" })
  assert.equal(5, n)
  for key = 1, 5 do assert.truthy(select(3, model.tables[1]:peek(key, "w")) > 1) end
end
t.half_life = function()
  -- Key 200 was updated three times, long ago; 201 once, at last.
  local lines = {}
  for i = 1, 8 do lines[i] = ("1 %d:1"):format(i <= 3 and 200 or i == 8 and 201 or 300) end
  local path = write("old.svm", table.concat(lines, "\n") .. "\n")
  for half_life, expected in pairs { [100] = 200, [0.5] = 201 } do
    local model = make({ store = fresh() }, nil, { max_rows = 2, shrink_every = 8, shrink_by = "score", half_life = half_life })
    mr.fit(model, { train = path, size = 1, shuffle = false })
    assert.equal(2, model.tables[1]:rows())
    assert.truthy(select(3, model.tables[1]:peek(expected, "w")) > 0, half_life)
    model:close()
  end
end
t.clip_each = { "clip_spec", "scales tables and params by themselves" }

local col = {}
tests["columns"] = { list_of(Table.new, "COLUMN_OPTIONS", "table"), col }
col.dim = function() assert.equal(3, #make(nil, { w = { dim = 1 }, v = { dim = 3 } }).tables[1]:peek(1, "v")) end
col.init = function() assert.equal(7, make(nil, { w = { dim = 1, init = mr.init.constant(7) } }).tables[1]:peek(1, "w")[1]) end
col.optim = { "kept_spec", "is of dense weights that name none, optim of all else" }
col.admit = function()
  assert.equal(5, (rows { w = { dim = 1, admit = 2 } }))
  assert.equal(69, (rows({ w = { dim = 1, admit = 0 } }, { admission = { count = 2 } })))
end
col.precision = { "half_spec", "hold halves, and train as floats do: " }

local a = {}
tests["admission"] = { list_of(Table.new, "ADMISSION", "table"), a }
a.count = t.admission
a.chance = function()
  local n = rows(nil, { admission = { chance = 0.3 } })
  assert.truthy(n > 8 and n < 45, n) -- 5 that come often, and 0.3 of 64
  assert.equal(n, (rows(nil, nil, { admit = 0.3 })))
end
a.initial = function()
  local function score(initial)
    local model = make(nil, { w = { dim = 1, init = mr.init.constant(7) } }, { admission = { count = 3, initial = initial } })
    local it = model:batches(A, { size = 1 })
    local z = model(it()):value()
    it:close()
    return z
  end
  assert.equal(0, score(nil))
  assert.equal(14, score(true))
end
-- How many of 20,000 keys that were seen once are taken for keys seen twice, by a filter made for 1000 of them.
local function mistaken(admission)
  local lines = {}
  for i = 1, 20000 do lines[i] = ("%d %d:1"):format(i % 2, 100 + i) end
  local model = make(nil, nil, { admission = admission })
  mr.fit(model, { train = write("many.svm", table.concat(lines, "\n") .. "\n"), size = 1000 })
  return model.tables[1]:rows()
end
a.keys = function()
  local few, many = mistaken { count = 2, keys = 1000 }, mistaken { count = 2, keys = 1e6 }
  assert.truthy(few > 100, few)
  assert.truthy(many < 20, many)
end
a.error = function()
  local loose, strict = mistaken { count = 2, keys = 10000, error = 0.3 }, mistaken { count = 2, keys = 10000, error = 0.0001 }
  assert.truthy(loose > 2 * strict + 50, loose .. " " .. strict)
end

local p = {}
tests["params"] = { list_of(Model.param, "PARAM_OPTIONS", "model"), p }
p.init = function() assert.equal(7, make(nil, nil, nil, { init = mr.init.constant(7) }).params[1]:weight(1)) end
p.optim = col.optim
p.trainable = function()
  local model = make(nil, nil, nil, { trainable = false })
  mr.fit(model, { train = A })
  assert.equal(0, model.params[1]:weight(1))
end
p.clip_each = t.clip_each

local o = {}
tests["models"] = { {}, o }
for name in pairs(Model.own_options) do tests["models"][1][name] = true end
for name in pairs(settings.common) do tests["models"][1][name] = true end
o.store = function() assert.truthy(rows(nil, nil, {})) end
o.schema = { "kept_spec", "than the store's is refused, whatever the difference in features, labels, weights or cells" }
o.seed = { "kept_spec", "has its seed and its loss, with the loss's options" }
o.threads = function() make { threads = 3 } assert.equal(3, C.mr_threads()) make() end
o.memory = function()
  raises("memory", make, { memory = "1KB" })
  make { memory = "3GB" }
  assert.equal(3e9, C.mr_memory_limit())
end
o.read_only = { "kept_spec", "of other data moves no position, and one of a read-only model begins at the start" }
o.follow = { "follow_spec", "see whole commits, rows and dense weights of the same one, in order" }
o.commit_every = function()
  local model = make { store = fresh(), commit_every = 3 }
  local it = model:batches(A, { size = 8 })
  for step = 1, 6 do
    mr.bce(model(it()), data and model.batch.label):backward()
    assert.equal(step % 3 == 0, (model.batches_since + 1) >= 3)
    model:step()
    model.store:wait()
    assert.equal(math.floor(step / 3) * 3, model.store:info().commit.step)
  end
  it:close()
  model:close()
end
o.commit_seconds = function()
  local model = make { store = fresh(), commit_seconds = 0 }
  local it = model:batches(A, { size = 8 })
  mr.bce(model(it()), model.batch.label):backward()
  model:step()
  model.store:wait()
  assert.equal(1, model.store:info().commit.step)
  it:close()
  model:close()
end
o.data = function() assert.equal(data, make().data) end
o.on_notice = function()
  local said = {}
  local model = make { on_notice = function(text) said[#said + 1] = text end }
  mr.fit(model, { train = A, size = 16, on_epoch = function() return false end })
  assert.matches("ended by on_epoch", said[1])
end
o.allow_drop = { "kept_spec", "drops a dense weight of another shape, which begins anew, and restores what it is then" }
o.clock = function()
  local model = make { store = fresh(), clock = function() return 12345 end }
  model:commit()
  assert.equal(12345, model.store:info().commit.time)
  model:close()
end
o.cold = function()
  local _, model = rows()
  local store = model.directory
  model:close()
  for _, cold in ipairs { true, false } do
    model = make { store = store, read_only = true, cold = cold }
    assert.equal(cold and 0 or 69, C.mr_table_cached(model.tables[1].c))
    model:close()
  end
end
o.detached = { "options_spec", 'tests.import["--trust"]' }
o.command = { "days_spec", "says in JSON, and on standard error, why nothing was trained" }
o.lr = function() assert.near(0.125, C.mr_table_optim(make({ lr = 0.125 }).tables[1].c, 0).lr, 1e-7) end
o.optim = function()
  local model = mr.model("over", function(n)
    local row = n:table("t", { w = { dim = 1 } })
    return function(x) return row(x).w:sum() end
  end, { optim = mr.optim.adagrad { lr = 0.7, eps = 0.25 } })
  open[1] = model { data = data, optim = { l2 = 0.125 } }
  local optim = C.mr_table_optim(open[1].tables[1].c, 0)
  assert.same({ C.MR_ADAGRAD, 0.25, 0.125 }, { optim.kind, optim.eps, optim.l2 })
  assert.near(0.7, optim.lr, 1e-7)
end
o.dense_optim = col.optim
o.max_rows = { "options_spec", 't["--max-rows"]' }
o.precision = { "kept_spec", "admits, bounds, clips and rounds rows as before" }
o.clip_norm, o.clip_each, o.clip_value = { "clip_spec", "does all three, one after another" }, t.clip_each,
  { "clip_spec", "holds coordinates within a value" }

-- ---- all of them --------------------------------------------------------------------------------------

describe("Every option of", function()
  after_each(function()
    for _, model in ipairs(open) do pcall(model.close, model) end
    open = {}
    C.mr_memory_limit_set(4e9)
    C.mr_threads_set(0)
  end)

  for of, pair in pairs(tests) do
    for name in pairs(pair[1]) do
      it(("%s does what it says: %s"):format(of, name), function()
        local test = pair[2][name]
        assert(test, ("%s: option %s has no test by its effect"):format(of, name))
        if type(test) == "function" then return test() end
        local text = assert(shell.read(("tests/%s.lua"):format(test[1])), test[1])
        assert.truthy(text:find(test[2], 1, true), ("%s.lua has no test %q"):format(test[1], test[2]))
      end)
    end
  end
end)


describe("Metrics", function()
  local ranked = mr.data { files = A, format = "libsvm", fields = 2 }

  it("that are reset have forgotten their samples, groups and slices", function()
    local model, meter = make { data = ranked }, mr.metrics { group = 1, slice = 1 }
    model:eval()
    local it = ranked:batches(A, { size = 8 })
    local batch = it()
    meter:add(model(batch), batch.label)
    meter:result()
    meter:reset()
    batch = it()
    meter:add(model(batch), batch.label)
    local again, alone = meter:result(), mr.metrics { group = 1, slice = 1 }
    alone:add(model(batch), batch.label)
    local expected = alone:result()
    assert.same({ 8, expected.groups, #expected.slices }, { again.rows, again.groups, #again.slices })
    for i, slice in ipairs(expected.slices) do assert.equal(slice.rows, again.slices[i].rows) end
    it:close()
    model:close()
  end)

  it("of a watch are due at the same samples when it goes on", function()
    for _, every in ipairs { 8, "1 batches" } do
      local model, watch = make(), mr.watch { every = every, window = 100 }
      model:eval()
      local it = data:batches(A, { size = 8 })
      local batch = it()
      watch:add(model(batch), batch.label)
      assert.is_true(watch:due())
      local other = mr.watch { every = every, window = 100 }
      other:load(watch:save())
      assert.is_false(other:due())
      batch = it()
      other:add(model(batch), batch.label)
      assert.is_true(other:due())
      it:close()
      model:close()
    end
  end)
end)

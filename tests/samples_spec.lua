-- A sample keeps its label, its weight and its keys wherever it goes: through windows, memory, splits, several
-- files, epochs and resumes; and what is fitted is fitted on what is trained.
local ffi = require "ffi"
local C = require "moonrock.ffi"
local mr = require "moonrock"
local shell = require "tests.support.shell"

local dir = shell.directory()

local function file(name, text) return shell.write(dir .. "/" .. name, text) end

-- Sample i: label i % 2, weight i + 0.5, the number i as its value.
local function weighted(name, n, from)
  local lines = { "y,w,x,k\n" }
  for i = from or 1, (from or 1) + n - 1 do lines[#lines + 1] = ("%d,%g,%d,k%d\n"):format(i % 2, i + 0.5, i, i % 7) end
  return file(name, table.concat(lines))
end

local schema = mr.schema { name = "w", label = "y", weight = "w",
  fields = { mr.numeric("x", { scale = "none" }), mr.category "k" } }

local function hash(text, name) return C.mr_hash(text, #text, C.mr_hash(name, #name, 0)) end

-- The numbers in the order in which they come, each with the label, the weight and the key that are its own.
local function read(files, options)
  local o, order, marks = { size = 50 }, {}, {}
  for name, value in pairs(options or {}) do o[name] = value end
  local it = schema:batches(files, o)
  for batch in it do
    local c = batch.c
    for s = 0, batch.n - 1 do
      local at = c.offsets[s]
      local i = c.values[at]
      assert(c.label[s] == i % 2 and c.weight[s] == i + 0.5, ("sample %d has label %g and weight %g"):format(i,
        c.label[s], c.weight[s]))
      assert(c.keys[at + 1] == hash("k" .. i % 7, "k"), "another's key")
      order[#order + 1] = i
    end
    marks[#marks + 1] = { epoch = tonumber(c.position.epoch), sample = tonumber(c.position.sample), n = #order }
  end
  it:close()
  return order, marks
end

local function sorted(list)
  local copy = { unpack(list) }
  table.sort(copy)
  return copy
end

local function range(from, to)
  local list = {}
  for i = from, to do list[#list + 1] = i end
  return list
end

describe("a sample keeps what is its own", function()
  local path = weighted("w.csv", 1000)
  local more = weighted("more.csv", 333, 1001)

  for name, o in pairs {
    ["read in order"] = {}, ["read in order from memory"] = { memory = true },
    ["shuffled in windows"] = { shuffle = true, window = 130, memory = false },
    ["shuffled in windows of memory"] = { shuffle = true, window = 130, memory = true },
    ["shuffled as a whole"] = { shuffle = "full" },
    ["copied for a reader that changes batches"] = { own = true, memory = true },
  } do
    it(name .. ", in each of three epochs and from any batch on", function()
      o.seed, o.epochs = 5, 3
      local order, marks = read({ path, more }, o)
      assert.equal(3 * 1333, #order)
      for epoch = 0, 2 do
        assert.same(range(1, 1333), sorted { unpack(order, epoch * 1333 + 1, (epoch + 1) * 1333) })
      end
      for at = 1, #marks, 7 do
        o.from = { epoch = marks[at].epoch, sample = marks[at].sample }
        assert.same({ unpack(order, marks[at].n + 1) }, (read({ path, more }, o)))
      end
      o.from = nil
    end)
  end

  it("in the parts of a split and in folds, each in exactly one", function()
    for _, memory in ipairs { true, false } do
      local train = read(path, { memory = memory, split = { fraction = 0.3, part = "train" } })
      local valid = read(path, { memory = memory, split = { fraction = 0.3, part = "valid" } })
      assert.is_true(#valid > 240 and #valid < 360)
      local both = { unpack(train) }
      for _, i in ipairs(valid) do both[#both + 1] = i end
      assert.same(range(1, 1000), sorted(both))
      local held = {}
      for fold = 1, 4 do
        local part = read(path, { memory = memory, shuffle = true, window = 64,
          split = { fold = fold, folds = 4, part = "valid" } })
        for _, i in ipairs(part) do held[#held + 1] = i end
      end
      assert.same(range(1, 1000), sorted(held))
    end
  end)

  it("in a part of a file", function()
    assert.same(range(101, 150), (read(path, { skip = 100, limit = 50 })))
    assert.same(range(101, 150), (read(path, { skip = 100, limit = 50, memory = true })))
    assert.same(range(991, 1000), (read(path, { skip = 990, limit = 50 })))
    local twice = read(path, { skip = 100, limit = 50, epochs = 2, shuffle = true, window = 20, seed = 1 })
    assert.same(range(101, 150), sorted { unpack(twice, 1, 50) })
    assert.same(range(101, 150), sorted { unpack(twice, 51, 100) })
  end)

  it("while the windows of an epoch, and the epochs, have orders of their own", function()
    for _, memory in ipairs { true, false } do
      local order = read(path, { shuffle = true, window = 100, seed = 3, epochs = 2, memory = memory })
      local function places(first)
        local list = {}
        for i = 1, 100 do list[i] = (order[first + i] - 1) % 100 end
        return list
      end
      for window = 1, 9 do
        assert.same(range(window * 100 + 1, window * 100 + 100), sorted { unpack(order, window * 100 + 1, window * 100 + 100) })
        assert.not_same(places(0), places(window * 100))
      end
      assert.not_same(places(0), places(1000))
      local other = read(path, { shuffle = true, window = 100, seed = 4, memory = memory })
      assert.not_same({ unpack(order, 1, 100) }, { unpack(other, 1, 100) })
    end
  end)

  it("while each place of a window is as likely for each sample", function()
    local five, n = weighted("five.csv", 5), 4000
    for _, window in ipairs { 5, 8 } do
      local order = read(five, { size = 5, shuffle = true, window = window, seed = 9, epochs = n })
      local count = {}
      for at, i in ipairs(order) do
        local cell = (at - 1) % 5 * 5 + i
        count[cell] = (count[cell] or 0) + 1
      end
      -- Counts of n draws with a chance of a fifth: 800 with a deviation of 25.
      for cell = 1, 25 do assert.near(n / 5, count[cell] or 0, 125, ("place %d"):format(cell)) end
    end
  end)

  it("when bad lines between are skipped", function()
    local text = shell.read(path):gsub("\n0,(%d+%.5),(%d+00),", "\n0,%1,bad,")
    local bad = file("bad.csv", text)
    for _, o in ipairs { {}, { memory = true }, { shuffle = true, window = 90, seed = 2 } } do
      o.bad_lines = "skip"
      local order = read(bad, o)
      local expected = {}
      for i = 1, 1000 do
        if i % 100 ~= 0 then expected[#expected + 1] = i end
      end
      assert.same(expected, sorted(order))
    end
  end)
end)

describe("a sample of a file without a schema keeps what is its own", function()
  -- Sample i: label i % 2, query i (but each third has none), one entry of key i; values are those of some parts
  -- of the file only, and each 10th line is none.
  local lines = {}
  for i = 1, 600 do
    local valued = i > 150 and i <= 250 or i > 400
    lines[i] = i % 10 == 0 and "x" or ("%d%s %d:%d"):format(i % 2, i % 3 == 0 and "" or " qid:" .. i, i,
      valued and i or 1)
  end
  local path = file("parts.svm", table.concat(lines, "\n") .. "\n")

  for name, o in pairs {
    ["read in order"] = { memory = false }, ["from memory"] = { memory = true }, ["of its own"] = { own = true },
    ["shuffled in windows"] = { shuffle = true, window = 50, memory = false },
    ["shuffled in memory"] = { shuffle = true, window = 50, memory = true },
  } do
    it(name .. ", beside others that have no values, no query or are bad", function()
      o.bad_lines, o.epochs, o.seed = "keep", 2, 4
      for _, size in ipairs { 7, 120, 333 } do
        o.size = size
        local seen, it = {}, mr.data { files = path }:batches(nil, o)
        for batch in it do
          local c = batch.c
          for s = 0, batch.n - 1 do
            local i = tonumber(c.record[s]) + 1
            seen[#seen + 1] = i
            local is_bad = c.bad ~= nil and c.bad[s] == 1
            assert.equal(i % 10 == 0, is_bad)
            if not is_bad then
              local at = c.offsets[s]
              assert.equal(i, tonumber(c.keys[at]))
              assert.equal((i > 150 and i <= 250 or i > 400) and i or 1, c.values == nil and 1 or c.values[at])
              assert.equal(i % 3 == 0 and 0 or i, c.group == nil and 0 or tonumber(c.group[s]))
              assert.equal(i % 2, c.label[s])
            end
          end
        end
        it:close()
        assert.same(range(1, 600), sorted { unpack(seen, 1, 600) })
        assert.equal(1200, #seen)
      end
    end)
  end
end)

describe("negatives that are sampled", function()
  -- What is left of each epoch, by the number of the sample.
  local function left(train, make, number, check)
    local epochs, at = {}, 0
    mr.fit(make(), { train = train, epochs = 3, size = 64, negative_rate = 0.4, on_batch = function(batch)
      local c = batch.c
      for s = 0, batch.n - 1 do
        local i = number(c, c.offsets[s])
        check(c, s, i)
        if i % 2 == 1 then assert.equal(1, c.label[s]) end
        epochs[batch.epoch] = epochs[batch.epoch] or {}
        table.insert(epochs[batch.epoch], i)
        at = at + 1
      end
    end })
    local list = {}
    for epoch = 1, 3 do list[epoch] = sorted(epochs[epoch]) end
    return list
  end

  local function checked(list)
    local count = {}
    for epoch = 1, 3 do
      local odd = 0
      for _, i in ipairs(list[epoch]) do
        odd = odd + i % 2
        count[i] = (count[i] or 0) + 1
      end
      assert.equal(500, odd)                               -- every positive
      assert.near(200, #list[epoch] - odd, 50)             -- of 500 negatives, four deviations
    end
    local always = 0
    for i = 2, 1000, 2 do always = always + (count[i] == 3 and 1 or 0) end
    assert.near(500 * 0.4 ^ 3, always, 23)                 -- 32 are in all epochs; 200 if they drew alike
  end

  it("leave the others their weights, and are others in each epoch", function()
    checked(left(weighted("drawn.csv", 1000), function() return require("models.lr") { schema = schema, seed = 1 } end,
      function(c, at) return c.values[at] end, function(c, s, i)
        assert.equal(i + 0.5, c.weight[s])
        assert.equal(hash("k" .. i % 7, "k"), c.keys[c.offsets[s] + 1])
      end))
  end)

  it("leave the others their queries", function()
    local lines = {}
    for i = 1, 1000 do lines[i] = ("%d qid:%d %d:1"):format(i % 2, i, i) end
    local path = file("drawn.svm", table.concat(lines, "\n") .. "\n")
    checked(left(path, function() return require("models.lr") { data = mr.data { files = path }, seed = 1 } end,
      function(c, at) return tonumber(c.keys[at]) end,
      function(c, s, i) assert.equal(i, tonumber(c.group[s])) end))
  end)
end)

describe("class weights", function()
  it("multiply the weights of the data, in every batch and epoch", function()
    local path = weighted("c.csv", 500)
    for _, memory in ipairs { true, false } do
      local seen = 0
      local model = require("models.lr") { schema = schema, seed = 1 }
      mr.fit(model, { train = path, epochs = 2, size = 64, memory = memory, class_weight = { 0.25, 3 },
        on_batch = function(batch)
          local c = batch.c
          for s = 0, batch.n - 1 do
            local i = c.values[c.offsets[s]]
            assert.near((i + 0.5) * (i % 2 == 1 and 3 or 0.25), c.weight[s], 1e-3)
            seen = seen + 1
          end
        end })
      assert.equal(1000, seen)
    end
  end)

  it("called balanced are n / (2 n_c), of all the data", function()
    local lines = {}
    for i = 1, 9000 do lines[i] = ("%d %d:1\n"):format(i % 10 == 0 and 1 or 0, i) end
    local path = file("balanced.svm", table.concat(lines))
    local model = require("models.lr") { data = mr.data { files = path } }
    local weights = {}
    mr.fit(model, { train = path, class_weight = "balanced", on_batch = function(batch)
      for s = 0, batch.n - 1 do weights[tonumber(batch.c.label[s])] = batch.c.weight[s] end
    end })
    assert.near(9000 / (2 * 8100), weights[0], 1e-5)
    assert.near(9000 / (2 * 900), weights[1], 1e-5)
  end)
end)

describe("what is fitted", function()
  local function numbers(s)
    local list = {}
    for x in s:statistics():gmatch "[%s]([%d.e+-]+)" do list[#list + 1] = tonumber(x) end
    return list
  end

  it("are the quantiles of more rows than a reservoir holds", function()
    local lines = { "y,x\n" }
    local n = 1300000
    for i = 1, n do lines[#lines + 1] = ("%d,%d\n"):format(i % 2, i) end
    local path = file("long.csv", table.concat(lines))
    local s = mr.schema { name = "q", label = "y", fields = { mr.bucket("x", { quantiles = 10 }) } }
    s:fit { files = path }
    local got = {}
    for _, x in ipairs(numbers(s)) do
      if x > 1000 then got[#got + 1] = x end
    end
    assert.equal(9, #got)
    for i, x in ipairs(got) do assert.near(i / 10, x / n, 0.01) end
    os.remove(path)
  end)

  it("never sees records that are held out", function()
    local function lines_of(change)
      local held = {}
      local plain = mr.schema { name = "h", label = "y", fields = { mr.numeric("x", { scale = "none" }) } }
      local lines = { "y,x\n" }
      for i = 1, 2000 do lines[#lines + 1] = ("%d,%d\n"):format(i % 2, i) end
      local path = file("held.csv", table.concat(lines))
      for _, split in ipairs { { fraction = 0.2 }, { fold = 2, folds = 5 } } do
        local part = { part = "valid" }
        for name, value in pairs(split) do part[name] = value end
        local it = plain:batches(path, { size = 100, split = part })
        for batch in it do
          for s = 0, batch.n - 1 do held[batch.c.values[batch.c.offsets[s]]] = true end
        end
        it:close()
        local changed = { "y,x\n" }
        for i = 1, 2000 do changed[#changed + 1] = ("%d,%d\n"):format(i % 2, held[i] and change or i) end
        local other = file("changed.csv", table.concat(changed))
        local list = {}
        for j, name in ipairs { path, other } do
          local s = mr.schema { name = "f", label = "y",
            fields = { mr.numeric "x", mr.bucket("x", { quantiles = 8 }) } }
          local fit = { part = "train" }
          for key, value in pairs(split) do fit[key] = value end
          s:fit { files = name, split = fit }
          list[j] = numbers(s)
        end
        assert.is_true(#list[1] > 8)
        assert.same(list[1], list[2])
        held = {}
      end
    end
    lines_of(1e6)
  end)
end)

describe("cells", function()
  local function keys(s, path)
    local list, it = {}, s:batches(path, { size = 10, memory = false })
    for batch in it do
      for e = 0, batch.c.entries - 1 do list[#list + 1] = batch.c.keys[e] end
    end
    it:close()
    return list
  end

  it("that are missing are so in a cross of raw columns, too, whatever text stands for it", function()
    local s = mr.schema { name = "m", label = "y", missing = { "", "?" }, fields = { mr.cross { "a", "b" } } }
    local path = file("missing.csv", "y,a,b\n1,?,p\n1,,p\n1,x,p\n1,x,?\n1,x,\n1,?,?\n1,,\n")
    local k = keys(s, path)
    assert.equal(7, #k)
    assert.equal(k[1], k[2])
    assert.equal(k[4], k[5])
    assert.equal(k[6], k[7])
    local distinct = {}
    for _, i in ipairs { 1, 3, 4, 6 } do distinct[tostring(k[i])] = true end
    local n = 0
    for _ in pairs(distinct) do n = n + 1 end
    assert.equal(4, n)
  end)

  it("may hold line ends when they are quoted, behind blanks, too", function()
    local s = mr.schema { name = "b", label = "y", fields = { mr.category "a", mr.category "b" } }
    for _, text in ipairs { 'y,a,b\n1,"u\nv",w\n0,x,z\n', 'y,a,b\n1, "u\nv" ,w\n0,x,z\n', 'y,a,b\n1,   "u\nv",w\n0,x,z\n' } do
      local k = keys(s, file("quoted.csv", text))
      assert.equal(4, #k)
      assert.same({ hash("u\nv", "a"), hash("w", "b"), hash("x", "a"), hash("z", "b") }, k)
    end
  end)
end)

-- Each number once, though a chunk of the file, a ring of batches and a window end inside of it.
it("files larger than every buffer come out whole", function()
  local lines = {}
  for i = 1, 300000 do lines[i] = ("%d %d:1\n"):format(i % 2, i) end
  local path = file("large.svm", table.concat(lines))
  os.execute(("cd %s && gzip -kf large.svm && zstd -qf large.svm"):format(dir))
  for _, name in ipairs { "", ".gz", ".zst" } do
    for _, o in ipairs { {}, { memory = true }, { shuffle = true, window = 70000, seed = 1 } } do
      local seen, n, sum = ffi.new "uint8_t[300001]", 0, 0
      o.size = 777
      local it = mr.data { files = path .. name }:batches(nil, o)
      for batch in it do
        for e = 0, batch.c.entries - 1 do
          local key = tonumber(batch.c.keys[e])
          seen[key] = seen[key] + 1
          n, sum = n + 1, sum + key
        end
      end
      it:close()
      assert.same({ 300000, 300000 * 300001 / 2 }, { n, sum })
    end
  end
end)

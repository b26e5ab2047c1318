-- Readers: files, order, positions, epochs, splits and the thread that reads ahead.
local C = require "moonrock.ffi"
local ffi = require "ffi"
local mr = require "moonrock"
local shell = require "tests.support.shell"

local dir = shell.directory()

local function file(name, text) return shell.write(dir .. "/" .. name, text) end

-- Sample i has the key i.
local function numbered(name, n, from)
  local lines = {}
  for i = from or 0, (from or 0) + n - 1 do lines[#lines + 1] = ("%d %d:1\n"):format(i % 2, i) end
  return file(name, table.concat(lines))
end

local function copy(o, more)
  local c = {}
  for name, value in pairs(o) do c[name] = value end
  for name, value in pairs(more or {}) do c[name] = value end
  return c
end

-- The keys in the order they come, and after each batch {position, keys so far, last, epoch}.
local function read(files, options)
  local it = mr.data { files = files }:batches(nil, options)
  local keys, marks = {}, {}
  for batch in it do
    for e = 0, batch.c.entries - 1 do keys[#keys + 1] = tonumber(batch.c.keys[e]) end
    marks[#marks + 1] = { epoch = tonumber(batch.c.position.epoch),
      sample = tonumber(batch.c.position.sample), n = #keys, last = batch.last_of_epoch,
      at = batch.epoch }
  end
  it:close()
  return keys, marks
end

local function sorted(keys)
  local list = copy(keys)
  table.sort(list)
  return list
end

local function range(from, to)
  local list = {}
  for i = from, to do list[#list + 1] = i end
  return list
end

local function problem(f, ...)
  local ok, message = pcall(f, ...)
  assert.is_false(ok)
  return (message:gsub("^%S+_spec%.lua:%d+: ", ""))
end

describe("a reader", function()
  local path = numbered("thousand.svm", 1000)

  it("gives samples in order, epoch after epoch, with the last batch of each marked", function()
    for _, memory in ipairs { true, false } do
      local keys, marks = read(path, { size = 300, epochs = 2, memory = memory })
      assert.equal(2000, #keys)
      assert.same(range(0, 999), { unpack(keys, 1, 1000) })
      local last, sizes, epochs = {}, {}, {}
      for i, m in ipairs(marks) do
        last[i], epochs[i] = m.last, m.at
        sizes[i] = m.n - (marks[i - 1] or { n = 0 }).n
      end
      assert.same({ 300, 300, 300, 100, 300, 300, 300, 100 }, sizes)
      assert.same({ false, false, false, true, false, false, false, true }, last)
      assert.same({ 1, 1, 1, 1, 2, 2, 2, 2 }, epochs)
      assert.same({ 1, 0 }, { marks[4].epoch, marks[4].sample })
    end
  end)

  it("marks the last batch also when it is full, and the window with it", function()
    for _, shuffle in ipairs { false, 100, 250, 1000 } do
      for _, memory in ipairs { true, false } do
        local _, marks = read(path, { size = 250, shuffle = shuffle, memory = memory })
        assert.equal(4, #marks)
        assert.is_true(marks[4].last)
        assert.is_false(marks[3].last)
      end
    end
  end)

  it("shuffles every sample exactly once, within its window, each epoch in another order", function()
    for _, window in ipairs { 64, 300, 5000, "full" } do
      local keys = read(path, { size = 70, epochs = 2, shuffle = window, seed = 7, memory = false })
      local first, second = { unpack(keys, 1, 1000) }, { unpack(keys, 1001) }
      assert.same(range(0, 999), sorted(first))
      assert.same(range(0, 999), sorted(second))
      assert.not_same(first, second)
      assert.not_same(range(0, 999), first)
      if type(window) == "number" then
        for i, key in ipairs(first) do
          assert.equal(math.floor((i - 1) / window), math.floor(key / window))
        end
      end
    end
  end)

  it("hands out what it keeps in memory in place, unless batches may be changed", function()
    local lines = {}
    for i = 1, 700 do
      lines[i] = ("%d %d:%d:%g %d:%d:1\n"):format(i % 2, i % 3, i, i / 8, (i + 1) % 3, i + 1000)
    end
    lines[13] = "1 broken\n"
    local options = { size = 64, epochs = 2, memory = true, bad_lines = "keep" }
    local function all(more)
      local it = mr.data { files = file("three.ffm", table.concat(lines)), format = "libffm", fields = 3 }
        :batches(nil, copy(options, more))
      local list, shared = {}, 0
      for batch in it do
        local c = batch.c
        shared = shared + c.shared
        for s = 0, c.n - 1 do
          list[#list + 1] = ("%g %d %d"):format(c.label[s], tonumber(c.record[s]), c.bad[s])
          for e = c.offsets[s], c.offsets[s + 1] - 1 do
            list[#list + 1] = ("%d %g %d"):format(tonumber(c.keys[e]), c.values[e], c.field[e])
          end
        end
        if c.shared == 1 then
          assert.truthy(problem(function()
            require "moonrock.error".check(C.mr_batch_draw(ffi.cast("mr_batch *", c), 1, 1, 0.5))
          end):find("with `own`", 1, true))
        end
      end
      it:close()
      return list, shared
    end
    local place, shared = all()
    assert.equal(22, shared)
    local copies, none = all { own = true }
    assert.equal(0, none)
    assert.same(copies, place)
  end)

  it("orders by seed, epoch and window alone: not by batch size or memory", function()
    local expected = read(path, { size = 1, epochs = 2, shuffle = 300, seed = 3, memory = false })
    for _, size in ipairs { 7, 300, 999, 4096 } do
      for _, memory in ipairs { true, false } do
        assert.same(expected, (read(path, { size = size, epochs = 2, shuffle = 300, seed = 3,
          memory = memory })))
      end
    end
    assert.not_same(expected, (read(path, { size = 7, epochs = 2, shuffle = 300, seed = 4 })))
  end)

  it("goes on from any position as if it had never stopped", function()
    local seed = os.time()
    math.randomseed(seed)
    local lines = {}
    for i = 0, 499 do
      lines[i + 1] = math.random() < 0.1 and "bad line\n" or ("%d %d:1\n"):format(i % 2, i)
      if math.random() < 0.1 then lines[i + 1] = "\n# nothing\n" .. lines[i + 1] end
    end
    local rough = file("rough.svm", table.concat(lines))
    local compressed = rough .. ".zst"
    os.execute(("zstd -q -f %s -o %s"):format(rough, compressed))
    for _, source in ipairs { rough, compressed } do
      for _, o in ipairs { { shuffle = false }, { shuffle = 64 }, { shuffle = "full" }, { shuffle = 50 },
        { shuffle = 64, split = { fraction = 0.3, part = "train" } },
        { shuffle = false, split = { fraction = 0.3, part = "valid" } },
        { shuffle = 40, skip = 33, limit = 300 } } do
        for _, memory in ipairs { true, false } do
          local options = copy(o, { size = 23, epochs = 3, seed = 5, bad_lines = "skip", memory = memory })
          local keys, marks = read(source, options)
          for _ = 1, 6 do
            local m = marks[math.random(#marks)]
            local rest = read(source, copy(options, { from = { epoch = m.epoch, sample = m.sample } }))
            assert.same({ unpack(keys, m.n + 1) }, rest, ("seed %d, shuffle %s, memory %s, epoch %d, "
              .. "sample %d"):format(seed, tostring(o.shuffle), tostring(memory), m.epoch, m.sample))
          end
        end
      end
    end
  end)

  it("seeks in bin files as it counts in text", function()
    local function records(name, from, n)
      local words = ffi.new("int64_t[?]", n * 2)
      for i = 0, n - 1 do words[2 * i], words[2 * i + 1] = from + i, i % 2 end
      return file(name, ffi.string(words, n * 16))
    end
    local files = { records("a.bin", 0, 100), records("b.bin", 100, 50), records("c.bin", 150, 70) }
    local function keys(from, memory)
      local it = mr.data { files = files, fields = 1 }:batches(nil, { size = 13, from = from, epochs = 2,
        memory = memory })
      local list = {}
      for batch in it do
        for e = 0, batch.n - 1 do list[#list + 1] = tonumber(batch.c.keys[e]) end
      end
      it:close()
      return list
    end
    for _, sample in ipairs { 0, 1, 99, 100, 120, 150, 219, 220 } do
      for _, memory in ipairs { true, false } do
        local list = keys({ epoch = 1, sample = sample }, memory)
        assert.same(range(sample, 219), list)
      end
    end
  end)

  it("splits by the number of a sample, into parts that are the same at any batch size", function()
    local function part(name, o)
      return (read(path, copy({ split = { fraction = 0.2, part = name } }, o)))
    end
    local train, valid = part("train", { size = 10 }), part("valid", { size = 64 })
    local both = copy(train)
    for _, key in ipairs(valid) do both[#both + 1] = key end
    assert.same(range(0, 999), sorted(both))
    assert.is_true(#valid > 150 and #valid < 250) -- 200 expected, deviation 13
    assert.same(train, part("train", { size = 999, memory = true }))
    assert.same(valid, sorted(part("valid", { size = 5, shuffle = 100 })))
  end)

  it("reads a list of files, or a directory by name without hidden files", function()
    os.execute("mkdir -p " .. dir .. "/many/deeper")
    numbered("many/b.svm", 10, 10)
    numbered("many/a.svm", 10, 0)
    numbered("many/c.svm", 10, 20)
    file("many/.hidden", "junk")
    assert.same(range(0, 29), (read(dir .. "/many", { size = 7 })))
    assert.same(range(10, 19), (read({ dir .. "/many/b.svm" }, { size = 100 })))
  end)

  it("unpacks gzip and zstd by their first bytes, members and frames in a row included", function()
    local a, b = numbered("a.svm", 500, 0), numbered("b.svm", 500, 500)
    os.execute(("cd %s && gzip -c a.svm > x.svm && gzip -c b.svm >> x.svm && zstd -q -c a.svm > y.svm "
      .. "&& zstd -q -c b.svm >> y.svm"):format(dir))
    assert.same(range(0, 999), (read({ a, b }, { size = 64 })))
    for _, name in ipairs { "x.svm", "y.svm" } do
      assert.same(range(0, 999), (read(dir .. "/" .. name, { size = 64 })))
    end
  end)

  it("takes lines longer than its buffer", function()
    local words = {}
    for i = 0, 99999 do words[i + 1] = i .. ":1" end
    local keys = read(file("long.svm", "1 " .. table.concat(words, " ") .. "\n0 7:1"), { size = 1 })
    assert.equal(100001, #keys)
    assert.equal(7, keys[100001])
  end)

  it("says what is wrong with files before the first batch", function()
    local function open(name) return problem(read, dir .. "/" .. name, {}) end
    assert.equal(dir .. "/none.svm: cannot be read: No such file or directory", open "none.svm")
    file("empty.svm", "")
    assert.equal(dir .. "/empty.svm: is empty", open "empty.svm")
    os.execute("mkdir -p " .. dir .. "/void")
    assert.equal(dir .. "/void: is a directory without files", open "void")
    file("comments.svm", "# nothing\n\n")
    assert.equal(dir .. "/comments.svm: holds no samples", open "comments.svm")
    os.execute(("printf '' | gzip -c > %s/none.svm.gz"):format(dir))
    assert.equal(dir .. "/none.svm.gz: is empty", open "none.svm.gz")
  end)

  it("says that a packed file is truncated or damaged", function()
    numbered("t.svm", 20000)
    os.execute(("cd %s && gzip -kf t.svm && zstd -qf t.svm"):format(dir))
    for kind, name in pairs { gzip = "t.svm.gz", zstd = "t.svm.zst" } do
      local text = shell.read(dir .. "/" .. name)
      file(name, text:sub(1, -20))
      local message = problem(read, dir .. "/" .. name, { memory = false })
      assert.truthy(message:find(("%s/%s: is truncated: the %s data ends at byte %d"):format(dir, name,
        kind, #text - 19), 1, true), message)
      file(name, text:sub(1, 3000) .. ("\255"):rep(400) .. text:sub(3401))
      message = problem(read, dir .. "/" .. name, { memory = false })
      -- What is spoiled may still unpack, to something that is no line.
      assert.truthy(message:find(dir .. "/" .. name .. ": is damaged at byte %d+")
        or message:find(dir .. "/" .. name .. ":%d+: expected "), message)
    end
  end)

  it("refuses options that are out of range", function()
    assert.equal("batch size: 0 is out of range, expected 1 to 16777216", problem(read, path, { size = 0 }))
    assert.equal("split: 1.5 is out of range, expected more than 0 and less than 1",
      problem(read, path, { split = { fraction = 1.5, part = "train" } }))
    assert.equal("standard input: is read once, so only one epoch of it is possible",
      problem(read, "-", { epochs = 2 }))
    assert.equal("standard input: can be read only once, and is named twice", problem(read, { "-", "-" }, {}))
    assert.equal("standard input: can be read only once, so reading cannot go on in the middle of several "
      .. "files", problem(read, { path, "-" }, { from = { epoch = 0, sample = 3 } }))
    assert.equal("standard input: cannot be shuffled as a whole, it is read once; give a window",
      problem(read, "-", { shuffle = "full" }))
    assert.equal('format "svm": is not one of libsvm, libffm, libfm, csv, tsv, bin',
      problem(function() mr.data { files = path, format = "svm" }:batches() end))
    local message = problem(read, path, { shuffle = "full", bytes = 1000 })
    assert.truthy(message:find("samples take %d+ bytes of memory, more than the 1000 allowed; shuffle "
      .. "within a window, or allow more"), message)
  end)

  it("follows a file that grows, and cuts a batch short when it has waited long enough", function()
    local grows = file("grows.svm", "1 0:1\n0 1:1\n1 2:1\n0 3")
    local it = mr.data { files = grows }:batches(nil, { size = 2, follow = true, max_wait = 0.05 })
    assert.equal(2, it().n)
    assert.equal(1, it().n) -- the fourth line has not ended
    local f = io.open(grows, "a")
    f:write(":1\n1 4:1\n1")
    f:close()
    local batch = it()
    assert.same({ 2, 3, 4 }, { batch.n, tonumber(batch.c.keys[0]), tonumber(batch.c.keys[1]) })
    assert.equal(5, tonumber(batch.c.position.sample))
    local began = C.mr_clock()
    it:close() -- while it waits
    assert.is_true(C.mr_clock() - began < 2)
  end)

  it("hands out the batches of a stream without waiting for what comes after", function()
    local fifo = dir .. "/pipe"
    os.execute(("mkfifo %s && (printf '1 0:1\\n0 1:1\\n'; sleep 1; printf '1 2:1\\n') > %s &")
      :format(fifo, fifo))
    os.execute "sleep 0.1"
    local it = mr.data { files = fifo, format = "libsvm" }:batches(nil, { size = 2, stream = true })
    local began = C.mr_clock()
    assert.equal(2, it().n)
    assert.is_true(C.mr_clock() - began < 0.7)
    assert.equal(1, it().n)
    assert.is_nil(it())
    it:close()
  end)

  it("fills the same batch again and again, without allocation and next to no garbage", function()
    local it = mr.data { files = path }:batches(nil, { size = 50, epochs = 200, shuffle = 100, memory = true })
    local batch = it()
    local view = batch.c
    for _ = 1, 500 do it() end
    collectgarbage() collectgarbage "stop"
    local calls, kib = C.mr_memory_calls(), collectgarbage "count"
    for _ = 1, 1000 do
      assert(it() == batch and batch.c == view)
    end
    local grown = collectgarbage "count" - kib
    collectgarbage "restart"
    assert.equal(0, C.mr_memory_calls() - calls)
    assert.is_true(grown < 64, grown .. " KiB")
    it:close()
  end)

  it("raises errors of the data at the caller's line, and again when asked again", function()
    local broken = file("broken.svm", ("1 1:1\n"):rep(5000) .. "1 x:1\n")
    local it = mr.data { files = broken }:batches(nil, { size = 1000, memory = false })
    assert.equal(1000, it().n)
    for _ = 1, 2 do
      local ok, message
      repeat ok, message = pcall(it) until not ok or not message
      assert.is_false(ok)
      assert.truthy(message:find(broken .. ':5001: expected key:value, found "x:1"', 1, true), message)
    end
    it:close()
  end)
end)

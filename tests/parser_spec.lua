-- What parsers make of records, and what they say of those that are none.
local ffi = require "ffi"
local bit = require "bit"
local mr = require "moonrock"
local shell = require "tests.support.shell"

local dir = shell.directory()

local function file(name, text) return shell.write(dir .. "/" .. name, text) end

-- Every sample as a line of text: "label; key=value@field ...".
local function samples(data, options)
  local o = { size = 3, memory = false }
  for name, value in pairs(options or {}) do o[name] = value end
  local list = {}
  local it = data:batches(nil, o)
  for batch in it do
    local c = batch.c
    for s = 0, batch.n - 1 do
      local words = {}
      for e = c.offsets[s], c.offsets[s + 1] - 1 do
        local word = tostring(c.keys[e]):gsub("ULL$", "")
        if c.values ~= nil and c.values[e] ~= 1 then word = ("%s=%.9g"):format(word, c.values[e]) end
        if c.field ~= nil then word = word .. "@" .. c.field[e] end
        words[#words + 1] = word
      end
      local label = c.label ~= nil and ("%.9g"):format(c.label[s]) or "-"
      list[#list + 1] = label .. "; " .. table.concat(words, " ")
    end
  end
  it:close()
  return list
end

local function read(format, text, options)
  local o = options or {}
  local data = mr.data { files = file("data." .. format, text), format = format, fields = o.fields,
    task = o.task }
  return samples(data, o.batches)
end

-- int64 little-endian words
local function words(list) return ffi.string(ffi.new("int64_t[?]", #list, list), #list * 8) end

describe("a parser", function()
  it("reads libsvm: any 64-bit key, values, comments, blank lines, CR LF and a last line without end", function()
    assert.same({ "1; 0 18446744073709551615=-0.5 7=250", "0; 3", "1; ", "0; 4" },
      read("libsvm", "# head\n1 0:1 18446744073709551615:-0.5 7:2.5e2\r\n\n-1\t3:1.0  # c\n+1\n  -1 4:1"))
  end)

  it("reads libffm with its fields", function()
    assert.same({ "1; 5@0 6=2@3", "0; 5@65535" }, read("libffm", "1 0:5:1 3:6:2\n0 65535:5:1\n"))
  end)

  it("leaves field numbers out where every sample of a batch has each field once, in order", function()
    local text = "1 0:5:1 1:6:1\n0 0:7:1 1:8:1\n1 0:9:1 1:3:1\n"
    assert.same({ "1; 5 6", "0; 7 8", "1; 9 3" }, read("libffm", text, { fields = 2 }))
    for _, last in ipairs { "1 1:9:1 0:3:1", "1 0:9:1 0:3:1", "1 0:9:1", "1 0:9:1 1:3:1 1:4:1" } do
      local got = read("libffm", text:gsub("[^\n]+\n$", last .. "\n"), { fields = 2 })
      assert.equal("1; 5@0 6@1", got[1], last)
      local all = read("libffm", text .. last .. "\n", { fields = 2, batches = { size = 3 } })
      assert.equal("1; 5 6", all[1], last)
      assert.truthy(all[4]:find("@", 1, true), last)
    end
  end)

  it("reads keys of any number of digits, whatever follows them", function()
    local line, expected = { "1" }, { "1;" }
    for n = 1, 20 do
      for _, key in ipairs { ("1"):rep(n), n < 20 and ("9"):rep(n) or "18446744073709551615",
        ("0"):rep(n) .. "7" } do
        line[#line + 1] = key .. (n % 2 == 0 and ":1" or ":2")
        expected[#expected + 1] = key:gsub("^0+(.)", "%1") .. (n % 2 == 0 and "" or "=2")
      end
    end
    assert.same({ table.concat(expected, " ") }, read("libsvm", table.concat(line, " ") .. "\n"))
    for _, after in ipairs { "/", ";", "a", "\194\176", "\255" } do
      local ok, why = pcall(read, "libsvm", "1 123" .. after .. ":1\n")
      assert.is_false(ok)
      assert.truthy(tostring(why):find("expected key:value", 1, true), why)
    end
  end)

  it("reads libfm with any finite label where the task is regression", function()
    assert.same({ "3.5; 1=0.25", "-2; 2" }, read("libfm", "3.5 1:.25\n-2 2:1.\n", { task = "regression" }))
  end)

  it("reads bin, whose labels are the last word of a record", function()
    assert.same({ "1; 7 18446744073709551615", "0; 0 9" },
      read("bin", words { 7, -1, 1, 0, 9, 0 }, { fields = 2 }))
  end)

  it("makes labels of -1 and 1 into 0 and 1", function()
    assert.same({ "0; 1", "1; 2" }, read("libsvm", "-1 1:1\n1 2:1\n"))
  end)

  it("tells the format by the file's name, or else by its text", function()
    for name, text in pairs { ["a.svm"] = "1 2:1\n", ["b.ffm"] = "1 0:2:1\n", ["c.txt"] = "1 2:1\n",
      ["d.txt"] = "1 0:2:1\n", ["e.fm"] = "1 2:1" } do
      local list = samples(mr.data { files = file(name, text) })
      assert.equal(1, #list)
      assert.truthy(list[1]:find("^1; 2"), name)
    end
  end)

  it("rounds decimals to floats as the C library does", function()
    ffi.cdef "float strtof(const char *, char **);"
    local seed = os.time()
    math.randomseed(seed)
    local texts = { "16777217", "0.1", "1e-45", "3.4028234e38", "1.17549435e-38", "33554435",
      "9007199254740993", "123456789012345678901234567890", "1.00000017881393432617187499",
      "1.00000017881393432617187500", "1.00000017881393432617187501", "0.00000", "-0.0", "5e-324" }
    for _ = 1, 3000 do
      local digits = {}
      for i = 1, math.random(1, 25) do digits[i] = math.random(0, 9) end
      table.insert(digits, math.random(1, #digits), ".")
      texts[#texts + 1] = (math.random() < 0.5 and "-" or "") .. table.concat(digits):gsub("^%.", "0.")
        .. (math.random() < 0.5 and "e" .. math.random(-40, 12) or "")
    end
    local lines = {}
    for i, text in ipairs(texts) do lines[i] = "0 1:" .. text end
    local data = mr.data { files = file("floats.svm", table.concat(lines, "\n")) }
    local i = 0
    for batch in data:batches(nil, { size = 100, memory = false }) do
      for s = 0, batch.n - 1 do
        i = i + 1
        local expected = ffi.new("float[1]", ffi.C.strtof(texts[i], nil))
        local found = ffi.new("float[1]", batch.c.values == nil and 1 or batch.c.values[s])
        assert.equal(ffi.cast("uint32_t *", expected)[0], ffi.cast("uint32_t *", found)[0],
          ("%s, seed %d"):format(texts[i], seed))
      end
    end
    assert.equal(#texts, i)
  end)

  it("reads back any keys and values it is given, in samples of any length", function()
    local seed = os.time()
    math.randomseed(seed)
    local lines, expected = {}, {}
    for i = 1, 2000 do
      local line, want = {}, {}
      for j = 1, math.random(0, 12) do
        local key = bit.bor(bit.lshift(0ULL + math.random(0, 2 ^ 31), 33), 0ULL + math.random(0, 2 ^ 31))
        local value = math.random(-400, 400) / 8
        local text = tostring(key):gsub("ULL$", "")
        line[j] = text .. ":" .. value
        want[j] = text .. (value == 1 and "" or ("=%.9g"):format(value))
      end
      lines[i] = i % 2 .. " " .. table.concat(line, " ")
      expected[i] = i % 2 .. "; " .. table.concat(want, " ")
    end
    assert.same(expected, read("libsvm", table.concat(lines, "\n"), { batches = { size = 70 } }),
      "seed " .. seed)
  end)

  local bad = {
    { "libsvm", "1 2:1\nabc 3:1\n", 2, 'expected a label, found "abc"' },
    { "libsvm", "2 3:1\n", 1, "expected a label of 0 or 1 (or -1 or 1), found 2" },
    { "libsvm", "0 3:1\n-1 3:1\n", 2, "expected a label of 0 or 1, as before, found -1" },
    { "libsvm", "-1 3:1\n0 3:1\n", 2, "expected a label of -1 or 1, as before, found 0" },
    { "libsvm", "nan 3:1\n", 1, 'expected a label, found "nan"' },
    { "libsvm", "1e99 3:1\n", 1, 'expected a finite label, found "1e99"' },
    { "libsvm", "3:1 4:1\n", 1, 'expected a label, found "3:1"' },
    { "libsvm", "1 a:1\n", 1, 'expected key:value, found "a:1"' },
    { "libsvm", "1 12\n", 1, 'expected key:value, found "12"' },
    { "libsvm", "1 -3:1\n", 1, 'expected key:value, found "-3:1"' },
    { "libsvm", "1 18446744073709551616:1\n", 1,
      'expected a key of at most 64 bits, found "18446744073709551616:1"' },
    { "libsvm", "1 3:\n", 1, 'expected a number as value of key 3, found ""' },
    { "libsvm", "1 3:nan\n", 1, 'expected a number as value of key 3, found "nan"' },
    { "libsvm", "1 3:inf\n", 1, 'expected a number as value of key 3, found "inf"' },
    { "libsvm", "1 3:1e39\n", 1, 'expected a finite value of key 3, found "1e39"' },
    { "libsvm", "1 3:0x10\n", 1, 'expected a number as value of key 3, found "0x10"' },
    { "libsvm", "1 3:1:1\n", 1, 'expected a number as value of key 3, found "1:1"' },
    { "libsvm", "1 qid:x 4:1\n", 1, 'expected a query id of up to 64 bits, found "qid:x"' },
    { "libsvm", "1 qid:3.5 4:1\n", 1, 'expected a query id of up to 64 bits, found "qid:3.5"' },
    { "libsvm", "1 4:1 qid:3\n", 1, 'expected a query id ("qid:3") right behind the label, once' },
    { "libsvm", "1 qid:1 qid:3 4:1\n", 1, 'expected a query id ("qid:3") right behind the label, once' },
    { "libsvm", "1 1:1 2:1\n1 2:1\n", 2, "expected 2 entries, one of each field, found 1", fields = 2 },
    { "libfm", "x 1:1\n", 1, 'expected a label, found "x"', task = "regression" },
    { "libffm", "1 2:3\n", 1, 'expected field:key:value, found "2:3"' },
    { "libffm", "1 x:3:1\n", 1, 'expected field:key:value, found "x:3:1"' },
    { "libffm", "1 0:y:1\n", 1, 'expected a key after the field, found "y:1"' },
    { "libffm", "1 4:3:1\n", 1, "expected a field below 4, found 4", fields = 4 },
    { "libffm", "1 65536:3:1\n", 1, "expected a field below 65536, found 65536" },
  }
  for _, case in ipairs(bad) do
    local format, text, line, message = unpack(case)
    it(("says of %s %q: %s"):format(format, text, message), function()
      local path = dir .. "/data." .. format
      local ok, problem = pcall(read, format, text, { fields = case.fields, task = case.task })
      assert.is_false(ok)
      assert.equal(("%s:%d: %s"):format(path, line, message), problem:match("^%S+_spec%.lua:%d+: (.*)$"))
    end)
  end

  it("says where a record of bin is bad or cut short", function()
    local path = dir .. "/data.bin"
    local function problem(text, fields)
      local _, message = pcall(read, "bin", text, { fields = fields })
      return message:match("^%S+_spec%.lua:%d+: (.*)$")
    end
    assert.equal(path .. ": record 2 (byte 16): expected a label of 0 or 1 (or -1 or 1), found 7",
      problem(words { 1, 1, 1, 7 }, 1))
    assert.equal(path .. ": record 2 is cut short: 8 bytes of 16 (1 fields of 8 bytes and the label)",
      problem(words { 1, 1, 1 }, 1))
  end)

  it("skips bad lines and counts them, or keeps an empty sample for each", function()
    local path = file("bad.svm", "1 1:1\nx\n0 2:1\n1 y:1\n\n1 3:1")
    local data = mr.data { files = path }
    assert.same({ "1; 1", "0; 2", "1; 3" }, samples(data, { bad_lines = "skip" }))
    local it = data:batches(nil, { bad_lines = "skip", memory = false })
    while it() do end
    local count, first = it:skipped()
    assert.equal(2, count)
    assert.equal(path .. ':2: expected a label, found "x"', first)
    it:close()
    local n, marks = 0, {}
    it = data:batches(nil, { bad_lines = "keep", memory = false, size = 10 })
    for batch in it do
      n = n + batch.n
      for s = 0, batch.n - 1 do
        marks[#marks + 1] = batch.c.bad[s]
        assert.equal(batch.c.bad[s] == 1, batch.c.label[s] ~= batch.c.label[s])
      end
    end
    it:close()
    assert.equal(5, n) -- the blank line is no record
    assert.same({ 0, 1, 0, 1, 0 }, marks)
  end)

  it("counts the bad lines of one epoch, the worst so far, in whichever it is", function()
    local lines = {}
    for i = 1, 20000 do lines[i] = (i == 5 or i == 19990) and "x" or "1 " .. i .. ":1" end
    local path = file("epochs.svm", table.concat(lines, "\n") .. "\n")
    local it = mr.data { files = path }:batches(nil, { bad_lines = "skip", memory = false, epochs = 3, size = 10 })
    local seen = 0
    for batch in it do
      seen = seen + batch.n
      if seen == 20108 or seen == 3 * 19998 then assert.equal(2, (it:skipped())) end
    end
    assert.equal(3 * 19998, seen)
    it:close()
  end)

  it("reads query ids of svmlight as the groups of samples, not as features", function()
    local path = file("letor.txt", "2 qid:7 1:0.5 # docid = A\n0 qid:18446744073709551615 1:1\n\n1 1:2\nbad\n0 qid:7 3:1\n")
    local expected = { 7ULL, 18446744073709551615ULL, 0ULL, 0ULL, 7ULL }
    for _, o in ipairs { { size = 10 }, { size = 1 }, { size = 2, memory = true }, { size = 10, shuffle = "full" },
      { size = 3, own = true, memory = true } } do
      o.bad_lines = "keep"
      local got = {}
      for batch in mr.data { files = path, task = "regression" }:batches(nil, o) do
        local keys = ffi.new("uint64_t[?]", batch.n)
        if batch.c.group ~= nil then
          assert.equal(0, require("moonrock.ffi").mr_batch_keys(batch.c, batch:keys("qid").field, keys))
        end
        for i = 0, batch.n - 1 do
          got[tonumber(batch.c.record[i]) + 1] = keys[i]
          assert.is_true(batch.c.entries <= batch.n)
        end
      end
      assert.same(expected, got)
    end
    assert.same({ "1; 5@0" }, read("libffm", "1 qid:3 0:5:1\n"))
    assert.same({ "-; 5", "-; 6" }, samples(mr.data { files = file("unlabelled.svm", "1 qid:2 5:1\n0 qid:2 6:1\n") },
      { labels = false }))
  end)

  it("says so when a group is asked for that the data lacks", function()
    local it = mr.data { files = file("plain.svm", "1 5:1\n0 6:1\n") }:batches(nil, {})
    local batch = it()
    assert.equal(-1, require("moonrock.ffi").mr_batch_keys(batch.c, batch:keys("qid").field,
      ffi.new "uint64_t[2]"))
    assert.equal("batch: its samples have no query ids (qid:N behind the label)",
      ffi.string(require("moonrock.ffi").mr_error()))
    it:close()
  end)

  it("ranks within query ids, in eval and in the losses of a model", function()
    local program = io.popen("readlink -f " .. shell.quote(shell.program)):read "*l"
    local lines = {}
    for q = 1, 40 do
      for d = 1, 5 do lines[#lines + 1] = ("%d qid:%d %d:1\n"):format(d == q % 5 + 1 and 1 or 0, q, d + q % 5 * 10) end
    end
    file("rank.txt", table.concat(lines))
    file("rank.lua", [[
      local mr = require "moonrock"
      return mr.model("rank", function(m)
        local row = m:table("w", { w = { dim = 1 } })
        local function scores(x) return row(x).w:sum() end
        return scores, function(logits, batch)
          return mr.listwise(logits, batch.label, { group = batch:keys "qid" })
        end
      end)]])
    local status, out, errors = shell.run(("cd %s && %s train ./rank.lua --data rank.txt --batch 200 --epochs 40 "
      .. "--lr 0.1 --store rank >/dev/null && %s eval --store rank --data rank.txt --group qid --metrics ndcg,gauc")
      :format(shell.quote(dir), shell.quote(program), shell.quote(program)))
    assert.equal(0, status, errors)
    assert.truthy(out:find "ndcg 1%.0000  gauc 1%.0000", out)
  end)

  it("reads data without labels, or ignores those there are", function()
    local path = file("nolabel.svm", "3:1 4:1\n1 5:1\n6:2\n")
    assert.same({ "-; 3 4", "-; 5", "-; 6=2" }, samples(mr.data { files = path }, { labels = false }))
  end)
end)

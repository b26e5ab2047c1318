-- Schemas: columns of CSV, how cells become keys and values, and what is fitted.
local ffi = require "ffi"
local C = require "moonrock.ffi"
local mr = require "moonrock"
local shell = require "tests.support.shell"

local dir = shell.directory()

local function file(name, text) return shell.write(dir .. "/" .. name, text) end

local function hash(text, name) return C.mr_hash(text, #text, C.mr_hash(name, #name, 0)) end

-- Every sample: { label =, weight =, keys = {...}, values = {...}, fields = {...} }.
local function read(schema, path, options)
  local o = { size = 2, memory = false }
  for name, value in pairs(options or {}) do o[name] = value end
  local list = {}
  local it = schema:batches(path, o)
  for batch in it do
    local c = batch.c
    for s = 0, batch.n - 1 do
      local x = { label = c.label ~= nil and c.label[s] or nil, weight = c.weight ~= nil and c.weight[s] or nil,
        keys = {}, values = {}, fields = {} }
      for e = c.offsets[s], c.offsets[s + 1] - 1 do
        x.keys[#x.keys + 1] = c.keys[e]
        x.values[#x.values + 1] = c.values ~= nil and c.values[e] or 1
        x.fields[#x.fields + 1] = c.field ~= nil and c.field[e] or e - c.offsets[s]
      end
      list[#list + 1] = x
    end
  end
  it:close()
  return list
end

local function problem(f, ...)
  local ok, message = pcall(f, ...)
  assert.is_false(ok)
  return (message:gsub("^%S+_spec%.lua:%d+: ", ""))
end

local function schema(o)
  o.name, o.label = o.name or "s", o.label or "y"
  return mr.schema(o)
end

describe("a schema", function()
  it("hashes a category under its field's name, so that equal values of two fields differ", function()
    local s = schema { fields = { mr.category "a", mr.category "b", mr.category("a", { name = "again" }) } }
    local path = file("cat.csv", "y,b,a\n1,x,x\n0,,z\n")
    local list = read(s, path)
    assert.same({ 1, 0 }, { list[1].label, list[2].label })
    assert.same({ hash("x", "a"), hash("x", "b"), hash("x", "again") }, list[1].keys)
    assert.not_equal(list[1].keys[1], list[1].keys[2])
    assert.equal(hash("z", "a"), list[2].keys[1])
  end)

  it("gives a missing cell a key of its own in each field", function()
    local s = schema { missing = { "?", "" }, fields = { mr.category "a", mr.category "b",
      mr.numeric("c", { mean = 1, deviation = 2 }) } }
    local list = read(s, file("missing.csv", "y,a,b,c\n1,?,?,5\n0,,?,?\n1,x,y,1\n"))
    assert.equal(list[1].keys[1], list[2].keys[1])
    assert.not_equal(list[1].keys[1], list[1].keys[2])
    assert.not_equal(hash("?", "a"), list[1].keys[1])
    assert.not_equal(hash("", "a"), list[1].keys[1])
    assert.equal(2, list[1].values[3])
    assert.not_equal(list[1].keys[3], list[2].keys[3]) -- the indicator
    assert.equal(1, list[2].values[3])
    assert.same({ list[1].keys[3], 0 }, { list[3].keys[3], list[3].values[3] })
  end)

  it("scales numbers", function()
    local s = schema { fields = {
      mr.numeric("x", { name = "none", scale = "none" }),
      mr.numeric("x", { name = "standard", mean = 10, deviation = 4 }),
      mr.numeric("x", { name = "log", scale = "log" }),
      mr.numeric("x", { name = "both", scale = "log_standard", mean = 1, deviation = 2 }) } }
    for _, x in ipairs { 0, 3, -7.5, 1e6 } do
      local log = x < 0 and -math.log(1 - x) or math.log(1 + x)
      local expected = { x, (x - 10) / 4, log, (log - 1) / 2 }
      local values = read(s, file("scale.csv", ("y,x\n1,%.17g\n"):format(x)))[1].values
      for i = 1, 4 do -- rounded to a float: 2^-24 of the number
        assert.is_true(math.abs(values[i] - expected[i]) <= 6e-8 * math.abs(expected[i]), i)
      end
    end
  end)

  it("buckets numbers by how many edges are not above them", function()
    local s = schema { fields = { mr.bucket("x", { edges = { 0, 10, 20 }, name = "b" }) } }
    local list = read(s, file("bucket.csv", "y,x\n1,-1\n1,0\n1,9.99\n1,10\n1,20\n1,1e9\n"))
    local numbers = { 0, 1, 1, 2, 3, 3 }
    assert.equal(#numbers, #list)
    for i, x in ipairs(list) do
      local number = ffi.string(ffi.new("uint32_t[1]", numbers[i]), 4)
      assert.equal(hash(number, "b"), x.keys[1])
    end
  end)

  it("splits a cell into categories, and crosses every combination", function()
    local s = schema { fields = { mr.categories("tags", { separator = "|" }), mr.category "a",
      mr.cross { "tags", "a" }, mr.cross { "a", "raw" } } }
    local list = read(s, file("multi.csv", "y,tags,a,raw\n1,u|v | w,p,r\n0,,p,r\n"))
    assert.same({ 0, 0, 0, 1, 2, 2, 2, 3 }, list[1].fields)
    assert.same({ hash("u", "tags"), hash("v", "tags"), hash("w", "tags") }, { unpack(list[1].keys, 1, 3) })
    local pair = ffi.string(ffi.new("uint64_t[2]", { hash("v", "tags"), hash("p", "a") }), 16)
    assert.equal(hash(pair, "tags*a"), list[1].keys[6])
    pair = ffi.string(ffi.new("uint64_t[2]", { hash("p", "a"), hash("r", "raw") }), 16)
    assert.equal(hash(pair, "a*raw"), list[1].keys[8])
    assert.same({ 0, 1, 2, 3 }, list[2].fields)
    s = schema { missing = { "", "?" }, fields = { mr.categories("tags", { separator = "|" }) } }
    list = read(s, file("gaps.csv", "y,tags\n1,u|?|v\n0,?|\n1,?\n"))
    assert.same({ hash("u", "tags"), hash("v", "tags") }, list[1].keys)
    assert.equal(1, #list[2].keys)
    assert.equal(list[3].keys[1], list[2].keys[1]) -- none at all
  end)

  it("reads labels by their names, and weights", function()
    local s = schema { label = { "y", positive = { "yes" }, negative = { "no" } }, weight = "w",
      fields = { mr.category "a" } }
    local list = read(s, file("label.csv", "a,w,y\np,0.5,yes\nq,2,no\n"))
    assert.same({ 1, 0.5, 0, 2 }, { list[1].label, list[1].weight, list[2].label, list[2].weight })
  end)

  it("reads quoted cells with separators, quotes and line ends, CR LF, a byte order mark and no last line end", function()
    local s = schema { fields = { mr.category "a b", mr.category "c" } }
    local path = file("quotes.csv", '\239\187\191y,"a b",c\r\n1,"p,""q""\nr",plain\r\n\r\n0,in"side, trimmed ')
    local list = read(s, path)
    assert.equal(2, #list)
    assert.same({ hash('p,"q"\nr', "a b"), hash("plain", "c") }, list[1].keys)
    assert.same({ hash('in"side', "a b"), hash("trimmed", "c") }, list[2].keys)
  end)

  it("finds columns by each file's own header", function()
    local s = schema { fields = { mr.category "a" } }
    local list = read(s, { file("h1.csv", "y,a\n1,p\n"), file("h2.csv", "a,extra,y\nq,z,0\n") })
    assert.same({ { hash("p", "a") }, { hash("q", "a") } }, { list[1].keys, list[2].keys })
    assert.same({ 1, 0 }, { list[1].label, list[2].label })
  end)

  it("reads TSV, and data that lacks the label", function()
    local s = schema { format = "tsv", columns = { "y", "a" }, fields = { mr.category "a" } }
    assert.equal(hash("p", "a"), read(s, file("t.tsv", "1\tp\n"))[1].keys[1])
    local unlabelled = read(s, file("u.tsv", "p\n"), { labels = false })
    assert.equal(hash("p", "a"), unlabelled[1].keys[1])
    assert.is_nil(unlabelled[1].label)
  end)

  describe("that is fitted", function()
    local seed = os.time()
    math.randomseed(seed)
    local lines, numbers = { "y,x" }, {}
    for i = 1, 5000 do
      numbers[i] = math.floor(math.exp(math.random() * 10)) / 4
      if i % 50 == 0 then
        numbers[i] = nil
        lines[#lines + 1] = i % 2 .. ","
      else
        lines[#lines + 1] = i % 2 .. "," .. numbers[i]
      end
    end
    local path = file("fit.csv", table.concat(lines, "\n"))
    local function fields()
      return { mr.numeric "x", mr.numeric("x", { name = "l", scale = "log_standard" }),
        mr.bucket("x", { quantiles = 10 }) }
    end
    local list = {}
    for i = 1, 5000 do list[#list + 1] = numbers[i] end

    it("has the mean, deviation and quantiles of the data", function()
      local s = schema { fields = fields() }
      s:fit { files = path }
      local text = s:statistics()
      local function moments(f)
        local sum, squares = 0, 0
        for _, v in ipairs(list) do sum = sum + f(v) end
        local mean = sum / #list
        for _, v in ipairs(list) do squares = squares + (f(v) - mean) ^ 2 end
        return mean, math.sqrt(squares / #list)
      end
      for name, f in pairs { x = function(v) return v end, l = function(v) return math.log(1 + v) end } do
        local mean, deviation = text:match("numeric\t" .. name .. "\t(%S+)\t(%S+)\n")
        local m, d = moments(f)
        assert.is_true(math.abs(mean - m) <= 1e-12 * m) -- two ways to sum 5000 doubles
        assert.is_true(math.abs(deviation - d) <= 1e-12 * d)
      end
      table.sort(list)
      local edges, count = {}, 0
      for q = 1, 9 do
        local at = (#list - 1) * q / 10
        local i = math.floor(at)
        local edge = list[i + 1] + (list[i + 2] - list[i + 1]) * (at - i)
        if edge ~= edges[count] then
          count = count + 1
          edges[count] = edge
        end
      end
      local found = {}
      for number in text:match("bucket\tx%.bucket\t%d+\t([^\n]*)"):gmatch "%S+" do
        found[#found + 1] = tonumber(number)
      end
      assert.same(edges, found, "seed " .. seed)
    end)

    it("gives the same statistics and keys again, also from their text", function()
      local a, b, c = schema { fields = fields() }, schema { fields = fields() }, schema { fields = fields() }
      a:fit { files = path }
      b:fit { files = path }
      assert.equal(a:statistics(), b:statistics())
      assert.is_false(c:fitted())
      c:restore(a:statistics())
      assert.is_true(c:fitted())
      assert.equal(a:statistics(), c:statistics())
      assert.same(read(a, path), read(c, path))
    end)

    it("leaves out what a split holds out", function()
      local a, b = schema { fields = fields() }, schema { fields = fields() }
      a:fit { files = path, split = { fraction = 0.5, part = "train" } }
      b:fit { files = path }
      assert.not_equal(a:statistics(), b:statistics())
    end)

    it("is an error to read before", function()
      local s = schema { fields = fields() }
      assert.truthy(problem(read, s, path):find('field "x"', 1, true))
    end)

    it("takes no other schema's statistics", function()
      local s = schema { fields = fields() }
      s:fit { files = path }
      local other = schema { name = "other", fields = { mr.category "x" } }
      assert.equal('schema "other": statistics of numeric field "x", which it does not have',
        problem(other.restore, other, s:statistics()))
      assert.equal('schema "other": not the statistics of a schema', problem(other.restore, other, "junk"))
    end)
  end)

  local bad = {
    { "y,a\n1,p,q\n", 'bad.csv:2: expected 2 cells, found 3' },
    { "y,a\n1\n", 'bad.csv:2: expected 2 cells, found 1' },
    { 'y,a\n1,"p"q\n', 'bad.csv:2: expected the separator after a closing quote, found "q"' },
    { 'y,a\n1,ok\n1,"p\nq,r\n', 'bad.csv:3: expected the closing quote of a cell' },
    { 'y,a\n1,"x\ny"\n7,p\n', 'bad.csv:4: expected a label of 0 or 1 (or -1 or 1), found 7' },
    { "y,a\n2,p\n", 'bad.csv:2: expected a label of 0 or 1 (or -1 or 1), found 2' },
    { "y,a\nx,p\n", 'bad.csv:2: column "y": expected a label, found "x"; the schema names '
      .. 'labels that are texts: label = { "y", positive = { "x" } }' },
    { "y,a\n,p\n", 'bad.csv:2: column "y": expected a label, found ""' },
    { "y,n\n1,abc\n", 'bad.csv:2: column "n": expected a number, found "abc"', numeric = true },
    { "y,n\n1,nan\n", 'bad.csv:2: column "n": expected a number, found "nan"; if that stands for none, say so in '
      .. 'the schema: missing = { "", "nan" }', numeric = true },
    { "y,n\n1,1e999\n", 'bad.csv:2: column "n": expected a number, found "1e999"', numeric = true },
    { "y,b\n1,p\n", 'bad.csv:1: schema "s": no column "a"; the file\'s columns are: y, b' },
    { "z,a\n1,p\n", 'bad.csv:1: schema "s": no column "y"; the file\'s columns are: z, a' },
    { "y,a\n", "bad.csv: holds no samples" },
  }
  for _, case in ipairs(bad) do
    it(("says of %q: %s"):format(case[1], case[2]), function()
      local s = schema { fields = { case.numeric and mr.numeric("n", { mean = 0, deviation = 1 })
        or mr.category "a" } }
      assert.equal(dir .. "/" .. case[2], problem(read, s, file("bad.csv", case[1])))
    end)
  end

  it("skips a record with an open quote as one line", function()
    local s = schema { fields = { mr.category "a" } }
    local list = read(s, file("open.csv", 'y,a\n1,"p\n0,q\n1,r\n'), { bad_lines = "skip" })
    assert.same({ { hash("q", "a") }, { hash("r", "a") } }, { list[1].keys, list[2].keys })
  end)

  it("refuses what it cannot be made of", function()
    local function make(o) return problem(schema, o) end
    assert.equal('schema "s": no column "incom" (did you mean "income"?); its columns are: y, age, income',
      make { columns = { "y", "age", "income" }, fields = { mr.category "incom" } })
    assert.equal('schema "s": two fields are called "a"; give one of them a name of its own (name = ...)',
      make { fields = { mr.category "a", mr.numeric "a" } })
    assert.equal('schema "s": field "a": edge 2 (1) is not above the one before it',
      make { fields = { mr.bucket("a", { name = "a", edges = { 1, 1 } }) } })
    assert.equal('schema "s": field "a*b*c": a cross of 1 parts, expected 2 to 16',
      make { fields = { mr.cross { "a", name = "a*b*c" } } })
    assert.equal('schema "s": without a header, columns are needed', make { header = false,
      fields = { mr.category "a" } })
  end)

  it("that names a label, reads a stream without one only when told so", function()
    local s = schema { fields = { mr.category "a" } }
    local path = file("without.csv", "a\np\n")
    assert.truthy(problem(read, s, path):find('no column "y"', 1, true))
    assert.equal(hash("p", "a"), read(s, path, { labels = false })[1].keys[1])
  end)

  it("of the census data reads every row of it", function()
    local census = require "datasets.census"
    local rows, positive = 0, 0
    for batch in census:batches("train", { size = 1000 }) do
      rows = rows + batch.n
      for i = 0, batch.n - 1 do positive = positive + batch.c.label[i] end
    end
    assert.same({ 32561, 7841 }, { rows, positive }) -- as the data's own description has it
    rows = 0
    for batch in census:batches("test", { size = 1000 }) do rows = rows + batch.n end
    assert.equal(16281, rows)
  end)
end)

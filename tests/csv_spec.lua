-- CSV as other programs write it: separators, quotes, decimals, headers, labels and weights; and what is said
-- of a schema, or of a file, that is wrong.
local C = require "moonrock.ffi"
local mr = require "moonrock"
local shell = require "tests.support.shell"

local dir = shell.directory()
local PROGRAM = io.popen("readlink -f " .. shell.quote(shell.program)):read "*l"

local function file(name, text) return shell.write(dir .. "/" .. name, text) end

-- The key of a cell's text in a field.
local function hash(text, name) return C.mr_hash(text, #text, C.mr_hash(name, #name, 0)) end

-- A schema of categories whose label is y.
local function schema(fields, options)
  local o = { name = "s", label = "y", fields = {} }
  for i, name in ipairs(fields) do o.fields[i] = type(name) == "string" and mr.category(name) or name end
  for name, value in pairs(options or {}) do o[name] = value end
  return mr.schema(o)
end

-- Of every sample: label, weight, keys, values.
local function read(s, text, options)
  local files = type(text) == "table" and text or file("data.csv", text)
  local list = {}
  for batch in s:batches(files, options or {}) do
    local c = batch.c
    for i = 0, batch.n - 1 do
      local x = { label = c.label ~= nil and c.label[i] or nil, weight = c.weight ~= nil and c.weight[i] or nil,
        keys = {}, values = {} }
      for e = c.offsets[i], c.offsets[i + 1] - 1 do
        x.keys[#x.keys + 1] = c.keys[e]
        x.values[#x.values + 1] = c.values ~= nil and c.values[e] or 1
      end
      list[#list + 1] = x
    end
  end
  return list
end

-- Whether the samples have these texts in their fields.
local function cells(s, fields, text, expected, options)
  local list = read(s, text, options)
  assert.equal(#expected, #list)
  for i, texts in ipairs(expected) do
    for j, cell in ipairs(texts) do
      assert.equal(hash(cell, fields[j]), list[i].keys[j], ("sample %d, %s"):format(i, fields[j]))
    end
  end
end

local function problem(f, ...)
  local ok, message = pcall(f, ...)
  assert.is_false(ok)
  return (message:gsub("^%S+_spec%.lua:%d+: ", ""):gsub(dir .. "/", ""))
end

describe("a separator", function()
  local fields = { "a", "b" }

  it("may have several characters", function()
    local o = { separator = "::", columns = { "y", "a", "b" } }
    cells(schema(fields, o), fields, "1::u::v\n0::x:y::z\n0::p:::q\n",
      { { "u", "v" }, { "x:y", "z" }, { "p", ":q" } })
    cells(schema(fields, o), fields, '1::"u::v"::"w""x"\n', { { "u::v", 'w"x' } })
    cells(schema(fields, o), fields, '1::"u\nx"::"w"\n', { { "u\nx", "w" } })
    cells(schema(fields, { separator = " | " }), fields, "y | a | b\n1 | u v | w\n", { { "u v", "w" } })
    assert.equal('data.csv:1: expected 3 cells, one for each column of schema "s", found 4',
      problem(read, schema(fields, o), "1::u::v::w\n"))
  end)

  it("may be a run of blanks", function()
    for _, separator in ipairs { "blanks", " +", "%s+", "\\s+" } do
      local s = schema(fields, { separator = separator, columns = { "y", "a", "b" } })
      cells(s, fields, "1 u v\n  0   u\t \tv  \n\n   \n1\tu v\r\n1 \"p q\"   r\n",
        { { "u", "v" }, { "u", "v" }, { "u", "v" }, { "p q", "r" } })
    end
    cells(schema(fields, { separator = "blanks" }), fields, "y  a b\n1 u  v\n", { { "u", "v" } })
  end)

  it("may be a control character, as Hive's, of a pipe that stays open, too", function()
    cells(schema(fields, { separator = "\1", columns = { "y", "a", "b" } }), fields, "1\1u\1v\n", { { "u", "v" } })
    file("hive.lua", [[
      local mr = require "moonrock"
      local s = mr.schema { label = "y", separator = "\1", columns = { "y", "a" }, fields = { mr.category "a" } }
      for batch in s:batches("-", { max_wait = 0 }) do
        print(batch.n)
        io.flush()
      end]])
    local status, out, errors = shell.run(("cd %s && mkfifo go && exec 9<>go && (printf '1\\001u\\n'; read x <&9; "
      .. "printf '0\\001v\\n') | %s hive.lua | while read line; do echo $line; echo >&9; done")
      :format(shell.quote(dir), shell.quote(PROGRAM)))
    assert.same({ 0, "1\n1\n", "" }, { status, out, errors })
  end)

  it("is refused where it cannot be one", function()
    for _, separator in ipairs { "", "a\nb", '"', ("x"):rep(17) } do
      assert.truthy(problem(schema, fields, { separator = separator }):find 'schema "s": separator')
    end
    assert.truthy(problem(schema, fields, { separator = 5 }):find('schema "s": separator is 5', 1, true))
  end)
end)

describe("quotes", function()
  local fields = { "a", "b" }

  it("may be escaped by a backslash", function()
    local s = schema(fields, { separator = ";", escape = "\\" })
    cells(s, fields, 'y;a;b\n1;"say \\"hi\\"; all";"x"\n0;"line\nend\\"";"c:\\\\dir\\new"\n',
      { { 'say "hi"; all', "x" }, { 'line\nend"', "c:\\dir\\new" } })
    cells(s, fields, 'y;a;b\n1;"c:\\\\";"v"\n0;c:\\\\;"\\\\\\\\"\n', { { "c:\\", "v" }, { "c:\\", "\\\\" } })
    cells(s, fields, 'y;a;b\n1;u; a\\;b\n0;"p""q";\\"r\n', { { "u", "a;b" }, { 'p"q', '"r' } })
    assert.equal('data.csv:2: expected the separator after a closing quote, found "x\\"";v"; if \\" stands for a '
      .. 'quote, say so in the schema: escape = "\\\\"',
      problem(read, schema(fields, { separator = ";" }), 'y;a;b\n1;"\\"x\\"";v\n'))
  end)

  it("are text with quote = false", function()
    cells(schema(fields, { quote = false }), fields, 'y,a,b\n1,"u,v"\n', { { '"u', 'v"' } })
    assert.truthy(problem(schema, fields, { escape = "ab" }):find('schema "s": escape is "ab"', 1, true))
  end)
end)

describe("decimals", function()
  it("may have a comma", function()
    local number = mr.numeric("n", { scale = "none" })
    local s = schema({ number }, { separator = ";", decimal = ",",
      label = "y", weight = "w", task = "regression" })
    local list = read(s, 'y;n;w\n1,5;12,50;0,25\n-2;-3e1;1\n0;"0,5";2\n')
    assert.same({ 1.5, 0.25, 12.5 }, { list[1].label, list[1].weight, list[1].values[1] })
    assert.same({ -2, 1, -30 }, { list[2].label, list[2].weight, list[2].values[1] })
    assert.equal(0.5, list[3].values[1])
    for _, text in ipairs { "1.5", "1,2,3", "1.234,5", ("1"):rep(70) } do
      assert.truthy(problem(read, s, "y;n;w\n1;" .. text .. ";1\n"):find('column "n": expected a number, found "',
        1, true))
    end
    assert.truthy(problem(schema, { "a" }, { decimal = ";" }):find('schema "s": decimal is ";"', 1, true))
  end)

  it("that are none are named, with their file and line, when a schema is fitted", function()
    local text = "y;n\n1;12,50\n0;3\n"
    local function numbers() return schema({ mr.numeric "n", mr.bucket "n" }, { separator = ";" }) end
    local s = numbers()
    assert.equal('data.csv:2: column "n": expected a number, found "12,50"',
      problem(s.fit, s, { files = file("data.csv", text) }))
    s:fit { files = file("data.csv", text), bad_lines = "skip" }
    assert.is_true(s:fitted())
    s = numbers()
    assert.equal('schema "s": field "n": no numbers to fit: 2 bad lines; the first: data.csv:2: column "n": '
      .. 'expected a number, found "12,50"', problem(s.fit, s, { files = file("data.csv", "y;n\n1;12,50\n0;x\n"),
        bad_lines = "skip" }))
    assert.equal('schema "s": field "n": no numbers to fit: every cell is missing',
      problem(s.fit, s, { files = file("data.csv", "y;n\n1;\n") }))
    for _, none in ipairs { "y;n\n", "\n\n" } do
      assert.equal("data.csv: holds no samples", problem(s.fit, s, { files = file("data.csv", none) }))
    end
    local status, _, errors = shell.run(("cd %s && printf '39, State-gov, 7, x\\n' > c.csv && %s train lr --schema "
      .. "census --data c.csv --store c"):format(shell.quote(dir), shell.quote(PROGRAM)))
    assert.equal(1, status)
    assert.truthy(errors:find('c.csv:1: expected 15 cells, one for each column of schema "census", found 4', 1, true),
      errors)
  end)
end)

describe("a header", function()
  local fields = { "user", "item" }

  it("finds the schema's columns by its names, in any order and among others", function()
    local s = schema(fields, { header = true, columns = { "user", "item", "y" } })
    for _, text in ipairs { "user,item,y\nu,v,1\n", "item,user,y\nv,u,1\n", "z,y,item,x,user\n0,1,v,9,u\n" } do
      cells(s, fields, text, { { "u", "v" } })
    end
    cells(s, fields, { file("a.csv", "user,item,y\nu,v,1\n"), file("b.csv", "y,item,user\n1,v,u\n") },
      { { "u", "v" }, { "u", "v" } })
    assert.equal('data.csv:1: schema "s": no column "item"; the file\'s columns are: user, thing, y',
      problem(read, s, "user,thing,y\nu,v,1\n"))
    assert.equal('data.csv:3: schema "s": no column "y"; the file\'s columns are: u, v, 1',
      problem(read, s, "\n\nu,v,1\n"))
  end)

  it("is passed, and columns are those of the schema by place, when it says skip", function()
    local s = schema(fields, { header = "skip", columns = { "user", "item", "y" } })
    cells(s, fields, "UserID,MovieID,Rating\nu,v,1\n", { { "u", "v" } })
    assert.truthy(problem(schema, fields, { header = "skip" }):find("columns are needed", 1, true))
    assert.truthy(problem(schema, fields, { header = "yes" }):find('header is "yes", expected true, false or "skip"',
      1, true))
  end)

  it("with a name twice is an error if the schema uses that name", function()
    local text = "y,user,item,x,x\n1,u,v,1,2\n"
    cells(schema(fields), fields, text, { { "u", "v" } })
    for name, head in pairs { y = "y,user,item,y", user = "user,user,item,y", w = "w,user,item,w,y" } do
      local s = schema(fields, { weight = name == "w" and "w" or nil })
      assert.equal(('data.csv:1: two columns are called "%s"'):format(name), problem(read, s, head .. "\n1,u,v,0,1\n"))
    end
  end)
end)

describe("what a schema does not say yet", function()
  it("is told where the data shows it: a word for none, texts for labels, a separator", function()
    local s = schema({ mr.numeric("n", { scale = "none" }) }, {})
    local function told(text) return problem(read, s, text) end
    for _, word in ipairs { "NA", "n/a", "NULL", "nan", "?" } do
      assert.equal(('data.csv:2: column "n": expected a number, found "%s"; if that stands for none, say so in the '
        .. 'schema: missing = { "", "%s" }'):format(word, word), told("y,n\n1," .. word .. "\n"))
    end
    assert.equal('data.csv:2: column "n": expected a number, found "x"', told "y,n\n1,x\n")
    assert.truthy(told("y,n\nyes,1\n"):find('label = { "y", positive = { "yes" } }', 1, true))
    assert.truthy(told("y;n\n1;2\n"):find('(say what separates them: separator = ";"); the file\'s columns', 1, true))
    assert.truthy(told("y\tn\n1\t2\n"):find('separator = "\\t"', 1, true))
  end)
end)

describe("labels", function()
  it("may be named by numbers, which stand for their values, and by texts, which stand for themselves", function()
    local function labels(positive, negative, text)
      local list = {}
      for i, x in ipairs(read(schema({ "a" }, { label = { "y", positive = positive, negative = negative } }),
        "a,y\n" .. text)) do list[i] = x.label end
      return list
    end
    assert.same({ 1, 0, 1, 1, 0 }, labels({ 1 }, { 0 }, "u,1\nu,0\nu,1.0\nu,01\nu,0e5\n"))
    assert.same({ 1, 0, 1 }, labels({ 1, "yes" }, nil, "u,1\nu,2\nu,yes\n"))
    assert.same({ 1, 0 }, labels({ "1" }, nil, "u,1\nu,1.0\n"))
    assert.same({ 1, 0 }, labels(4, { 1, 2 }, "u,4\nu,2\n"))
    assert.equal('data.csv:2: column "y": expected a label the schema names, found "3"',
      problem(labels, { 4 }, { 1 }, "u,3\n"))
  end)

  it("and other lists that are wrong are named with file, line, schema and option", function()
    for option, text in pairs {
      ["label: positive: expected texts, as { \"1\" }, got true in place 2"] = "label = { 'y', positive = { 1, true } }",
      ["label: negative: expected texts, as { \"1\" }, got a table in place 1"] = "label = { 'y', negative = { {} } }",
      ["label: expected a column's name first, got 3"] = "label = { 3 }",
      ["missing: expected texts, as { \"1\" }, got false in place 1"] = "missing = { false }",
      ["columns: expected texts, as { \"1\" }, got a function in place 1"] = "columns = { print }",
      ['column "a" is named twice'] = "columns = { 'a', 'a' }",
      ["separator is 3, expected a text"] = "separator = 3",
    } do
      local path = file("wrong.lua", ('local mr = require "moonrock"\n\nreturn mr.schema { name = "cat", %s,\n'
        .. '  fields = { mr.category "a" } }\n'):format(text))
      local message = problem(mr.schema_of, path)
      assert.truthy(message:find('^wrong%.lua:[34]: schema "cat": '), message)
      assert.truthy(message:find(option, 1, true), message)
    end
  end)

  it("may have numbers among the texts that stand for a missing cell", function()
    local s = schema({ "a" }, { missing = { -1, "?" } })
    local list = read(s, "y,a\n1,-1\n1,?\n1,\n")
    assert.equal(list[1].keys[1], list[2].keys[1])
    assert.not_equal(list[1].keys[1], list[3].keys[1])
  end)
end)

describe("weights", function()
  local function weighted(columns) return schema({ "c" }, { weight = "w", columns = columns }) end
  local unlabelled = { labels = false }

  it("are not needed where labels are not: the column may be missing, empty or no number", function()
    for _, text in ipairs { "c\nu\n", "c,w\nu,\n", "w,c\nx,u\n", "c,y,w\nu,,-1\n" } do
      local list = read(weighted(), text, unlabelled)
      assert.equal(hash("u", "c"), list[1].keys[1])
      assert.is_nil(list[1].weight)
    end
    local places = { "c", "y", "w" }
    assert.equal(hash("u", "c"), read(weighted(places), "u\n", unlabelled)[1].keys[1])
    assert.equal('data.csv: has 2 cells for the schema\'s 3 columns, and it cannot be told whether the label "y" is '
      .. 'missing or the weight "w": leave both out, or give a header', problem(read, weighted(places), "u,1\n",
      unlabelled))
  end)

  it("are needed where they count", function()
    assert.equal('data.csv:1: schema "s": weight: no column "w"; the file\'s columns are: c, y',
      problem(read, weighted(), "c,y\nu,1\n"))
    assert.equal('data.csv:2: column "w": expected a sample weight of at least 0, found ""',
      problem(read, weighted(), "c,y,w\nu,1,\n"))
    local s = schema({ "c", "w" }, { weight = "w" })
    assert.truthy(problem(read, s, "c\nu\n", unlabelled):find('no column "w"', 1, true)) -- a field, too
    assert.truthy(problem(read, schema { "c", "y" }, "c\nu\n", unlabelled):find('no column "y"', 1, true))
  end)

  it("do not change what predict says", function()
    file("w.lua", 'local mr = require "moonrock" return mr.schema { name = "w", label = "y", weight = "w", '
      .. 'fields = { mr.category "c" } }')
    file("train.csv", "c,y,w\nu,1,2\nv,0,1\n")
    file("new.csv", "c\nu\nv\n")
    local status, out, errors = shell.run(("cd %s && M=%s && $M train lr --schema ./w.lua --data train.csv --store w "
      .. "--epochs 3 >/dev/null && $M predict --store w --data train.csv > full && $M predict --store w --data new.csv "
      .. "| cmp - full && wc -l < full && $M eval --store w --data new.csv"):format(shell.quote(dir),
        shell.quote(PROGRAM)))
    assert.equal("2\n", out, errors)
    assert.equal(1, status)
    assert.truthy(errors:find('new.csv:1: schema "w": no column "y"', 1, true), errors)
  end)
end)

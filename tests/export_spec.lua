-- Export and import as a user meets them: formats, filters, and what is refused.
local ffi = require "ffi"
ffi.cdef "unsigned long long strtoull(const char *text, char **end, int base);"
local json = require "dkjson"
local mr = require "moonrock"
local shell = require "tests.support.shell"

local moonrock, run, quote, read, write = shell.moonrock, shell.run, shell.quote, shell.read, shell.write
local dir = shell.directory()

local function good(...)
  local status, out, errors = moonrock(...)
  assert.equal(0, status, errors)
  return out
end

-- Fails with status 1 and one line that holds a text.
local function refused(text, ...)
  local status, _, errors = moonrock(...)
  assert.equal(1, status, errors)
  assert.truthy(errors:find(text, 1, true), errors)
  assert.equal(1, select(2, errors:gsub("\n", "")))
end

local MODEL = write(dir .. "/pair.lua", [[
local mr = require "moonrock"
return mr.model("pair", function(m)
  local a = m:table("a.rows", { w = { dim = 1 },
    v = { dim = 3, init = mr.init.normal(0.1), optim = mr.optim.adam { lr = 0.01 } } })
  local b = m:table("b", { u = { dim = 2, init = mr.init.normal(0.5), optim = mr.optim.sgd { lr = 0.1 } } })
  local bias = m:param("bias", { 1 })
  local square = m:param("square", { 2, 1 }, { init = mr.init.normal(0.1) })
  return function(x)
    local r = a(x)
    return bias + r.w:sum() + mr.fm(r.v) + b(x).u:sum():matmul(square)
  end
end, { optim = mr.optim.adagrad { lr = 0.1, init = 0.25 } })
]])

local function data(name, from, to)
  local lines = {}
  for i = from, to do
    lines[#lines + 1] = ("%d 0:1 18446744073709551615:0.5 %d:1 %d:1"):format(i % 2, 1000 + i % 97,
      100000 + i * i % 1009)
  end
  return write(dir .. "/" .. name, table.concat(lines, "\n") .. "\n")
end

local DATA = data("data.svm", 1, 400)

local function train(store, epochs, more)
  good("train", MODEL, "--store", store, "--data", DATA, "--format", "libsvm", "--epochs", tostring(epochs),
    "--batch", "20", "--commit-every", "7", unpack(more or {}))
end

local function info(store) return json.decode(good("info", "--store", store, "--json")) end

local function copy(store, name)
  run(("rm -rf %s && cp -R %s %s"):format(dir .. "/" .. name, store, dir .. "/" .. name))
  return dir .. "/" .. name
end

local ONE, TWO = dir .. "/one", dir .. "/two" -- after one epoch, and the same run after two

setup(function()
  train(ONE, 1)
  copy(ONE, "two")
  train(TWO, 2)
end)

-- Lines of a tsv export without their steps.
local function without_steps(path)
  local lines = {}
  for line in io.lines(path) do lines[#lines + 1] = line:gsub("^([^\t]*\t[^\t]*)\t[^\t]*", "%1", 1) end
  return table.concat(lines, "\n")
end

-- An .npy file: its type, shape as text, and bytes.
local function npy(path)
  local text = read(path)
  assert.equal("\147NUMPY\1\0", text:sub(1, 8))
  local len = text:byte(9) + 256 * text:byte(10)
  assert.equal(0, (10 + len) % 64)
  local head = text:sub(11, 10 + len)
  assert.equal("\n", head:sub(-1))
  local kind, shape = head:match("^{'descr': '(.-)', 'fortran_order': False, 'shape': %((.-)%), } *\n$")
  assert.truthy(kind, head)
  return kind, shape, text:sub(11 + len)
end

describe("a binary export", function()
  it("makes the store again: digest, evaluation, predictions, and the rest of the run", function()
    local file, store = dir .. "/one.bin", dir .. "/again"
    local told = json.decode(good("export", "--store", ONE, "--out", file, "--json"))
    assert.equal(20, told.step)
    assert.equal(info(ONE).table_rows, told.rows)
    good("import", "--store", store, file)
    assert.equal(info(ONE).digest, info(store).digest)
    for _, command in ipairs { "eval", "predict" } do
      local words = { command, "--data", DATA, "--store" }
      local function result(of)
        words[5] = of
        return (good(unpack(words)):gsub("%d+%.%d+ s", ""))
      end
      assert.equal(result(ONE), result(store))
    end
    good("verify", "--store", store)
    train(store, 2)
    assert.equal(info(TWO).digest, info(store).digest)
  end)

  it("and a delta give what a full export of the later store gives", function()
    local store = dir .. "/followed"
    good("export", "--store", ONE, "--out", dir .. "/base.bin")
    good("export", "--store", TWO, "--out", dir .. "/delta.bin", "--since", "20")
    good("export", "--store", TWO, "--out", dir .. "/full.bin")
    good("import", "--store", store, dir .. "/base.bin", dir .. "/delta.bin")
    assert.equal(info(TWO).digest, info(store).digest)
    good("export", "--store", store, "--out", dir .. "/same.bin")
    assert.is_true(read(dir .. "/full.bin") == read(dir .. "/same.bin"))
    refused("a delta since step 40 is expected", "import", "--store", store, dir .. "/delta.bin")
    refused("makes a new store", "import", "--store", store, dir .. "/base.bin")
  end)

  it("and a delta follow a model whose tables, columns and params became others", function()
    local store, followed = copy(ONE, "changed"), dir .. "/changed-copy"
    good("export", "--store", store, "--out", dir .. "/base.bin")
    write(dir .. "/other.lua", (read(MODEL):gsub("\n[^\n]*local b = [^\n]*", ""):gsub("[^\n]*square = [^\n]*\n", "")
      :gsub(" %+ b%(x%)[^\n]*", ""):gsub("w = { dim = 1 }", "w = { dim = 1 }, z = { dim = 2 }")
      :gsub("r%.w:sum%(%)", "r.w:sum() + mr.fm(r.z)")))
    good("train", dir .. "/other.lua", "--store", store, "--data", DATA, "--format", "libsvm", "--epochs", "2",
      "--batch", "20", "--allow-drop")
    good("export", "--store", store, "--out", dir .. "/delta.bin", "--since", "20")
    good("import", "--store", followed, dir .. "/base.bin", dir .. "/delta.bin")
    assert.equal(info(store).digest, info(followed).digest)
    for _, of in ipairs { store, followed } do
      good("export", "--store", of, "--out", of .. ".bin")
      good("verify", "--store", of)
    end
    assert.is_true(read(store .. ".bin") == read(followed .. ".bin"))
    good("export", "--store", followed, "--out", dir .. "/changed.tsv")
    good("import", "--store", followed, dir .. "/changed.tsv")
    good("verify", "--store", followed)
  end)

  it("goes to standard output, and is the same while another process writes", function()
    local Store = require "moonrock.store"
    local writer = Store.open(ONE, "write")
    local status, out, errors = run(("%s export --store %s --out -"):format(quote(shell.program), ONE))
    writer:close()
    assert.equal(0, status, errors)
    good("export", "--store", ONE, "--out", dir .. "/file.bin")
    assert.is_true(read(dir .. "/file.bin") == out)
  end)

  it("of some rows is added to a store, and makes none", function()
    local file = dir .. "/part.bin"
    good("export", "--store", ONE, "--out", file, "--table", "b", "--min-count", "3")
    refused("does not exist", "import", "--store", dir .. "/none", file)
    local store = copy(TWO, "parted")
    good("import", "--store", store, file)
    for _, of in ipairs { ONE, store } do
      good("export", "--store", of, "--out", of .. ".tsv", "--table", "b", "--min-count", "3")
    end
    local rows = {}
    for line in without_steps(store .. ".tsv"):gmatch("[^\n]+") do rows[line] = true end
    for line in without_steps(ONE .. ".tsv"):gmatch("[^\n]+") do assert.is_true(rows[line], line) end
  end)
end)

describe("rows as text", function()
  it("come back to the bit, into a store that went on", function()
    local file, store = dir .. "/one.tsv", copy(ONE, "text")
    good("export", "--store", ONE, "--out", file)
    local text = read(file)
    assert.equal("table\tkey\tstep\tv.count\tv.0\tv.1\tv.2\tv.state.0\tv.state.1\tv.state.2\tv.state.3\tv.state.4\t"
      .. "v.state.5\tw.count\tw.0\tw.state.0\n", text:match("^[^\n]*\n"))
    assert.truthy(text:find("\na.rows\t0\t20\t20\t", 1, true))
    assert.truthy(text:find("\na.rows\t18446744073709551615\t20\t20\t", 1, true))
    train(store, 2)
    good("import", "--store", store, file)
    good("export", "--store", store, "--out", dir .. "/back.tsv")
    assert.not_equal(text, read(dir .. "/back.tsv"))
    assert.equal(without_steps(file), without_steps(dir .. "/back.tsv"))
    local first, back = mr.reopen(ONE), mr.reopen(store)
    for line in io.lines(file) do -- not only the text
      local name, key = line:match "^(%S+)\t(%d+)"
      if key then
        local i = name == "b" and 2 or 1
        key = ffi.C.strtoull(key, nil, 10)
        for _, column in ipairs { i == 2 and "u" or "v", i == 2 and "u" or "w" } do
          assert.same({ first.tables[i]:peek(key, column) }, { back.tables[i]:peek(key, column) })
        end
      end
    end
    first:close()
    back:close()
    good("verify", "--store", store)
  end)

  it("are of no later step than the store, whatever they say", function()
    local store = copy(ONE, "later")
    good("import", "--store", store, write(dir .. "/given.tsv",
      "table\tkey\tstep\tw.0\na.rows\t7\t1000000\t0.125\na.rows\t8\t3\t0.25\n"))
    good("verify", "--store", store)
    local text = good("export", "--store", store, "--out", "-", "--format", "tsv", "--table", "a.rows")
    assert.truthy(text:find(("\na.rows\t7\t%d\t"):format(info(store).step), 1, true))
    assert.truthy(text:find("\na.rows\t8\t3\t", 1, true))
  end)

  it("that lack state and count begin with fresh ones, and leave the row's other columns", function()
    local store = copy(ONE, "sparse")
    local file = write(dir .. "/given.tsv", "table\tkey\tw.0\na.rows\t7\t0.125\na.rows\t1001\t-2\n")
    local before = mr.reopen(ONE)
    good("import", "--store", store, file)
    local after = mr.reopen(store)
    local a, b = before.tables[1], after.tables[1]
    assert.same({ { 0.125 }, { 0.25 }, 1 }, { b:peek(7, "w") })
    assert.same({ { -2 }, { 0.25 }, 1 }, { b:peek(1001, "w") })
    assert.same({ a:peek(1001, "v") }, { b:peek(1001, "v") })
    assert.same({ a:peek(7, "v") }, { b:peek(7, "v") }) -- fresh
    assert.equal(a:rows() + 1, b:rows())
    before:close()
    after:close()
    good("verify", "--store", store)
    refused("not known any more", "export", "--store", store, "--out", dir .. "/x.bin", "--since", "20")
  end)

  it("go into a store that was not trained yet, which is then trained", function()
    local store = dir .. "/young"
    local young = mr.find(MODEL) { store = store, data = mr.data { format = "libsvm" } }
    young:commit()
    young:close()
    local file = write(dir .. "/given.tsv", "table\tkey\tw.0\na.rows\t7\t0.125\n")
    good("import", "--store", store, file)
    assert.same({ 1, 1 }, { info(store).step, info(store).table_rows })
    train(store, 1)
    assert.equal(21, info(store).step)
    good("verify", "--store", store)
  end)

  it("are chosen by table, count, age and step", function()
    local function lines(...)
      local _, n = good("export", "--store", TWO, "--out", "-", "--format", "tsv", ...):gsub("\n", "")
      return n
    end
    local all = info(TWO).table_rows
    assert.equal(all + 2, lines())
    assert.equal(info(TWO).tables[2].rows + 1, lines("--table", "b"))
    assert.equal(2 + 2 * 2, lines("--min-count", "40")) -- keys 0 and 2^64 - 1, in two tables
    assert.equal(all + 2, lines("--age", "40"))
    local recent = lines("--age", "1")
    assert.is_true(recent > 2 and recent < all)
    assert.equal(recent, lines("--since", "39"))
    assert.equal(all + 2, lines("--age", "30d"))
    refused("has no table \"c\"; it has a.rows, b", "export", "--store", TWO, "--out", "-", "--table", "c")
    refused("is of later ones", "export", "--store", TWO, "--out", dir .. "/x.bin", "--since", "41")
  end)

  local head = "table\tkey\tw.0\tstep\n"
  local bad = {
    { "a.rows\t1\t2\n", ":1: expected a line of names first" },
    { head .. "a.rows\t1\n", ":2: 2 cells, expected 4, as line 1 has" },
    { head .. "a.rows\t1\tx\t1\n", ':2: table a.rows, key 1: cell 3, "x", is no number' },
    { head .. "a.rows\t1\t1e99\t1\n", ":2: table a.rows: key 1: column w holds inf" },
    { head .. "a.rows\t1\tnan\t1\n", ":2: table a.rows: key 1: column w holds nan" },
    { head .. "a.rows\t-1\t1\t1\n", ':2: "-1" is no key' },
    { head .. "a.rows\t18446744073709551616\t1\t1\n", ':2: "18446744073709551616" is no key' },
    { head .. "a.rows\t1\t1\t-4\n", 'cell 4, "-4", is no number' },
    { head .. "a.rows\t2\t1\t1\na.rows\t1\t1\t1\n", ":3: table a.rows: key 1 comes after key 2" },
    { head .. "a.rows\t2\t1\t1\na.rows\t2\t1\t1\n", ":3: table a.rows: key 2 comes after key 2" },
    { head .. "a.rows\t2\t\t1\n", ":2: table a.rows: key 2 has no numbers" },
    { head .. "c\t2\t1\t1\n", ":2: table c: the model has none of this name" },
    { "\ntable\tkey\tz.0\na.rows\t2\t1\n", ":2: table a.rows has no column for the cells z.0" },
    { "table\tkey\tv.0\tv.1\na.rows\t2\t1\t1\n", ":1: table a.rows: column v has 2 numbers and 0 of state here, "
      .. "expected 3 and 6" },
    { "table\tkey\tv.0\tv.1\tv.2\tv.3\na.rows\t2\t1\t1\t1\t1\n", "no column for the cells v.3" },
    { head .. "a.rows\t2\t1\t1\ntable\tkey\tu.0\tu.1\nb\t1\t1\t1\n" .. head .. "a.rows\t3\t1\t1\n",
      ":6: table a.rows: its rows do not stand together" },
  }
  for i, case in ipairs(bad) do
    it(("are refused, and change nothing: %s"):format((case[2]:gsub("^:", "line "))), function()
      local file = write(dir .. "/bad.tsv", case[1])
      local before = info(ONE).digest
      refused(case[2], "import", "--store", ONE, file)
      local _, _, errors = moonrock("import", "--store", ONE, file)
      assert.truthy(errors:find(file, 1, true), i)
      assert.equal(before, info(ONE).digest)
    end)
  end
end)

it("a row that expired is a new one when it is imported", function()
  local store = dir .. "/expired"
  local old = write(dir .. "/old.svm", ("1 5:1 6:1\n0 6:1 7:1\n"):rep(5))
  local new = write(dir .. "/new.svm", ("1 15:1 16:1\n0 16:1 17:1\n"):rep(5))
  local function some(file) good("train", MODEL, "--store", store, "--data", file, "--format", "libsvm", "--epochs", "1",
    "--ttl", "1s") end
  some(old)
  run("sleep 1.2")
  some(new)
  some(write(dir .. "/newer.svm", ("1 15:1 16:1\n0 16:1 18:1\n"):rep(5))) -- the commit before is old enough
  local before = info(store).tables[1].rows
  good("import", "--store", store, write(dir .. "/given.tsv", "table\tkey\tw.0\na.rows\t5\t0.125\n"))
  local m = mr.reopen(store)
  local w, v = { m.tables[1]:peek(5, "w") }, { m.tables[1]:peek(5, "v") }
  m:close()
  assert.same({ { 0.125 }, 1, 0 }, { w[1], w[3], v[3] }) -- nothing of the one that expired
  good("verify", "--store", store)
  assert.equal(before + 1, info(store).tables[1].rows)
end)

it("a row without one of its columns comes back without it, by every format", function()
  local source = write(dir .. "/partly.lua", [[
    local mr = require "moonrock"
    return mr.model("partly", function(m)
      local t = m:table("t", { w = { dim = 1, init = mr.init.normal(0.1) },
        v = { dim = 3, init = mr.init.normal(0.1), optim = mr.optim.adam { lr = 0.01 } } })
      return function(x) -- the last batch, of one sample, trains w alone
        local r = t(x)
        return x.n == 1 and r.w:sum() or r.w:sum() + mr.fm(r.v)
      end
    end, { optim = mr.optim.adagrad { lr = 0.1 } })]])
  local lines = {}
  for i = 1, 41 do lines[i] = ("%d %d:1 %d:1"):format(i % 2, i % 5, i == 41 and 999 or 7) end
  local file = write(dir .. "/partly.svm", table.concat(lines, "\n") .. "\n")
  local store = dir .. "/partly"
  good("train", source, "--store", store, "--data", file, "--format", "libsvm", "--epochs", "1", "--batch", "20",
    "--shuffle", "off")
  local function row(path)
    local m = mr.reopen(path)
    local r = { w = { m.tables[1]:peek(999, "w") }, v = { m.tables[1]:peek(999, "v") } }
    m:close()
    return r
  end
  local expected = row(store)
  assert.equal(1, expected.w[3])
  assert.equal(0, expected.v[3])
  assert.truthy(good("export", "--store", store, "--out", "-", "--format", "tsv"):find("\nt\t999\t3\t0\t\t\t\t\t", 1, true))
  for _, format in ipairs { "tsv", "npy" } do
    local out, young = dir .. "/partly-out." .. format, dir .. "/partly-" .. format
    good("export", "--store", store, "--out", out, "--format", format)
    local m = mr.find(source) { store = young, data = mr.data { format = "libsvm" } }
    m:commit()
    m:close()
    good("import", "--store", young, out)
    assert.same(expected, row(young), format)
    good("verify", "--store", young)
  end
end)

describe("rows as NumPy arrays", function()
  local path = dir .. "/one.npy"

  it("are of the right types, shapes and bits", function()
    good("export", "--store", ONE, "--out", path)
    local model = mr.reopen(ONE)
    local n = model.tables[1]:rows()
    local kind, shape, bytes = npy(path .. "/a.rows.keys.npy")
    assert.same({ "<u8", n .. ",", 8 * n }, { kind, shape, #bytes })
    local keys = ffi.cast("const uint64_t *", bytes)
    assert.equal(0ULL, keys[0])
    assert.equal(18446744073709551615ULL, keys[n - 1])
    local kinds = { ["a.rows.steps"] = { "<u8", n .. ",", 8 }, ["a.rows.v"] = { "<f4", n .. ", 3", 12 },
      ["a.rows.v.state"] = { "<f4", n .. ", 2, 3", 24 }, ["a.rows.v.count"] = { "<u4", n .. ",", 4 } }
    for name, expected in pairs(kinds) do
      local is, dims, content = npy(path .. "/" .. name .. ".npy")
      assert.same(expected, { is, dims, #content / n })
    end
    assert.is_nil(read(path .. "/b.u.state.npy")) -- SGD has no state
    local _, _, weights = npy(path .. "/a.rows.v.npy")
    local _, _, states = npy(path .. "/a.rows.v.state.npy")
    local v, state = ffi.cast("const float *", weights), ffi.cast("const float *", states)
    for i = 0, n - 1 do
      local w, s = model.tables[1]:peek(keys[i], "v")
      for k = 0, 2 do assert.equal(w[k + 1], v[3 * i + k]) end
      for k = 0, 5 do assert.equal(s[k + 1], state[6 * i + k]) end
    end
    local is, dims, content = npy(path .. "/params/square.npy")
    assert.same({ "<f4", "2, 1" }, { is, dims })
    assert.equal(model.params[2]:weight(2), ffi.cast("const float *", content)[1])
    model:close()
  end)

  it("are what numpy.load reads", function()
    if run "python3 -c 'import numpy'" ~= 0 then pending("NumPy is not here") end
    local status, out, errors = run(("python3 -c \"import numpy; print(numpy.load('%s/a.rows.v.state.npy').shape)\"")
      :format(path))
    assert.equal(0, status, errors)
    assert.truthy(out:find(", 2, 3)", 1, true), out)
  end)

  it("come back into a store that went on", function()
    local store = copy(TWO, "arrays")
    good("import", "--store", store, path)
    good("export", "--store", store, "--out", dir .. "/back.tsv")
    good("export", "--store", ONE, "--out", dir .. "/one.tsv")
    local rows = {}
    for line in without_steps(dir .. "/back.tsv"):gmatch("[^\n]+") do rows[line] = true end
    for line in without_steps(dir .. "/one.tsv"):gmatch("[^\n]+") do assert.is_true(rows[line], line) end
    good("verify", "--store", store)
  end)

  it("are refused where they do not fit, by the name of the file", function()
    local function with(name, change, text)
      run(("rm -rf %s/bad.npy && cp -R %s %s/bad.npy"):format(dir, path, dir))
      local file = dir .. "/bad.npy/" .. name .. ".npy"
      write(file, change(read(file) or ""))
      local before = info(ONE).digest
      refused(text, "import", "--store", ONE, dir .. "/bad.npy")
      local _, _, errors = moonrock("import", "--store", ONE, dir .. "/bad.npy")
      assert.truthy(errors:find(name == "a.rows.keys" and dir or file, 1, true), errors)
      assert.equal(before, info(ONE).digest)
    end
    with("a.rows.v", function(t) return (t:gsub(", 3%), } ", ", 4), } ", 1)) end, "expected <f4 of")
    with("a.rows.v", function(t) return (t:gsub("<f4", "<f8", 1)) end, "is <f8")
    with("a.rows.v", function(t) return (t:gsub("False, ", "True,  ", 1)) end, "Fortran")
    with("a.rows.v", function(t) return t:sub(1, -2) end, "is not whole")
    with("a.rows.v", function(t) return t:sub(1, 60) end, "not as NumPy writes it")
    with("a.rows.v", function(t) return "x" .. t end, "does not begin")
    with("a.rows.z", function() return read(path .. "/a.rows.w.npy") end, "no table and column for it")
    with("a.rows.keys", function(t) return t:sub(1, 128) .. t:sub(137, 144) .. t:sub(129, 136) .. t:sub(145) end,
      "keys have to ascend")
  end)

  it("are not written over what is there", function()
    refused("is there already", "export", "--store", ONE, "--out", path)
  end)
end)

describe("an export", function()
  it("onto a full disk leaves no file, and says so", function()
    run("mkdir " .. dir .. "/full")
    for _, name in ipairs { "x.bin", "x.tsv", "x.npy" } do
      local status, _, errors = run(("ulimit -f 8; trap '' XFSZ; %s export --store %s --out %s/full/%s"):format(
        quote(shell.program), TWO, dir, name))
      assert.equal(1, status)
      assert.matches("could not be written: File too large", errors)
      assert.equal("", select(2, run("ls " .. dir .. "/full")))
    end
  end)

  it("is there from Lua", function()
    local model = mr.reopen(ONE)
    local told = model:export(dir .. "/lua.bin")
    assert.equal(model:info().table_rows, told.rows)
    model:close()
    mr.import(dir .. "/lua", dir .. "/lua.bin")
    assert.equal(info(ONE).digest, info(dir .. "/lua").digest)
  end)

  it("is not imported from what is none", function()
    refused("its name says nothing else", "import", "--store", ONE, DATA)
    refused("No such file", "import", "--store", ONE, dir .. "/absent.bin")
  end)
end)

describe("every optimizer's state", function()
  local zoo = write(dir .. "/zoo.lua", [[
local mr = require "moonrock"
local moving = { rmsprop = true, centered_rmsprop = true, sgd = true }
return mr.model("zoo", function(m)
  local columns, params = {}, {}
  local function add(name, o)
    columns[name] = { dim = 3, init = mr.init.normal(0.1), optim = o }
    params[#params + 1] = m:param("p." .. name, { 3, 1 }, { init = "xavier_normal", optim = o })
  end
  for _, rule in ipairs(mr.optim.rules) do
    add(rule, mr.optim[rule]())
    if moving[rule] then add(rule .. "_moving", mr.optim[rule] { momentum = 0.5 }) end
  end
  local row = m:table("t", columns)
  local names = {}
  for name in pairs(columns) do names[#names + 1] = name end
  table.sort(names)
  return function(x)
    local r, z = row(x), 0
    for i, name in ipairs(names) do z = z + r[name]:sum():matmul(params[i]) end
    return z
  end
end)
]])
  local store = dir .. "/zoo"

  it("is exported, imported and verified: bin, tsv and npy", function()
    good("train", zoo, "--store", store, "--data", DATA, "--format", "libsvm", "--batch", "20")
    good("verify", "--store", store)
    good("export", "--store", store, "--out", dir .. "/zoo.bin")
    good("import", "--store", store .. "2", dir .. "/zoo.bin")
    assert.equal(info(store).digest, info(store .. "2").digest)
    good("export", "--store", store, "--out", dir .. "/zoo.tsv")
    good("export", "--store", store, "--out", dir .. "/zoo.npy")
    local n = info(store).table_rows
    for name, shape in pairs { row_adagrad = "1", amsgrad = "3, 3", lion = "1, 3", sgd_moving = "1, 3",
      rmsprop = "1, 3", rmsprop_moving = "2, 3", centered_rmsprop_moving = "3, 3" } do
      local _, dims = npy(("%s/zoo.npy/t.%s.state.npy"):format(dir, name))
      assert.equal(n .. ", " .. shape, dims)
    end
    for _, file in ipairs { "/zoo.tsv", "/zoo.npy" } do
      local other = copy(store, "other")
      good("train", zoo, "--store", other, "--data", DATA, "--format", "libsvm", "--batch", "20", "--epochs", "2")
      good("import", "--store", other, dir .. file)
      good("export", "--store", other, "--out", dir .. "/other.tsv")
      assert.equal(without_steps(dir .. "/zoo.tsv"), without_steps(dir .. "/other.tsv"))
      good("verify", "--store", other)
    end
  end)

  it("goes on to the bit in the next run", function()
    local whole = dir .. "/whole"
    local function go(at, epochs)
      good("train", zoo, "--store", at, "--data", DATA, "--format", "libsvm", "--batch", "20", "--epochs", epochs)
    end
    go(whole, "2")
    go(store, "2")
    assert.equal(info(whole).digest, info(store).digest)
  end)
end)

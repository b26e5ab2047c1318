-- The box that a store's code runs in, from within: its limits, which are lowered here, and what is found and signed.
local json = require "dkjson"
local mr = require "moonrock"
local raises = require "tests.support.raises"
local sandbox = require "moonrock.sandbox"
local shell = require "tests.support.shell"
local Store = require "moonrock.store"
local stored = require "moonrock.stored"
local trust = require "moonrock.trust"

local dir = shell.directory()
local data = shell.write(dir .. "/a.svm", "1 1:1\n0 2:1\n")

-- Runs code in a new box, with limits of what it builds.
local function run(code, limits)
  local build, kept = sandbox.limits.build, {}
  for name, value in pairs(limits or {}) do kept[name], build[name] = build[name], value end
  local ok, result = pcall(function() return sandbox.new("box", false):run(code, "code") end)
  for name, value in pairs(kept) do build[name] = value end
  assert.is_nil((debug.gethook()))
  assert.equal(string, getmetatable("").__index)
  return ok, result
end

local function fails(text, code, limits)
  local ok, problem = run(code, limits)
  assert.is_false(ok)
  assert.truthy(tostring(problem):find(text, 1, true), problem)
end

describe("code in a box", function()
  it("may take so many steps, whatever it catches", function()
    assert.same({ true, 7 }, { run("local x = 0 for i = 1, 1e5 do x = x + 1 end return 7", { steps = 3e6 }) })
    for _, code in ipairs { "while true do end", "while true do pcall(function() while true do end end) end",
      "local function f() return f() end f()", "for i = 1, 1e9 do local x = ('x'):rep(1e5) end",
      "for i = 1, 1e9 do local x = ('x'):rep(1e5):upper() end" } do
      fails("took more than 3000000 steps", code, { steps = 3e6, seconds = 60 })
    end
  end)

  it("may take so many seconds, and so much memory", function()
    fails("seconds", "while true do end", { steps = 1e15, seconds = 0.05 })
    fails("MB of Lua's memory", "local t = {} for i = 1, 1e9 do t[i] = { i } end", { steps = 1e15, bytes = 4e6 })
  end)

  it("makes no string at once that fills memory", function()
    fails("a store's code makes up to", "return ('x'):rep(1.7e7)")
    fails("a store's code makes up to", "return (('x'):rep(1e4):gsub('x', ('y'):rep(1e4)))")
    fails("comparisons", "return ('a'):rep(3000):find('.-.-.-.-.-b')")
    assert.same({ true, 1000 }, { run("return #('x'):rep(1000)") })
  end)

  it("has no library of the host, under any name", function()
    for _, name in ipairs { "io", "os", "ffi", "jit", "package", "debug", "coroutine", "load", "loadstring", "loadfile",
      "dofile", "require", "setfenv", "getfenv", "newproxy", "collectgarbage", "print", "module", "gcinfo" } do
      assert.same({ true }, { run("return " .. name) })
    end
    local ok, seen = run("local t = {} for name in pairs(_G) do t[#t + 1] = name end table.sort(t) return table.concat(t, ' ')")
    assert.is_true(ok)
    assert.equal("_G _VERSION assert bit error getmetatable ipairs math next pairs pcall rawequal rawget rawset select "
      .. "setmetatable string table tonumber tostring type unpack xpcall", seen)
  end)

  it("is not byte code, and its errors are plain text", function()
    fails("is byte code", string.dump(function() return 1 end))
    fails("?[2J", "error('\27[2J', 0)")
    fails("raised a table", "error({})")
  end)
end)

describe("what passes between a box and the host", function()
  local ffi = require "ffi"

  it("is no pointer, and a copy of a plain table", function()
    local box = sandbox.new("box", false)
    for _, value in ipairs { ffi.new "int[1]", io.stdout, coroutine.create(function() end), 1ULL } do
      raises("is nothing for a store's code", box.out, box, value)
    end
    local list = { 1, { 2 } }
    local there = box:out(list)
    assert.same(list, there)
    assert.is_true(there ~= list and there[2] ~= list[2])
    local theirs = box:run("return setmetatable({ 1, { 2 } }, { __index = function() error 'ESCAPED' end })", "code")
    local here = box:into(theirs)
    assert.is_true(here ~= theirs and here[2] ~= rawget(theirs, 2))
    assert.is_nil(getmetatable(here))
    assert.same(list, here)
  end)

  it("does not nest without end, and holds no keys that are more than names", function()
    local box = sandbox.new("box", false)
    raises("nested too deeply", box.into, box, box:run("local t = {} t.t = t return t", "code"))
    raises("a key is no text or number", box.into, box, box:run("return { [{}] = 1 }", "code"))
    raises("a function is not expected here", box.into, box, box:run("return { f = function() end }", "code"))
  end)

  it("are objects that the box can neither change nor look into", function()
    local Thing = {}
    Thing.__index = Thing
    function Thing:double() return 2 * self.secret end
    local box = sandbox.new("box", false)
    box:class(Thing, { methods = { "double" }, fields = { "name" } })
    local thing = setmetatable({ secret = 21, name = "n" }, Thing)
    local f = box:run("return function(t) return t:double(), t.name, t.secret, getmetatable(t), next(t) end", "code")
    assert.same({ 42, "n" }, { box:into(f)(thing) })
    raises("read only", box:into(box:run("return function(t) t.name = 'x' end", "code")), thing)
    assert.equal(thing, box:into(box:run("return function(t) return t end", "code"))(thing))
  end)
end)

describe("a store's model", function()
  local plain = "local mr = require 'moonrock' return mr.model('m', function(m) %s local row = m:table('t', "
    .. "{ w = { dim = 1 } }) return function(x) return row(x).w:sum() end end)"
  local function make(code, modules)
    return stored.definition({ name = "m", source = plain:format(code), modules = modules }, "DIR", false) {
      data = mr.data { files = data, format = "libsvm" } }
  end

  it("finds shipped models and what the store keeps, and no file or module of the host", function()
    local file = shell.write(dir .. "/there.lua", "return require 'moonrock'.model('there', function() end)")
    raises("finds shipped models and the store's modules", make, ("mr.find(%q)"):format(file))
    raises("may not require", make, "require 'moonrock.store'")
    raises("may not require", make, "require 'ffi'")
    make "mr.find 'fm'"
    make("assert(require 'mine' == 5)", { mine = "return 5" })
    make(("mr.find(%q)"):format(file), { [file] = "return require 'moonrock'.model('there', function() end)" })
  end)

  it("declares no more than the process may use", function()
    raises("of memory at least", make, "m:param('p', { 1000000, 1000000 })")
  end)
end)

describe("whose code it is", function()
  it("goes by all of it: the model, modules with their names, a schema that is run", function()
    local base = { source = "a", modules = { x = "1", y = "2" }, schema = { source = "s" } }
    local function hash(change)
      local kept = json.decode(json.encode(base))
      change(kept)
      return trust.hash(kept)
    end
    local first = hash(function() end)
    assert.equal(first, hash(function(k) k.options = { dim = 3 } end))
    for _, change in ipairs { function(k) k.source = "b" end, function(k) k.modules.x = "3" end, function(k) k.modules.z = "" end,
      function(k) k.modules = { x = "2", y = "1" } end, function(k) k.modules = { xx = "1", y = "2" } end,
      function(k) k.modules.y = nil end, function(k) k.schema.source = "t" end, function(k) k.schema = nil end } do
      assert.not_equal(first, hash(change))
    end
    assert.equal(hash(function(k) k.schema.compiled = {} end), hash(function(k)
      k.schema.compiled, k.schema.source = {}, "t" -- which is not run
    end))
  end)

  it("is still one's own when it was edited and trained on", function()
    local file, store = dir .. "/mine.lua", dir .. "/mine"
    local text = "local mr = require 'moonrock' return mr.model('mine', function(m) local row = m:table('t', "
      .. "{ w = { dim = 1 } }) return function(x) return row(x).w:sum() end end)\n"
    for i, more in ipairs { "", "-- edited\n" } do
      shell.write(file, text .. more)
      local status, _, problem = shell.moonrock("train", file, "--data", data, "--store", store, "--epochs", tostring(i))
      assert.equal(0, status, problem)
      status, _, problem = shell.moonrock("eval", "--store", store, "--data", data)
      assert.equal(0, status, problem)
    end
  end)

  it("is asked of a schema's code, too, where that would be run", function()
    local csv = shell.write(dir .. "/a.csv", "y,c\n1,a\n0,b\n")
    local schema = shell.write(dir .. "/s.lua", "local mr = require 'moonrock' return mr.schema { name = 's', label = 'y', "
      .. "fields = { mr.category 'c' } }")
    local path = dir .. "/schema"
    local status, _, problem = shell.moonrock("train", "lr", "--schema", schema, "--data", csv, "--store", path)
    assert.equal(0, status, problem)
    local store = Store.open(path, "write")
    local kept = json.decode(store:get "model")
    kept.schema.compiled, kept.schema.source = nil, "error 'ESCAPED'"
    local step = store:info().commit.step
    store:begin()
    store:put("model", Store.encode(kept))
    store:finish(step)
    store:close()
    raises("is not run", mr.reopen, path)
  end)
end)

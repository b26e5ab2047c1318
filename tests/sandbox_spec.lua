-- Code of a stranger's store, opened with `trust = true`: it runs in its box, and gets out in none of these
-- ways; each ends as an error or does nothing, compiled or not. An attempt raises ESCAPED where it got what
-- it was after, or leaves a file PWNED.
local json = require "dkjson"
local mr = require "moonrock"
local shell = require "tests.support.shell"
local Store = require "moonrock.store"

local dir = shell.directory()
local quote = shell.quote

local function program()
  if shell.program:find "^/" then return shell.program end
  local pipe = io.popen "pwd"
  local here = pipe:read "*l"
  pipe:close()
  return here .. "/" .. shell.program
end

local HEAD = [[
local mr = require "moonrock"
local function plain(m)
  local row = m:table("features", { w = { dim = 1 } })
  local bias = m:param("bias", { 1 })
  return function(x) return bias + row(x).w:sum() end
end
local function escaped(what) if what then error("ESCAPED", 0) end end
]]

-- Where: "file" runs while the file is loaded, "build" in the model's function (m, opt), "batch" in its
-- function of a batch (m, opt, x, y: its scores).
local ATTEMPTS = {
  { "os", "file", "os.execute('touch PWNED')" },
  { "io", "file", "io.open('PWNED', 'w'):write('x')" },
  { "ffi by require", "file", "escaped(require 'ffi')" },
  { "jit, debug, package, coroutine by name", "file", "escaped(jit or debug or package or coroutine or newproxy)" },
  { "load and its kin", "file", "escaped(load or loadstring or loadfile or dofile or setfenv or getfenv)" },
  { "collectgarbage and print", "file", "escaped(collectgarbage or gcinfo or print or module)" },
  { "a host module by require", "file", "escaped(require 'moonrock.store')" },
  { "the library's insides by require", "file", "escaped(require 'moonrock.ffi')" },
  { "a module that traverses paths", "file", "escaped(require '../../etc/passwd')" },
  { "a module of no text", "file", "escaped(require(setmetatable({}, { __tostring = function() return 'os' end })))" },
  { "mr.find of a file", "build", "escaped(mr.find('x.lua'))" },
  { "mr.find of a shipped name with a path", "build", "escaped(mr.find('../x'))" },
  { "mr.schema_of", "build", "escaped(mr.schema_of) mr.schema_of 'x.lua'" },
  { "mr.export", "build", "mr.export(m.directory, 'PWNED', { format = 'tsv' })" },
  { "mr.import", "build", "escaped(mr.import)" },
  { "another model with a store", "build", "mr.model('other', plain) { store = 'PWNED' }" },
  { "mr.data", "build", "mr.data { files = '/etc/passwd', format = 'libsvm' }:batches(nil, {})" },
  { "mr.reopen", "build", "escaped(mr.reopen or mr.fit or mr.evaluate or mr.predict or mr.learn or mr.search)" },
  { "mr.gradcheck", "build", "escaped(mr.gradcheck)" },
  { "the model's store", "build", "escaped(m.store or m.directory or m.data or m.schema or m.definition)" },
  { "the model's methods", "build", "escaped(m.commit or m.checkpoint or m.restore or m.batches or m.info)" },
  { "the model's metatable", "build", "escaped(getmetatable(m))" },
  { "a write into the model", "build", "m.param = function() end escaped(true)" },
  { "rawset of the model", "build", "rawset(m, 'store', 1) escaped(next(m) ~= 'store')" },
  { "another metatable for the model", "build", "setmetatable(m, { __index = {} }) escaped(true)" },
  { "the param's C object", "build", "local p = m:param('p', { 1 }) escaped(p.c or p.tape or p.lift or p.load)" },
  { "the table's C object", "build", "local t = m:table('t', { w = { dim = 1 } }) escaped(t.c or t.relieve or t.free)" },
  { "the param's metatable", "build", "escaped(getmetatable(m:param('p', { 1 })))" },
  { "the batch's C object", "batch", "escaped(x.c or x.schema or x.by_field or getmetatable(x))" },
  { "the label's batch", "batch", "escaped(x.label.batch or x.label.name)" },
  { "the tensor's tape", "batch", "escaped(y.tape or y.id or y.generation or y.c)" },
  { "the tensor's pointer", "batch", "escaped(y.data) y:data()" },
  { "backward from inside", "batch", "escaped(y.backward) y:backward()" },
  { "a forged tensor", "batch", "escaped(mr.relu({ tape = { c = 1 }, id = 1e9, generation = 1 }))" },
  { "a forged label", "batch", "escaped(mr.bce(y, { batch = { c = 1 }, name = 'label' }))" },
  { "a forged thing that lifts itself", "batch", "escaped(mr.relu({ lift = function() return 1e9 end }))" },
  { "keys of a field far away", "batch", "escaped(mr.tensor({ 1 }, { 1 }) + x:keys(1e9))" },
  { "a tensor without end", "batch", "local t = y:reshape(-1, 1) * y:reshape(1, -1) for _ = 1, 9 do "
    .. "t = t:reshape(-1, 1) * t:reshape(1, -1) end escaped(true)" },
  { "strings' metatable", "file", "local s = getmetatable('') escaped(s) s.__index = function() end" },
  { "string.dump by a method", "file", "escaped(('').dump or string.dump)" },
  { "the host's string methods", "file", "function string.format() error('changed') end string.sub = nil" },
  { "the host's table functions", "build", "table.concat, table.sort = nil, nil math.floor = nil "
    .. "string.gsub = nil pairs, ipairs, next = nil, nil, nil" },
  { "globals", "file", "_G.pairs = function() error('ESCAPED') end _G.type = nil _G.require = nil" },
  { "a string that fills memory", "file", "local s = ('x'):rep(1e9) escaped(#s == 1e9)" },
  { "a string that doubles", "file", "local s = 'xxxxxxxx' while true do s = s .. s end" },
  { "a string of replacements", "file", "local s = ('x'):rep(1e6):gsub('x', ('y'):rep(1e6)) escaped(s)" },
  { "tables that fill memory", "file", "local t = {} for i = 1, 1e9 do t[i] = { i } end" },
  { "memory in a loop of pcall", "file", "local t = {} while true do pcall(function() for i = 1, 1e7 do "
    .. "t[#t + 1] = { i } end end) end" },
  { "an endless loop", "file", "while true do end" },
  { "an endless goto", "file", "::again:: goto again" },
  { "an endless loop in the build", "build", "local i = 0 repeat i = i + 1 until i < 0" },
  { "an endless loop in a batch", "batch", "while true do end" },
  { "a loop that swallows the limit's error", "file", "while true do pcall(function() while true do end end) end" },
  { "the same by xpcall", "file", "while true do xpcall(function() while true do end end, function() end) end" },
  { "an error handler without end", "file", "xpcall(error, function() while true do end end)" },
  { "recursion without end", "file", "local function f() return 1 + f() end f()" },
  { "recursion through pcall", "file", "local function f() return pcall(f) end f() local function g() g() end g()" },
  { "recursion through gsub", "file", "local function f() return (('x'):gsub('x', f)) end f()" },
  { "recursion through sort", "file", "local function f() table.sort({ 1, 2, 3 }, f) return true end f()" },
  { "a pattern that backtracks for ever", "file", "local s = ('a'):rep(60) "
    .. "s:find(('a?'):rep(60) .. s) escaped(true)" },
  { "a pattern of many stars", "file", "escaped(('a'):rep(3000):find('.-.-.-.-.-b') == nil)" },
  { "string.find replaced, then a slow pattern", "file", "string.sub = function() return '' end "
    .. "string.find = function() return 1, 1 end escaped(('a'):rep(3000):match('.-.-.-.-.-b') == nil)" },
  { "a comparator without order", "file", "local t = {} for i = 1, 1000 do t[i] = i end "
    .. "table.sort(t, function() return true end)" },
  { "a comparator without end", "file", "table.sort({ 1, 2, 3 }, function() while true do end end)" },
  { "an error that is made to be shown", "file", "error(setmetatable({}, { __tostring = function() "
    .. "while true do end end, __index = function() while true do end end }))" },
  { "an error with terminal escapes", "file", "error('\\27[2J\\27]0;ESCAPED\\7', 0)" },
  { "%s of what shows itself", "file", "local t = setmetatable({}, { __tostring = function() return {} end }) "
    .. "escaped(('%s'):format(t):find '0x')" },
  { "addresses by tostring", "file", "escaped(tostring({}):find '0x' or tostring(plain):find '0x' "
    .. "or tostring(mr.model):find 'builtin')" },
  { "addresses by %p", "file", "escaped(('%p'):format({}))" },
  { "addresses by %s", "file", "escaped(('%s %s'):format({}, plain):find '0x')" },
  { "math.random", "file", "escaped(math.random())" },
  { "unpack of very much", "file", "escaped(select('#', unpack({}, 1, 1e8)))" },
  { "a param without end", "build", "m:param('p', { 1e6, 1e6 }) escaped(true)" },
  { "a layer without end", "build", "mr.linear(m, 'l', 1e6, 1e6) escaped(true)" },
  { "tables without end", "build", "for i = 1, 1e6 do m:table('t' .. i, { w = { dim = 65535 } }) end" },
  { "names of params that traverse", "build", "m:param('../../PWNED', { 1 })" },
  { "an operation that writes outside", "batch", "mr.operation { name = 'o', forward = function(out) out[-1] = 1 "
    .. "out[1e9] = 1 escaped(true) end } (y)" },
  { "an operation that keeps its array", "batch", "local kept mr.operation { name = 'o', forward = function(out, a, n) "
    .. "kept = out for i = 0, n - 1 do out[i] = 0 end end } (y) escaped(kept[0])" },
  { "the members of an array", "batch", "mr.operation { name = 'o', forward = function(out) "
    .. "escaped(out.pointer or out.count) end } (y)" },
  { "an operation without end", "batch", "mr.operation { name = 'o', forward = function() while true do end end } (y)" },
  { "an element function with host symbols", "build", "mr.operation { name = 'e', element = function(a) "
    .. "escaped(a.step or getmetatable(a)) return a end }" },
  { "a quantile without end", "build", "mr.init.quantile(function() while true do end end)" },
  { "an optimizer with a forged kind", "build", "m:param('p', { 1 }, { optim = { rule = 'adam', kind = 99, "
    .. "update = function() end } }) escaped(true)" },
  { "an initializer with forged values", "build", "m:param('p', { 1 }, { init = { kind = 4, a = 1, b = 2 } }) "
    .. "error('fine', 0)" },
  { "options that nest without end", "build", "local t = {} t.t = t m:param('p', { 1 }, t) escaped(true)" },
  { "a model's name with escapes", "file", "return mr.model('\\27[2J', plain)" },
  { "a layer over a model made by hand", "build", "mr.linear({ param = function() return { c = 1 } end }, 'l', 1, 1)"
    .. "(mr.tensor({ 1, 1 }, { 1 }))" },
  { "no scores", "batch", "return nil" },
  { "scores that are something else", "batch", "return { tape = 1 }" },
}

local base, data
local function make_base()
  data = shell.write(dir .. "/a.svm", "1 1:1 2:1\n0 2:1 3:1\n")
  local file = shell.write(dir .. "/base.lua", HEAD .. 'return mr.model("evil", plain)\n')
  base = dir .. "/base"
  local model = mr.find(file) { store = base, data = mr.data { files = data, format = "libsvm" } }
  model:commit()
  model:close()
end

-- A copy of the base whose record of the model is changed.
local function store_of(change)
  local path = dir .. "/store"
  shell.run(("rm -rf %s && cp -r %s %s"):format(quote(path), quote(base), quote(path)))
  local store = Store.open(path, "write")
  local kept = json.decode(store:get "model")
  change(kept)
  local step = store:info().commit.step
  store:begin()
  store:put("model", Store.encode(kept))
  store:finish(step)
  store:close()
  return path
end

local function source_of(attempt)
  local where, code = attempt[2], attempt[3]
  local file = where == "file" and code .. "\n" or ""
  if file:find "^return" then return HEAD .. file end
  return ([[%s%s
return mr.model("evil", function(m, opt)
  %s
  local score = plain(m)
  return function(x)
    local y = score(x)
    %s
    return y
  end
end)
]]):format(HEAD, file ~= "" and "do " .. file .. " end" or "", where == "build" and "do " .. code .. " end" or "",
    where == "batch" and "do " .. code .. " end" or "")
end

-- Opens a store and scores its data, compiled or not, in a process and a directory of its own.
local function run(path, how, trust)
  local script = shell.write(dir .. "/score.lua", [[
local mode, path, data, trust = ...
if mode == "off" then jit.off() end
local mr = require "moonrock"
local strings, host = getmetatable("").__index, string.format
local ok, problem = pcall(function()
  local model = mr.reopen(path, { trust = trust == "trust", memory = "2GB" })
  for batch in mr.data { files = data, format = "libsvm" }:batches(nil, {}) do model(batch):value() end
end)
assert(getmetatable("").__index == strings and string.format == host, "ESCAPED: strings")
assert(debug.gethook() == nil, "ESCAPED: the hook stays")
io.write(ok and "scored" or tostring(problem))
]])
  local there = dir .. "/there"
  shell.run("rm -rf " .. quote(there) .. " && mkdir " .. quote(there))
  local status, out, errors = shell.run(("cd %s && timeout -s KILL 240 %s %s %s %s %s %s"):format(quote(there),
    quote(program()), quote(script), how, quote(path), quote(data), trust or ""))
  local left = io.popen("ls " .. quote(there)):read "*a"
  return status, out .. errors, left
end

describe("code of a store", function()
  setup(make_base)

  for _, how in ipairs { "on", "off" } do
    for _, attempt in ipairs(ATTEMPTS) do
      it(("does not get out by %s, the compiler %s"):format(attempt[1], how), function()
        local path = store_of(function(kept) kept.source = source_of(attempt) end)
        local status, out, left = run(path, how, "trust")
        assert.equal(0, status, out)
        assert.equal("", left)
        assert.is_nil(out:find("ESCAPED", 1, true) and not out:find("?]0;ESCAPED?", 1, true) or nil, out)
        assert.is_nil(out:find "\27", out)
      end)
    end
  end

  it("is not run at all without trust", function()
    local path = store_of(function(kept) kept.source = HEAD .. "error 'ESCAPED'" end)
    local status, out = run(path, "on")
    assert.equal(0, status)
    assert.truthy(out:find("its code is not known to be yours, and is not run", 1, true), out)
    assert.truthy(out:find("moonrock trust " .. path, 1, true), out)
  end)

  for name, change in pairs {
    ["byte code"] = function(kept) kept.source = "\27LJ\2\10" end,
    ["byte code behind a mark"] = function(kept) kept.source = "\239\187\191\27LJ\2\10" end,
    ["very long"] = function(kept) kept.source = ("--" .. ("x"):rep(98) .. "\n"):rep(2e4) end,
    ["nested very deeply"] = function(kept) kept.source = ("("):rep(1e5) end,
    ["with zero bytes"] = function(kept) kept.source = "return \0" end,
    ["a number"] = function(kept) kept.source = 7 end,
    ["byte code in a module"] = function(kept)
      kept.source, kept.modules = "require 'x'", { x = "\27LJ\2\10" }
    end,
    ["options of the runtime"] = function(kept)
      kept.source, kept.options = kept.source .. " ", { store = "PWNED", read_only = false, follow = true,
        memory = "1KB", clock = 7, threads = 1e9 }
    end,
    ["shipped, of another's file"] = function(kept)
      local file = io.open "models/ensemble.lua"
      kept.source, kept.module, kept.name = file:read "*a", "models.ensemble", "ensemble"
      file:close()
      shell.write(dir .. "/there.lua", "os.execute('touch PWNED')")
      kept.options = { of = dir .. "/there.lua" }
    end,
  } do
    it("that is " .. name .. " is an error or nothing", function()
      local status, out, left = run(store_of(change), "on", "trust")
      assert.equal(0, status, out)
      assert.equal("", left)
      assert.is_nil(out:find("ESCAPED", 1, true), out)
    end)
  end
end)

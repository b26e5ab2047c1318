-- The program from outside: scripts, commands, exit statuses, and what it says.
local shell = require "tests.support.shell"

local moonrock, run, quote = shell.moonrock, shell.run, shell.quote
local dir = shell.directory()
local sanitized = shell.program:find("san", 1, true)

local function script(name, text) return shell.write(dir .. "/" .. name, text) end

local function here()
  local pipe = io.popen("pwd")
  local path = pipe:read("*l")
  pipe:close()
  return path
end

local program = shell.program:find("^/") and shell.program or here() .. "/" .. shell.program

describe("a script", function()
  it("sees its arguments in arg and in ..., as under luajit", function()
    local path = script("args.lua", "print(arg[0], arg[1], arg[2], #arg, ...)")
    local status, out = moonrock(path, "a", "b c")
    assert.equal(0, status)
    assert.equal(("%s\ta\tb c\t2\ta\tb c\n"):format(path), out)
  end)

  it("finds the program in a negative index of arg", function()
    local _, out = moonrock(script("arg.lua", "print(arg[-1])"))
    assert.equal(shell.program .. "\n", out)
  end)

  it("ends with the status that it gives os.exit", function()
    assert.equal(7, (moonrock(script("exit.lua", "os.exit(7)"))))
    assert.equal(0, (moonrock(script("exit.lua", "os.exit(true)"))))
    assert.equal(1, (moonrock(script("exit.lua", "os.exit(false)"))))
  end)

  it("that fails ends with status 1 and a traceback with the user's file and lines", function()
    local path = script("fails.lua", "local function inner()\n  error 'on purpose'\nend\nlocal x = inner()\nreturn x")
    local status, out, err = moonrock(path)
    assert.equal(1, status)
    assert.equal("", out)
    assert.truthy(err:find(path .. ":2: on purpose", 1, true), err)
    assert.truthy(err:find("stack traceback:", 1, true), err)
    assert.truthy(err:find(path .. ":4: in main chunk", 1, true), err)
  end)

  it("that does not parse, or is not there, ends with status 1 and one line", function()
    local path = script("syntax.lua", "local = 3")
    local status, _, err = moonrock(path)
    assert.equal(1, status)
    assert.truthy(err:find(path .. ":1:", 1, true), err)
    local absent, _, problem = moonrock(dir .. "/absent.lua")
    assert.equal(1, absent)
    assert.truthy(problem:find("absent.lua", 1, true), problem)
    assert.equal(1, select(2, problem:gsub("\n", "")))
  end)

  it("is read from standard input for - and without arguments", function()
    local status, out = run(("echo 'print(1 + 1, ...)' | %s - x"):format(quote(shell.program)))
    assert.same({ 0, "2\tx\n" }, { status, out })
    status, out = run(("echo 'print(2 + 2)' | %s"):format(quote(shell.program)))
    assert.same({ 0, "4\n" }, { status, out })
  end)

  it("is given on the command line by -e", function()
    local status, out = moonrock("-e", "print(6 * 7, ...)", "x")
    assert.same({ 0, "42\tx\n" }, { status, out })
  end)

  it("requires the library from any directory", function()
    local status, out, err = run(("cd / && %s -e 'print(type(require \"moonrock\".model))'")
      :format(quote(program)))
    assert.same({ 0, "function\n", "" }, { status, out, err })
  end)

  it("requires modules of the directory it is run in", function()
    script("neighbour.lua", "return { answer = 42 }")
    local status, out = run(("cd %s && %s -e 'print(require \"neighbour\".answer)'")
      :format(quote(dir), quote(program)))
    assert.same({ 0, "42\n" }, { status, out })
  end)

  it("that raises an interruption ends with 128 + the signal's number and no traceback", function()
    local status, _, err = moonrock(script("int.lua", "error({ interrupted = 15 }, 0)"))
    assert.equal(143, status)
    assert.equal("", err)
  end)

  it("that makes a mistake in a call is told its own line", function()
    local path = script("mistake.lua",
      "local mr = require 'moonrock'\n\nmr.optim.adam { learning_rate = 1 }\n")
    local status, _, err = moonrock(path)
    assert.equal(1, status)
    assert.truthy(err:find(path .. ":3: ", 1, true), err)
  end)
end)

describe("the library", function()
  it("comes from the checkout that MOONROCK_LUA names", function()
    local copy = dir .. "/copy"
    run(("mkdir %s && cp -R lua models datasets %s"):format(quote(copy), quote(copy)))
    shell.write(copy .. "/lua/moonrock/marked.lua", "return 'from the checkout'")
    local status, out, err = run(("MOONROCK_LUA=%s %s -e 'print(require \"moonrock.marked\")'")
      :format(quote(copy), quote(shell.program)))
    assert.same({ 0, "from the checkout\n", "" }, { status, out, err })
    assert.not_equal(0, (moonrock("-e", "require 'moonrock.marked'")))
  end)

  it("tells file and line of its frames as moonrock/NAME.lua", function()
    local _, _, err = moonrock("-e", "require('moonrock').optim.adam { learning_rate = 1 }")
    assert.truthy(err:find("moonrock/optim.lua:%d+:"), err)
  end)

  it("works in a stock luajit through libmoonrock.so", function()
    if sanitized then pending("luajit is not linked to the sanitizers") end
    local path = script("stock.lua",
      "local mr = require 'moonrock'\nprint(mr.version, require('moonrock.ffi').mr_clock() > 0)")
    local status, out, err = run("LUA_PATH='./lua/?.lua;./lua/?/init.lua;;' luajit " .. quote(path))
    assert.equal("", err)
    assert.equal(0, status)
    assert.truthy(out:find("^%d+%.%d+%.%d+\ttrue\n$"), out)
  end)

  it("refuses a C half of another version", function()
    local copy = dir .. "/old"
    run(("mkdir %s && cp -R lua models datasets %s"):format(quote(copy), quote(copy)))
    local path = copy .. "/lua/moonrock/ffi.lua"
    local text = shell.read(path)
    shell.write(path, (text:gsub('VERSION = "[^"]+"', 'VERSION = "0.0.9"')))
    local status, _, err = run(("MOONROCK_LUA=%s %s -e 'require \"moonrock\"'")
      :format(quote(copy), quote(shell.program)))
    assert.equal(1, status)
    assert.truthy(err:find("the Lua library is version 0.0.9, the C library", 1, true), err)
  end)
end)

describe("wrong usage", function()
  -- words, what the line says
  local cases = {
    { { "trian" }, 'command "trian" is unknown; did you mean train?' },
    { { "frobnicate" }, 'command "frobnicate" is unknown; moonrock --help lists the commands' },
    { { "--versoin" }, 'option "--versoin" is unknown' },
    { { "train" }, "missing" },
    { { "train", "fm", "--stor", "x" }, "unknown option '--stor'; did you mean --store?" },
    { { "train", "fm", "--store", "x", "--epoch", "2" }, "unknown option '--epoch'; did you mean --epochs?" },
    { { "train", "fm", "--store" }, "--store" },
    { { "train", "fm", "--store", "x", "--epochs", "none" }, "--epochs: 'none' is no whole number from 1" },
    { { "train", "fm", "--store", "x", "--epochs", "-1" }, "--epochs: '-1' is no whole number from 1" },
    { { "train", "fm", "--store", "x", "--lr", "0" }, "--lr: '0' is no number above 0" },
    { { "train", "fm", "--store", "x", "--memory", "lots" }, "--memory: 'lots' is no size such as" },
    { { "train", "fm", "--store", "x", "--set", "dim" }, "--set: 'dim' is no NAME=VALUE" },
    { { "train", "fm", "--store", "x", "--optim", "adams" }, "did you mean adam?" },
    { { "train", "fm", "--store", "x", "--format", "libsvn" }, "did you mean libsvm?" },
    { { "train", "fmm", "--store", "x" }, 'model "fmm" is unknown; did you mean fm?' },
    { { "train", "fm", "--schema", "cencus", "--store", "x" }, 'schema "cencus" is unknown; did you mean census?' },
    { { "train", "fm", "--store", "x" }, "--data FILE is missing" },
    { { "train", "fm", "--store", "x", "--data", "d", "--valid", "1.5" }, "--valid 1.5: expected a file or a fraction" },
    { { "train", "fm", "--store", "x", "--data", "-", "--epochs", "2" }, "standard input (-) can be read only once" },
    { { "train", "fm", "--store", "x", "--data", "-", "--shuffle", "full" }, "standard input (-) can be read only once" },
    { { "train", "fm", "--store", "x", "--loss", "hubert" }, "did you mean huber?" },
    { { "eval" }, "--store" },
    { { "eval", "--store", "x", "--metrics", "auc,gaucc" }, "did you mean gauc?" },
    { { "predict", "--store", "x", "--outt", "y" }, "did you mean --out?" },
    { { "learn", "fm", "--store", "x" }, "--source" },
    { { "learn", "fm", "--store", "x", "--source", "-", "--follow" }, "--follow is for files" },
    { { "info", "--store", "x", "y" }, "too many arguments" },
    { { "shrink", "--store", "x" }, "--max-rows, --forget is missing" },
    { { "shrink", "--store", "x", "--max-rows", "5", "--by", "nrom" }, "did you mean norm?" },
    { { "shrink", "--store", "x", "--min-score", "1" }, "a score needs --half-life STEPS" },
    { { "checkpoint", "--store", "x" }, "--out" },
  }
  for _, case in ipairs(cases) do
    it(("`moonrock %s` is one line that says so, with status 2"):format(table.concat(case[1], " ")), function()
      local status, out, err = moonrock(unpack(case[1]))
      assert.equal("", out)
      assert.truthy(err:find(case[2], 1, true), err)
      assert.equal(2, status)
      assert.truthy(err:find("^moonrock: [^\n]+\n$"), err)
      assert.is_nil(io.open("x"))
    end)
  end
end)

describe("moonrock eval", function()
  local data = dir .. "/groups.csv"
  local rows = { "user,country,label" }
  for i = 1, 400 do
    rows[#rows + 1] = ("u%d,%s,%d"):format(i % 20, i % 3 == 0 and "DE" or "US", (i % 7 + i % 3) % 2)
  end
  shell.write(data, table.concat(rows, "\n") .. "\n")
  local schema = script("groups.lua", [[
    local mr = require "moonrock"
    return mr.schema { name = "groups", label = "label",
      fields = { mr.category "user", mr.category "country" } }]])

  it("measures by group and by slice, and shows what it is asked to", function()
    local store = dir .. "/groups"
    local status, _, err = moonrock("train", "lr", "--schema", schema, "--data", data, "--store", store)
    assert.equal(0, status, err)
    local out
    status, out, err = moonrock("eval", "--store", store, "--data", data, "--json", "--metrics", "gauc,mrr",
      "--group", "user", "--slice", "country=DE", "--k", "3")
    assert.equal(0, status, err)
    local test = require("dkjson").decode(out).test
    local names = {}
    for name in pairs(test) do names[#names + 1] = name end
    table.sort(names)
    assert.same({ "auc", "gauc", "groups", "k", "logloss", "mrr", "rows", "slices" }, names)
    assert.same({ 400, 20, 3 }, { test.rows, test.groups, test.k })
    assert.same({ 267, 133 }, { test.slices[1].rows, test.slices[2].rows })
    assert.equal("DE", test.slices[2].value)
    assert.is_nil(test.slices[1].value)
    status, out = moonrock("eval", "--store", store, "--data", data, "--group", "1", "--slice", "country=DE")
    assert.equal(0, status)
    assert.truthy(out:find("auc 0%.%d+ .*gauc 0%.%d+.*\n  %x+ +267 rows .*\n  DE +133 rows "), out)
    status, _, err = moonrock("eval", "--store", store, "--data", data, "--group", "usr")
    assert.equal(1, status)
    assert.truthy(err:find('schema groups has no field "usr", only user, country', 1, true), err)
  end)

  it("takes ratings where the loss does, and predicts counts from their logarithm", function()
    local counts = shell.write(dir .. "/counts.libfm", ("3 1:1\n4 1:1\n"):rep(500))
    local store = dir .. "/counts"
    local status, _, err = moonrock("train", "lr", "--data", counts, "--format", "libfm", "--loss", "poisson",
      "--optim", "sgd", "--lr", "0.05", "--batch", "4", "--shuffle", "off", "--store", store)
    assert.equal(0, status, err)
    local out
    status, out, err = moonrock("predict", "--store", store, "--data", counts)
    assert.equal(0, status, err)
    assert.truthy(math.abs(tonumber(out:match("^%S+")) - 3.5) < 0.2, out:sub(1, 20))
  end)
end)

describe("a failure", function()
  local data = script("some.svm", "1 3:1\n0 4:1\n")

  local function fails(expected, ...)
    local status, out, err = moonrock(...)
    assert.equal("", out)
    assert.truthy(err:find(expected, 1, true), err)
    assert.truthy(err:find("^moonrock: [^\n]+\n$"), err)
    assert.equal(1, status)
  end

  it("of a missing model file is one line with status 1", function()
    fails("absent.lua", "train", dir .. "/absent.lua", "--store", dir .. "/s1", "--data", data)
  end)

  it("of a missing data file names it, and makes no store", function()
    fails(dir .. "/absent.svm", "train", "fm", "--store", dir .. "/s0", "--data", dir .. "/absent.svm")
    assert.is_nil(io.open(dir .. "/s0"))
  end)

  it("of a store that is not there is one line with status 1", function()
    fails(dir .. "/nothing", "info", "--store", dir .. "/nothing")
    fails(dir .. "/nothing", "eval", "--store", dir .. "/nothing", "--data", data)
    assert.is_nil(io.open(dir .. "/nothing"))
  end)

  it("of a misspelt option of the model is wrong usage, with the nearest right one", function()
    local status, _, err = moonrock("train", "fm", "--store", dir .. "/s4", "--data", data, "--set", "dmi=3")
    assert.equal(2, status)
    assert.equal("moonrock: --set dmi=3: model fm has no such option; did you mean dim?\n", err)
  end)

  it("of a model that does not parse names its file and line", function()
    local path = script("broken.lua", "local mr = require 'moonrock'\nreturn mr.model(")
    fails("broken.lua:2:", "train", path, "--store", dir .. "/s2", "--data", data, "--format", "libsvm")
  end)

  it("inside a model names its file and line", function()
    local path = script("raises.lua", [[
local mr = require "moonrock"
return mr.model("raises", function(m)
  local row = m:table("features", { w = { dim = 1, init = "zeros" } })
  return function(x)
    local r = row(x)
    return r.w:sum() + nothing
  end
end)
]])
    fails("raises.lua:6:", "train", path, "--store", dir .. "/s3", "--data", data, "--format", "libsvm")
  end)
end)

describe("help", function()
  it("lists the commands", function()
    local status, out = moonrock("--help")
    assert.equal(0, status)
    for _, command in ipairs { "train", "eval", "predict", "learn", "info", "verify", "export", "import",
      "shrink", "checkpoint" } do
      assert.truthy(out:find("\n  " .. command .. " ", 1, true), command)
    end
  end)

  for _, command in ipairs { "train", "eval", "predict", "learn", "info", "verify", "export", "import",
      "shrink", "checkpoint" } do
    it("of " .. command .. " goes to standard output with status 0", function()
      local status, out, err = moonrock(command, "--help")
      assert.equal(0, status)
      assert.equal("", err)
      assert.truthy(out:find("--store DIR", 1, true), out)
    end)
  end

  it("fits a terminal of 80 columns, of every command", function()
    local commands = { "" }
    for name in pairs(require("moonrock.cli").commands) do commands[#commands + 1] = name .. " " end
    assert.is_true(#commands > 10)
    for _, command in ipairs(commands) do
      local status, out = run(("%s %s--help"):format(quote(shell.program), command))
      assert.equal(0, status, command)
      for line in out:gmatch "[^\n]+" do
        assert(#line <= 80, ("%s--help: %d columns: %s"):format(command, #line, line))
      end
    end
  end)

  it("of --version is a number", function()
    local status, out = moonrock("--version")
    assert.equal(0, status)
    assert.truthy(out:find("^moonrock %d+%.%d+%.%d+ "), out)
  end)
end)

describe("moonrock info", function()
  it("shows dates, whole numbers and the store's own sizes, in 80 columns", function()
    local store = dir .. "/shown"
    assert.equal(0, (moonrock("train", "deepfm", "--schema", "census", "--store", store, "--patience", "1", "--valid",
      "0.1", "--epochs", "1", "--seed", "1000000000000000")))
    local status, out = moonrock("info", "--store", store)
    assert.equal(0, status)
    assert.truthy(out:find("\nseed +1000000000000000\n"), out)
    assert.truthy(out:find("time +" .. os.date "%Y" .. "%-%d%d%-%d%d %d%d:%d%d:%d%d\n"), out)
    assert.truthy(out:find("\nsize +[%d ]+ bytes in [%d ]+ files; the directory takes [%d ]+ bytes"), out)
    assert.truthy(out:find("\nkept\n +best +step %d+, " .. os.date "%Y"), out)
    assert.is_nil(out:find("memory", 1, true))
    assert.is_nil(out:find("%de%+"))
    for line in out:gmatch "[^\n]+" do assert(#line <= 80, line) end
    local told = require("dkjson").decode((select(2, moonrock("info", "--store", store, "--json"))))
    assert.is_true(told.files > 0 and told.bytes > 0 and told.disk >= told.bytes)
    assert.equal("best", told.kept[1].name)
    assert.is_truthy(told.memory.limit)
  end)
end)

describe("the prompt", function()
  local function type_in(lines)
    local command = quote(shell.program)
    return run(("printf '%%s\\n' %s | script -qec %s /dev/null"):format(lines, quote(command)))
  end

  it("evaluates expressions and chunks of several lines, and goes on after an error", function()
    if run("script -qec true /dev/null") ~= 0 then pending("script(1), or a pseudo-terminal, is not here") end
    local status, out = type_in [['=6*7' 'for i = 1, 2 do' 'print("line", i)' 'end' 'error "oops"' '1 + 1' 'os.exit(3)']]
    assert.truthy(out:find("42", 1, true), out)
    assert.truthy(out:find("line\t2", 1, true), out)
    assert.truthy(out:find("oops", 1, true), out)
    assert.equal(3, status)
  end)
end)

describe("a signal", function()
  -- Sends a signal to a command a second after its store is there; returns the status and what the store then holds.
  local function signal(name, store, command)
    local status = run(("%s >/dev/null 2>&1 & pid=$!; for i in $(seq 200); do [ -e %s/COMMIT ] && break; "
      .. "sleep 0.1; done; sleep 1; kill -%s $pid; wait $pid"):format(command, store, name))
    local _, out = moonrock("info", "--store", store, "--json")
    return status, tonumber(out:match('"step":(%d+)'))
  end

  local loop = script("loop.lua", [[
local mr = require "moonrock"
local model = require "models.lr" { schema = require "datasets.census", store = arg[1] }
for batch in model:batches("train", { epochs = 1000000, size = 256 }) do
  mr.bce(model(batch), batch.label):backward()
  model:step()
end
]])

  it("ends a script's training loop after the batch, with a commit and 130 or 143", function()
    local status, step = signal("INT", dir .. "/int", ("%s %s %s"):format(shell.program, loop, dir .. "/int"))
    assert.equal(130, status)
    assert.is_true(step > 0)
    status, step = signal("TERM", dir .. "/term", ("%s %s %s"):format(shell.program, loop, dir .. "/term"))
    assert.equal(143, status)
    assert.is_true(step > 0)
  end)

  it("ends train and learn in the same way", function()
    local store = dir .. "/train"
    local status, step = signal("TERM", store,
      ("%s train lr --schema census --epochs 1000000 --store %s"):format(shell.program, store))
    assert.equal(143, status)
    assert.is_true(step > 0)
    store = dir .. "/learn"
    status, step = signal("INT", store, ("sh -c 'while :; do echo 1 3:1; done' | exec %s learn lr --source - "
      .. "--format libsvm --store %s"):format(shell.program, store))
    assert.equal(130, status)
    assert.is_true(step > 0)
  end)

  it("wakes a stream that waits for input", function()
    local began = os.time()
    local pipe = dir .. "/pipe"
    local status = run(("mkfifo %s; sleep 20 >%s & feed=$!; %s learn lr --source - --format libsvm --store %s "
      .. "<%s & pid=$!; sleep 1; kill -TERM $pid; wait $pid; status=$?; kill $feed; exit $status"):format(pipe, pipe,
      shell.program, dir .. "/blocked", pipe))
    assert.equal(143, status)
    assert.is_true(os.time() - began < 15)
  end)
end)

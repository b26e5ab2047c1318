-- Puts one error at a time into a copy of the project and runs the tests that should notice it:
-- `make mutants`, or `./moonrock tests/mutants/run.lua [--sample N] [--seed S] [--jobs J] [NAME...]`.
--
-- The files beside this one list the errors, one file a room:
--   { "what a user would see", find = "text of the code", replace = "text in its place", tests = "op trainer" }
-- `find` stands exactly once in the sources, wherever they are; `tests` names specs (op: tests/op_spec.lua) and
-- C tests (table_test), or, as in "pieces: a linear layer; store_test: damage", those of them whose names hold
-- a text (of C tests: those of the functions).
-- NAME: only errors whose text or file holds it.
--
-- First each test runs without an error: one that fails then says nothing. An error is noticed when a test
-- fails, or takes so much longer that it is stopped. One that does not build, or whose text is not in the
-- sources once, is not noticed: it is out of date.
local shell = require "tests.support.shell"

local SOURCES = "runtime lua models datasets"
local MEMORY = 8000000 -- kB of data for a test: an error may ask for all there is
local LEAST, MOST = 60, 900 -- seconds that a test may take, and ten times what it takes without an error

local quote, read, write = shell.quote, shell.read, shell.write

local function lines(command)
  local list, pipe = {}, io.popen(command)
  for line in pipe:lines() do list[#list + 1] = line end
  pipe:close()
  return list
end

-- ---- the list ---------------------------------------------------------------------------------------

local function sources(dir)
  local list = {}
  local find = "cd %s && find %s -name '*.[ch]' -o -name '*.lua'"
  for _, path in ipairs(lines(find:format(quote(dir), SOURCES))) do
    list[#list + 1] = { path = path, text = read(dir .. "/" .. path) }
  end
  return list
end

-- The one source that holds a text, once.
local function place(list, mutant)
  local found
  for _, file in ipairs(list) do
    local from, to = file.text:find(mutant.find, 1, true)
    if from then
      if found or file.text:find(mutant.find, to + 1, true) then
        return nil, "its text stands in more than one place"
      end
      found = { file = file, from = from, to = to }
    end
  end
  return found, "its text is nowhere in the sources"
end

-- Each test of a mutant: { word, only }, and a name that tells it from others.
local function tests_of(mutant)
  local list = {}
  for name in mutant.tests:gmatch(mutant.tests:find "[:;]" and "[^;%s][^;]*" or "%S+") do
    local word, only = name:match "^([%w_]+): (.*)"
    list[#list + 1] = { word = word or name, only = only, name = name }
  end
  return list
end

-- All errors, as a copy of the project has them, and the tests of those chosen.
local function load_all(dir, chosen)
  local list, tests, known = {}, {}, {}
  for _, path in ipairs(lines("ls " .. quote(dir) .. "/tests/mutants/*.lua")) do
    local room = path:match "([%w_]+)%.lua$"
    if room ~= "run" then
      for _, mutant in ipairs(dofile(path)) do
        mutant.name = ("%s: %s"):format(room, mutant[1])
        list[#list + 1] = mutant
      end
    end
  end
  for _, number in ipairs(chosen or {}) do
    for _, test in ipairs(tests_of(list[number])) do
      if not known[test.name] then tests[#tests + 1] = test end
      known[test.name] = true
    end
  end
  return list, tests
end

-- ---- one worker: a copy of the project, one error after another -------------------------------------

-- Compilers behind ccache where Debian puts them: a file that is as it was compiles at once.
local function build(dir, targets)
  local ccache = "PATH=/usr/lib/ccache:$PATH CCACHE_NOHASHDIR=1"
  return os.execute(("cd %s && %s make %s >>log 2>&1 </dev/null"):format(quote(dir), ccache,
    os.getenv "CC" and targets .. " CC=" .. quote(os.getenv "CC") or targets)) == 0
end

-- Runs one test, and returns "passed", "failed" or "stopped" (it took longer than so many seconds).
local function run_test(dir, test, seconds)
  local binary = test.word:find "_test$" and "build/tests/" .. test.word
  local words = binary and test.word .. " " .. binary or ("tests/%s_spec.lua"):format(test.word)
  local only = test.only and "--only " .. quote(test.only) or ""
  write(dir .. "/output", "")
  os.execute(("cd %s && ulimit -d %d && TMPDIR=$PWD/tmp MOONROCK_CONFIG=$PWD/tmp/config MOONROCK=./moonrock "
    .. "./moonrock tests/run.lua --first --timeout %d %s %s >output 2>&1 </dev/null")
    :format(quote(dir), MEMORY, seconds, only, words))
  local output = read(dir .. "/output")
  local passed, failed = output:match "(%d+) passed, (%d+) failed\n$"
  if passed ~= "0" and failed == "0" then return "passed" end
  return output:find "status 124" and "stopped" or "failed", output
end

-- What is done once by one of the workers is his who makes its directory.
local function claimed(root, what)
  return os.execute(("mkdir %s/%s 2>/dev/null"):format(quote(root), what)) == 0
end

local function without_errors(root, dir, tests)
  for i, test in ipairs(tests) do
    if claimed(root, "test." .. i) then
      local began = os.time()
      local outcome, output = run_test(dir, test, MOST)
      if outcome ~= "passed" then
        print(("without an error, %s %s:\n%s"):format(test.name, outcome, output))
      end
      write(("%s/test.%d/seconds"):format(root, i), outcome == "passed" and os.time() - began or "")
    end
  end
end

-- What becomes of an error, in a word or a few.
local function try(dir, mutant, seconds)
  local tests = tests_of(mutant)
  local at, problem = place(sources(dir), mutant)
  if not at then return "out of date: " .. problem end
  local targets = "all"
  for _, test in ipairs(tests) do
    if not seconds[test.name] then return "not tried: its test fails without it" end
    if test.word:find "_test$" then targets = targets .. " build/tests/" .. test.word end
  end
  local path, text, outcome = dir .. "/" .. at.file.path, at.file.text, "NOT NOTICED"
  write(path, text:sub(1, at.from - 1) .. mutant.replace .. text:sub(at.to + 1))
  if not build(dir, targets) then
    outcome = "out of date: it does not build"
  else
    for _, test in ipairs(tests) do
      local result = run_test(dir, test, math.min(MOST, LEAST + 10 * seconds[test.name]))
      if result ~= "passed" then
        outcome = result == "stopped" and "noticed (stopped)" or "noticed"
        break
      end
    end
  end
  write(path, text)
  return outcome
end

local function with_errors(root, dir, list, chosen, tests)
  local seconds = {}
  for i, test in ipairs(tests) do seconds[test.name] = tonumber(read(("%s/test.%d/seconds"):format(root, i))) end
  for _, number in ipairs(chosen) do
    if claimed(root, "error." .. number) then
      local began = os.time()
      local outcome = try(dir, list[number], seconds)
      write(("%s/error.%d/outcome"):format(root, number), outcome)
      print(("%-17s %4d s  %s"):format(outcome, os.time() - began, list[number].name))
      io.stdout:flush()
    end
  end
end

-- ---- all of them ------------------------------------------------------------------------------------

local options, names = { jobs = 2 }, {}
do
  local i = 1
  while arg[i] do
    local name = arg[i]:match "^%-%-(%w+)$"
    if name then
      options[name], i = arg[i + 1], i + 2
    else
      names[#names + 1], i = arg[i], i + 1
    end
  end
end

local chosen = {}
if options.worker then
  for _, number in ipairs(names) do chosen[#chosen + 1] = tonumber(number) end
  local dir = options.root .. "/" .. options.worker
  local list, tests = load_all(dir, chosen)
  if options.phase == "1" then
    without_errors(options.root, dir, tests)
  else
    with_errors(options.root, dir, list, chosen, tests)
  end
  return
end

local list = load_all "."
for number, mutant in ipairs(list) do
  local fits = #names == 0
  for _, name in ipairs(names) do fits = fits or mutant.name:find(name, 1, true) ~= nil end
  if fits then chosen[#chosen + 1] = number end
end
if options.sample then
  local seed = tonumber(options.seed) or os.time()
  print(("seed %d: SEED=%d chooses the same again"):format(seed, seed))
  local random = require("tests.support.random")(seed)
  for i = 1, math.min(tonumber(options.sample), #chosen) do
    local j = i + math.floor(random() * (#chosen - i + 1))
    chosen[i], chosen[j] = chosen[j], chosen[i]
  end
  for i = #chosen, tonumber(options.sample) + 1, -1 do chosen[i] = nil end
end
if #chosen == 0 then error("no error's text or file holds " .. table.concat(names, " or "), 0) end

local root = shell.directory()
for job = 1, options.jobs do
  local dir = quote(root .. "/" .. job)
  os.execute(("mkdir -p %s/tmp && tar cf - --exclude=./.git --exclude=./build/san --exclude=./build/san-thread "
    .. "--exclude=./build/coverage . | tar xf - -C %s"):format(dir, dir))
end
for phase = 1, 2 do
  local commands = {}
  for job = 1, options.jobs do
    commands[job] = ("./moonrock tests/mutants/run.lua --worker %d --root %s --phase %d %s &"):format(job, quote(root),
      phase, table.concat(chosen, " "))
  end
  os.execute(table.concat(commands, " ") .. " wait")
end

local noticed, missed = 0, {}
for _, number in ipairs(chosen) do
  local outcome = read(("%s/error.%d/outcome"):format(root, number)) or "not tried"
  if outcome:find "^noticed" then
    noticed = noticed + 1
  else
    missed[#missed + 1] = ("  %s (%s)"):format(list[number].name, outcome)
  end
end
os.execute("rm -rf " .. quote(root))
if #missed > 0 then print("not noticed:\n" .. table.concat(missed, "\n")) end
print(("%d noticed, %d not noticed"):format(noticed, #missed))
os.exit(#missed == 0 and 0 or 1)

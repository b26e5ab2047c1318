-- Puts one error at a time into a copy of the project and runs the tests that should notice it:
-- `make mutants`, or `./moonrock tests/mutants/run.lua [--sample N] [--seed S] [--jobs J] [NAME...]`.
--
-- The files beside this one list the errors, one file a room:
--   { "what a user would see", find = "text of the code", replace = "text in its place", tests = "op trainer" }
-- `find` stands exactly once in the sources, wherever they are; `tests` names specs (op: tests/op_spec.lua) and
-- C tests (table_test). An error is noticed when the tests fail. NAME: only errors whose text or file holds it.
local shell = require "tests.support.shell"

local SOURCES = "runtime lua models datasets"
local TIMEOUT = 900 -- seconds for the tests of one error

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
  for _, path in ipairs(lines("cd " .. quote(dir) .. " && find " .. SOURCES .. " -name '*.[ch]' -o -name '*.lua'")) do
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

local function load_all()
  local list = {}
  for _, path in ipairs(lines "ls tests/mutants/*.lua") do
    local room = path:match "([%w_]+)%.lua$"
    if room ~= "run" then
      for _, mutant in ipairs(dofile(path)) do
        mutant.name = ("%s: %s"):format(room, mutant[1])
        list[#list + 1] = mutant
      end
    end
  end
  return list
end

-- ---- one worker: a copy of the project, one error after another -------------------------------------

local function run_tests(dir, tests)
  for word in tests:gmatch "%S+" do
    local binary = word:find "_test$" and "build/tests/" .. word
    local command = binary and ("make %s >/dev/null && ./moonrock tests/run.lua %s %s"):format(binary, word, binary)
      or ("./moonrock tests/run.lua --first tests/%s_spec.lua"):format(word)
    if os.execute(("cd %s && MOONROCK=./moonrock timeout %d sh -c %s >>mutant.log 2>&1 </dev/null"):format(quote(dir),
      TIMEOUT, quote(command))) ~= 0 then
      return false
    end
  end
  return true
end

local function worker(dir, wanted)
  local list = load_all()
  for _, number in ipairs(wanted) do
    local mutant, began = list[number], os.time()
    local at, problem = place(sources(dir), mutant)
    local outcome
    if not at then
      outcome = "stale: " .. problem
    else
      local path, text = dir .. "/" .. at.file.path, at.file.text
      write(path, text:sub(1, at.from - 1) .. mutant.replace .. text:sub(at.to + 1))
      if os.execute(("cd %s && make >mutant.log 2>&1 </dev/null"):format(quote(dir))) ~= 0 then
        outcome = "stale: it does not build"
      else
        outcome = run_tests(dir, mutant.tests) and "NOT NOTICED" or "noticed"
      end
      write(path, text)
    end
    print(("%s\t%d\t%s"):format(outcome, os.time() - began, mutant.name))
    io.stdout:flush()
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

if options.worker then
  local wanted = {}
  for number in options.numbers:gmatch "%d+" do wanted[#wanted + 1] = tonumber(number) end
  worker(options.worker, wanted)
  return
end

local list, chosen = load_all(), {}
for number, mutant in ipairs(list) do
  local fits = #names == 0
  for _, name in ipairs(names) do fits = fits or mutant.name:find(name, 1, true) ~= nil end
  if fits then chosen[#chosen + 1] = number end
end
if options.sample then
  local seed = tonumber(options.seed) or os.time()
  print(("seed %d: --seed %d chooses the same again"):format(seed, seed))
  local random = require("tests.support.random")(seed)
  for i = 1, math.min(tonumber(options.sample), #chosen) do
    local j = i + math.floor(random() * (#chosen - i + 1))
    chosen[i], chosen[j] = chosen[j], chosen[i]
  end
  for i = #chosen, tonumber(options.sample) + 1, -1 do chosen[i] = nil end
end

local root = shell.directory()
local pipes, jobs = {}, math.min(tonumber(options.jobs), #chosen)
for job = 1, jobs do
  local dir, numbers = root .. "/" .. job, {}
  for i = job, #chosen, jobs do numbers[#numbers + 1] = chosen[i] end
  os.execute(("mkdir %s && tar cf - --exclude=.git --exclude=build/san --exclude=build/tsan . | tar xf - -C %s")
    :format(quote(dir), quote(dir)))
  pipes[job] = io.popen(("./moonrock tests/mutants/run.lua --worker %s --numbers %s"):format(quote(dir),
    table.concat(numbers, ",")))
end
local count, missed = 0, {}
for _, pipe in ipairs(pipes) do
  for line in pipe:lines() do
    local outcome, seconds, name = line:match "^([^\t]+)\t(%d+)\t(.*)"
    if outcome then
      count = count + 1
      print(("%-12s %4d s  %s"):format(outcome, seconds, name))
      if outcome ~= "noticed" then missed[#missed + 1] = ("%s (%s)"):format(name, outcome) end
    else
      print(line)
    end
  end
  pipe:close()
end
os.execute("rm -rf " .. quote(root))
print(("%d of %d errors were noticed"):format(count - #missed, #chosen))
for _, name in ipairs(missed) do print("  not: " .. name) end
os.exit(count == #chosen and #missed == 0 and 0 or 1)

-- The test runner: `./moonrock tests/run.lua [--first] [--only TEXT] [--timeout S] [NAME...] [C TEST...]`.
--
-- Every file tests/*_spec.lua is run by busted inside a process of its own, under this very
-- program; every C test given is run as it is; JOBS (2) of them at a time. NAME runs only the files
-- whose names contain it, --only the tests whose names (in C, those of their functions) contain a text;
-- --first leaves the rest of a file out after its first failure, --timeout stops one after so many seconds.
-- The last line is `N passed, N failed`; the exit status is 1 if any failed.

local timeout = 900 -- seconds for a file

local function quote(text) return "'" .. text:gsub("'", "'\\''") .. "'" end

-- ---- one spec file, in the child process ----------------------------------------------------

if arg[1] == "--spec" then
  local file = arg[2]
  -- Modules stay loaded between the blocks of a file: C types are declared once in a process.
  local words = { [-1] = arg[-1], [0] = "busted", "--no-auto-insulate",
    "--output=tests/support/output.lua", file, arg[3] }
  local only, ffi = os.getenv "ONLY", require "ffi"
  if only then words[#words + 1] = "--filter=" .. only:gsub("%p", "%%%0") end
  ffi.cdef "int unsetenv(const char *name);" -- it is for this file's tests, not for those that they run
  ffi.C.unsetenv "ONLY"
  arg = words -- luacheck: globals arg
  require "busted.runner" { standalone = false }
  return
end

-- What is trained in a test is signed by a key of the tests' own.
if not os.getenv "MOONROCK_CONFIG" then
  local ffi = require "ffi"
  ffi.cdef "int setenv(const char *name, const char *value, int overwrite);"
  local pipe = io.popen "mktemp -d"
  ffi.C.setenv("MOONROCK_CONFIG", pipe:read "*l" .. "/config", 1)
  pipe:close()
end

-- ---- all of them -----------------------------------------------------------------------------

local program = os.getenv("MOONROCK") or "./moonrock"
local specs, binaries, names, first, only = {}, {}, {}, "", nil
local at = 0
local function word()
  at = at + 1
  return arg[at]
end
for a in word do
  if a == "--first" then first = "--no-keep-going"
  elseif a == "--only" then only = word()
  elseif a == "--timeout" then timeout = tonumber(word())
  elseif a:find("^build/.*_test$") then binaries[#binaries + 1] = a
  else names[#names + 1] = a end
end

local function wanted(file)
  if #names == 0 then return true end
  for _, name in ipairs(names) do
    if file:find(name, 1, true) then return true end
  end
  return false
end

local list = io.popen("ls tests/*_spec.lua 2>/dev/null")
for file in list:lines() do
  if wanted(file) then specs[#specs + 1] = file end
end
list:close()

local passed, failed, skipped = 0, 0, 0
local failures = {}

local function failure(name, detail)
  failed = failed + 1
  failures[#failures + 1] = { name = name, detail = detail or "" }
end

-- Takes in what a file of tests printed: `ok NAME`, `not ok NAME` with the detail after it, and
-- `skip NAME`. Returns how many there were, and the last other lines.
local function count_up(title, output)
  local count, last, detail = 0, {}, nil
  for line in output:gmatch("([^\n]*)\n") do
    local kind, name = line:match("^(not ok) (.*)")
    if not kind then kind, name = line:match("^(ok) (.*)") end
    if not kind then kind, name = line:match("^(skip) (.*)") end
    if kind then
      count = count + 1
      detail = nil
      if kind == "ok" then passed = passed + 1
      elseif kind == "skip" then
        skipped = skipped + 1
        io.write("  skipped: ", name, "\n")
      else
        local before = #last > 0 and "  " .. table.concat(last, "\n  ") .. "\n" or ""
        failure(title .. ": " .. name, before) -- C tests say what was wrong before the name
        detail = failures[#failures]
        io.write("  FAILED: ", name, "\n")
      end
    elseif detail and line:find("^  ") then
      detail.detail = detail.detail .. line .. "\n"
    else
      last[#last + 1] = line
      if #last > 40 then table.remove(last, 1) end
    end
  end
  return count, table.concat(last, "\n")
end

-- Runs files, `jobs` at a time, and takes in each when it has ended.
local function run(files, jobs)
  local made = io.popen("mktemp -d")
  local dir = made:read "*l"
  made:close()
  local input = assert(io.open(dir .. "/files", "w"))
  for i, file in ipairs(files) do input:write(i, " ", file, "\n") end
  input:close()
  local pipe = io.popen(([[PROGRAM=%s FIRST=%s %s xargs -r -P %d -L 1 sh -c '
    began=$(date +%%s)
    case $2 in
      *.lua) timeout %d "$PROGRAM" tests/run.lua --spec "$2" $FIRST ;;
      *) ASAN_OPTIONS= timeout %d "$2" ;;
    esac >%s/"$1" 2>&1 </dev/null
    echo "$1 $? $(($(date +%%s) - began))"' test <%s/files]]):format(quote(program), quote(first),
    only and "ONLY=" .. quote(only) or "", jobs, timeout, timeout, dir, dir))
  for line in pipe:lines() do
    local i, status, seconds = line:match("^(%d+) (%d+) (%d+)$")
    local file = files[tonumber(i)]
    io.write(file, tonumber(seconds) >= 10 and ("  (%d s)"):format(seconds) or "", "\n")
    local output = assert(io.open(dir .. "/" .. i))
    local failed_before = failed
    local count, last = count_up(file, output:read "*a" .. "\n")
    output:close()
    if file:find("_test$") and status == "0" and count == 0 and not only then
      passed = passed + 1
    elseif status ~= "0" and failed == failed_before or count == 0 then
      failure(file .. ": the file ran to its end",
        ("  it ended with status %s after %d tests\n%s\n"):format(status, count, last))
      io.write("  FAILED: status ", status, "\n")
    end
    files[file] = true
    io.flush()
  end
  pipe:close()
  for _, file in ipairs(files) do
    if not files[file] then failure(file .. ": was run", "  it was not\n") end
  end
  os.execute("rm -rf " .. quote(dir))
end

-- What measures memory or time, or waits for a terminal, runs by itself.
local ALONE = { bench = true, budget = true, follow = true, memory = true, profile = true, progress = true,
  prompt = true }
local together, alone = {}, {}
for _, file in ipairs(specs) do
  table.insert(ALONE[file:match("([%w_]+)_spec")] and alone or together, file)
end
for _, binary in ipairs(binaries) do
  if wanted(binary) then together[#together + 1] = binary end
end
run(together, tonumber(os.getenv "JOBS") or 2)
run(alone, 1)

if passed + failed + skipped == 0 then
  failure("tests named " .. table.concat(names, ", "), "  there are none\n")
end

if #failures > 0 then
  io.write("\n", #failures, " failed:\n")
  for i, f in ipairs(failures) do
    io.write("\n", i, ". ", f.name, "\n", f.detail)
  end
  io.write("\n")
end
if skipped > 0 then io.write(skipped, " skipped: the data or the build they need is not here\n") end
io.write(("%d passed, %d failed\n"):format(passed, failed))
os.exit(failed == 0 and 0 or 1)

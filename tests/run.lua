-- The test runner: `./moonrock tests/run.lua [--first] [NAME...] [C TEST...]`.
--
-- Every file tests/*_spec.lua is run by busted inside a process of its own, under this very
-- program; every C test given is run as it is. NAME runs only the files whose names contain it, and
-- --first leaves the rest of a file out after its first failure.
-- The last line is `N passed, N failed`; the exit status is 1 if any failed.

local TIMEOUT = 900 -- seconds for a file

local function quote(text) return "'" .. text:gsub("'", "'\\''") .. "'" end

-- ---- one spec file, in the child process ----------------------------------------------------

if arg[1] == "--spec" then
  local file = arg[2]
  -- Modules stay loaded between the blocks of a file: C types are declared once in a process.
  local words = { [-1] = arg[-1], [0] = "busted", "--no-auto-insulate",
    "--output=tests/support/output.lua", file, arg[3] }
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
local specs, binaries, names, first = {}, {}, {}, ""
for _, a in ipairs(arg) do
  if a == "--first" then first = " --no-keep-going"
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

-- Runs a command, shows its output but for the protocol's lines, and counts: `ok NAME`,
-- `not ok NAME` with the detail after it, and `skip NAME`. Returns how many there were.
local function run(title, command)
  io.write(title, "\n")
  io.flush()
  local began, count, last = os.time(), 0, {}
  local ended, detail
  local pipe = io.popen(("timeout %d %s"):format(TIMEOUT, command) .. " 2>&1 </dev/null; echo \"--exit $?\"")
  for line in pipe:lines() do
    local kind, name = line:match("^(not ok) (.*)")
    if not kind then kind, name = line:match("^(ok) (.*)") end
    if not kind then kind, name = line:match("^(skip) (.*)") end
    local status = line:match("^%-%-exit (%d+)$")
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
    elseif status then
      ended = tonumber(status)
    elseif detail and line:find("^  ") then
      detail.detail = detail.detail .. line .. "\n"
    else
      last[#last + 1] = line
      if #last > 40 then table.remove(last, 1) end
    end
    io.flush()
  end
  pipe:close()
  return count, ended, table.concat(last, "\n"), os.time() - began
end

for _, file in ipairs(specs) do
  local failed_before = failed
  local count, status, output, seconds = run(file, quote(program) .. " tests/run.lua --spec " .. quote(file)
    .. first)
  local explained = failed > failed_before
  if status ~= 0 and not explained or count == 0 then
    failure(file .. ": the file ran to its end",
      ("  it ended with status %s after %d tests\n%s\n"):format(status, count, output))
    io.write("  FAILED: status ", tostring(status), "\n")
  end
  if seconds >= 10 then io.write(("  took %d s\n"):format(seconds)) end
end

for _, binary in ipairs(binaries) do
  if wanted(binary) then
    local failed_before = failed
    local count, status, output = run(binary, "env ASAN_OPTIONS= " .. quote(binary))
    if status == 0 and count == 0 then passed = passed + 1 end
    if status ~= 0 and failed == failed_before then
      failure(binary, ("  it ended with status %s\n%s\n"):format(status, output))
      io.write("  FAILED: status ", tostring(status), "\n")
    end
  end
end

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

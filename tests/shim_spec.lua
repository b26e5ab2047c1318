-- The tests' own tool (support/faults.c, support/recover.c): each rule of what a loss of power
-- leaves, and of calls that fail and kill, with plain calls on files.
local faults = require "tests.support.faults"
local shell = require "tests.support.shell"

-- What scripts run under the tool are written with. Each call raises its errno.
local WORDS = [[
local ffi = require "ffi"
ffi.cdef "int open(const char *, int, ...); int fsync(int); int fdatasync(int); int close(int);"
ffi.cdef "long write(int, const void *, size_t); long pwrite(int, const void *, size_t, int64_t);"
ffi.cdef "int rename(const char *, const char *); int link(const char *, const char *);"
ffi.cdef "int unlink(const char *); int mkdir(const char *, int); int rmdir(const char *);"
ffi.cdef "int ftruncate(int, int64_t); int sync_file_range(int, int64_t, int64_t, unsigned);"
ffi.cdef "long read(int, void *, size_t); int kill(int, int); int getpid(void);"
ffi.cdef "void faults_plan(const char *);"
local C, ROOT = ffi.C, arg[1] .. "/"
local function must(result)
  if result < 0 then error("errno " .. ffi.errno(), 2) end
  return result
end
local function change(path, flags, work)
  local fd = must(C.open(ROOT .. path, flags, ffi.cast("int", 438)))
  work(fd)
  C.close(fd)
end
local function create(path, text) change(path, 577, function(fd) must(C.write(fd, text, #text)) end) end
local function append(path, text) change(path, 1025, function(fd) must(C.write(fd, text, #text)) end) end
local function put(path, at, text) change(path, 1, function(fd) must(C.pwrite(fd, text, #text, at)) end) end
local function cut(path, len) change(path, 1, function(fd) must(C.ftruncate(fd, len)) end) end
local function range(path) change(path, 1, function(fd) must(C.sync_file_range(fd, 0, 0, 7)) end) end
local function sync(path) change(path, 0, function(fd) must(C.fsync(fd)) end) end
local function datasync(path) change(path, 0, function(fd) must(C.fdatasync(fd)) end) end
local function rename(a, b) must(C.rename(ROOT .. a, ROOT .. b)) end
local function link(a, b) must(C.link(ROOT .. a, ROOT .. b)) end
local function unlink(path) must(C.unlink(ROOT .. path)) end
local function mkdir(path) must(C.mkdir(ROOT .. path, 493)) end
local function rmdir(path) must(C.rmdir(ROOT .. path)) end
local function power_goes() C.kill(C.getpid(), 9) end
local function plan(text) C.faults_plan(text) end
local function say(...) print(...) io.stdout:flush() end
local _ = { create, append, put, cut, range, sync, datasync, rename, link, unlink, mkdir, rmdir,
  power_goes, plan, say }
]]

-- What stood before the start: old files, synced long ago.
local BEFORE = "mkdir -p %s/d && cd %s && printf one >a && printf two >b && printf three >d/c"

-- A directory as one line: `a=one b=two d/ d/c=three`.
local function tree(dir)
  local _, out = shell.run("cd " .. dir .. [[ && find . -mindepth 1 | LC_ALL=C sort | while read -r f; do
    if [ -d "$f" ]; then printf '%s/ ' "${f#./}"; else printf '%s=%s ' "${f#./}" "$(cat "$f")"; fi; done]])
  return (out:gsub("%s+$", ""))
end

local CASES = {
  { "nothing but what was there when nothing happened", "", "a=one b=two d/ d/c=three" },
  { "a new file only when it and its directory were synced", [[
      create("x", "new") sync("x") create("z", "new") sync("")
      create("y", "new") sync("y") ]], "a=one b=two d/ d/c=three x=new z=" },
  { "what a file held when it was last synced", [[
      append("a", "+1") sync("a") append("a", "+2") ]], "a=one+1 b=two d/ d/c=three" },
  { "the same after fdatasync", [[
      append("a", "+1") datasync("a") append("a", "+2") ]], "a=one+1 b=two d/ d/c=three" },
  { "nothing that only sync_file_range was told of", [[
      append("a", "+1") range("a") ]], "a=one b=two d/ d/c=three" },
  { "bytes that were written over", [[ put("a", 1, "X") ]], "a=one b=two d/ d/c=three" },
  { "what was truncated, by ftruncate and by open", [[
      cut("a", 1) create("b", "") ]], "a=one b=two d/ d/c=three" },
  { "a truncation that was synced", [[ cut("a", 1) sync("a") ]], "a=o b=two d/ d/c=three" },
  { "the old name, when the directory was not synced", [[
      rename("a", "z") ]], "a=one b=two d/ d/c=three" },
  { "the new name, when it was", [[ rename("a", "z") sync("") ]], "b=two d/ d/c=three z=one" },
  { "what was replaced by a rename that is lost", [[
      create("n", "new") sync("n") rename("n", "a") ]], "a=one b=two d/ d/c=three" },
  { "what replaced it, once synced, though its making was never synced by itself", [[
      create("n", "new") sync("n") rename("n", "a") sync("") ]], "a=new b=two d/ d/c=three" },
  { "an empty file in the place of one, when the rename was synced but not the content", [[
      create("n", "new") rename("n", "a") sync("") ]], "a= b=two d/ d/c=three" },
  { "a removed file, with its durable content", [[
      append("a", "+1") unlink("a") ]], "a=one b=two d/ d/c=three" },
  { "no removed file, when its directory was synced", [[ unlink("a") sync("") ]], "b=two d/ d/c=three" },
  { "one content for all links of a file", [[
      link("a", "l") sync("") append("a", "+1") sync("l") append("l", "+2") ]],
    "a=one+1 b=two d/ d/c=three l=one+1" },
  { "a link whose first name is gone", [[
      link("a", "d/l") sync("d") unlink("a") sync("") ]], "b=two d/ d/c=three d/l=one" },
  { "no new directory, when only it and not its parent was synced", [[
      mkdir("e") create("e/x", "new") sync("e/x") sync("e") ]], "a=one b=two d/ d/c=three" },
  { "a new directory without its files, when only its parent was synced", [[
      mkdir("e") create("e/x", "new") sync("e/x") sync("") ]], "a=one b=two d/ d/c=three e/" },
  { "a new directory with its files, when all were", [[
      mkdir("e") create("e/x", "new") sync("e/x") sync("e") sync("") ]],
    "a=one b=two d/ d/c=three e/ e/x=new" },
  { "a removed directory", [[ unlink("d/c") rmdir("d") ]], "a=one b=two d/ d/c=three" },
  { "a renamed directory with what was made in it after", [[
      rename("d", "f") sync("") create("f/x", "new") sync("f/x") sync("f") ]],
    "a=one b=two f/ f/c=three f/x=new" },
  { "one of the two names of a rename between directories", [[
      rename("a", "d/m") sync("d") ]], "b=two d/ d/c=three d/m=one" },
  { "a file that was renamed twice, by the directory synced last", [[
      create("n", "new") sync("n") rename("n", "d/m") rename("d/m", "d/o") sync("d") ]],
    "a=one b=two d/ d/c=three d/o=new" },
  { "nothing synced after a sync that failed", [[
      append("a", "+1") plan("class=sync nth=1 do=EIO") pcall(sync, "a") ]], "a=one b=two d/ d/c=three" },
}

describe("after a loss of power there is", function()
  local at = shell.directory()
  local script, dir, record = at .. "/script.lua", at .. "/dir", at .. "/record"

  local function lose(text, seed)
    shell.run(("rm -rf %s %s; " .. BEFORE):format(dir, record, dir, dir))
    shell.write(script, WORDS .. text .. " power_goes()")
    local status, out, errors = faults.run({ dir = dir, record = record }, shell.program, script, dir)
    assert.equal(137, status, out .. errors)
    faults.recover(dir, record, seed)
    return tree(dir)
  end

  for _, case in ipairs(CASES) do
    it(case[1], function() assert.equal(case[3], lose(case[2])) end)
  end

  it("by chance, a first part of what was not synced", function()
    local seen, states = {}, 0
    for seed = 1, 40 do
      local left = lose([[ create("x", "1234") rename("b", "y") ]], seed)
      local names = left:gsub("=[^ ]*", "")
      assert.is_true(names == "a b d/ d/c" or names == "a b d/ d/c x" or names == "a d/ d/c x y", left)
      if not seen[left] then states = states + 1 end
      seen[left] = true
    end
    assert.is_true(states >= 5, "only " .. states .. " states")
    assert.is_true(seen["a=one b=two d/ d/c=three"] and seen["a=one b=two d/ d/c=three x=1234"])
  end)
end)

describe("a call that is met", function()
  local at = shell.directory()
  local script, dir = at .. "/script.lua", at .. "/dir"

  local function run(plan, text)
    shell.run(("rm -rf %s; " .. BEFORE):format(dir, dir, dir))
    shell.write(script, WORDS .. text)
    local status, out, errors, counts = faults.run({ dir = dir, plan = plan }, shell.program, script, dir)
    return out, counts, status, errors
  end
  local THREE = [[ for i = 1, 3 do say(i, pcall(append, "a", "xy")) end ]]

  it("fails once, with the errno of the plan", function()
    local out, counts = run("class=write nth=2 do=ENOSPC", THREE)
    assert.matches("^1\ttrue\n2\tfalse\t[^\n]*errno 28\n3\ttrue\n$", out)
    assert.equal("a=onexyxy b=two d/ d/c=three", tree(dir))
    assert.same({ 3, 3, 0, 0, 0, 6, 1 }, { counts.write, counts.open, counts.read, counts.sync, counts.name,
      counts.any, counts.met })
  end)

  it("fails from then on", function()
    local out = run("class=write nth=2 do=EIO sticky", THREE)
    assert.matches("^1\ttrue\n2\tfalse\t[^\n]*errno 5\n3\tfalse\t[^\n]*errno 5\n$", out)
  end)

  it("writes half", function()
    run("class=write nth=1 do=short", THREE)
    assert.equal("a=onexxyxy b=two d/ d/c=three", tree(dir))
  end)

  it("is one of a path, when the plan names one", function()
    local out, counts = run("class=any nth=1 do=EIO match=/b", [[
      say(pcall(append, "a", "x")) say(pcall(append, "b", "x")) say(pcall(append, "b", "x")) ]])
    assert.matches("^true\nfalse\t[^\n]*errno 5\ntrue\n$", out)
    assert.equal(3, counts.any)
  end)

  it("is one of a thread, when the plan names one", function()
    local out, counts = run("class=write nth=1 do=EIO thread=moonrock", THREE)
    assert.matches("^1\tfalse\t[^\n]*errno 5\n2\ttrue\n3\ttrue\n$", out)
    assert.equal(3, counts.write)
    out, counts = run("class=write nth=1 do=EIO thread=another", THREE)
    assert.matches("^1\ttrue\n2\ttrue\n3\ttrue\n$", out)
    assert.equal(0, counts.any)
  end)

  it("is no read of a path that is to be readable", function()
    local _, counts = run("class=read nth=1 do=EIO readable=/a", [=[
      local function look(path)
        change(path, 0, function(fd) must(C.read(fd, ffi.new("char[4]"), 4)) end)
      end
      say(pcall(look, "a")) say(pcall(look, "b")) ]=])
    assert.same({ 1, 1 }, { counts.read, counts.met })
  end)

  it("kills before or after it happened", function()
    local _, counts, status = run("class=name nth=2 do=kill", [[ rename("a", "x") rename("b", "y") ]])
    assert.same({ 137, 1, 2 }, { status, counts.met, counts.name })
    assert.equal("b=two d/ d/c=three x=one", tree(dir))
    run("class=name nth=2 do=after", [[ rename("a", "x") rename("b", "y") unlink("x") ]])
    assert.equal("d/ d/c=three x=one y=two", tree(dir))
  end)

  it("may still be a removal on a full disk", function()
    local out = run("class=any nth=1 do=ENOSPC sticky", [[ unlink("b") say(pcall(create, "n", "x")) ]])
    assert.matches("errno 28", out)
    assert.equal("a=one d/ d/c=three", tree(dir))
  end)

  it("is another once the program has a new plan", function()
    local out = run("class=write nth=1 do=EIO sticky", [[ say(pcall(append, "a", "x")) plan("") append("a", "y") ]])
    assert.matches("errno 5", out)
    assert.equal("a=oney b=two d/ d/c=three", tree(dir))
  end)

  it("is none outside of the directory", function()
    local out, counts = run("class=any nth=1 do=EIO sticky",
      [[ local f = io.open("/dev/null") say(f ~= nil) f:close() ROOT = arg[1] .. "-" create("beside", "x") ]])
    assert.equal("true\n", out)
    assert.equal(0, counts.any)
  end)
end)

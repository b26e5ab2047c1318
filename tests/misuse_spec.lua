-- Misuse from Lua, as people do it: every script of support/misuse.lua in a process of its own ends with an
-- error at its own line that says what was misused, or, where it is legal, well; never with a signal, a
-- sanitizer's report, or not at all. And whatever a seeded generator makes of the public functions.
local shell = require "tests.support.shell"
local misuse = require "tests.support.misuse"

local dir = shell.directory()

local function data()
  local text, state = {}, 7
  local function random(n)
    state = state * 16807 % 2147483647
    return state % n
  end
  for i = 1, 300 do text[i] = ("%d %d:1 %d:1 %d:1\n"):format(i % 2, random(99), random(99), random(99)) end
  shell.write(dir .. "/a.libsvm", table.concat(text))
  text = {}
  for i = 1, 200 do
    text[#text + 1] = i % 2
    for _ = 1, i <= 10 and 400 or 1 do text[#text + 1] = (" %d:%d:1"):format(random(5), random(999)) end
    text[#text + 1] = "\n"
  end
  shell.write(dir .. "/uneven.libffm", table.concat(text))
  text = { "y,c\n" }
  for i = 1, 200 do text[i + 1] = ("%d,%d\n"):format(i % 2, random(7)) end
  shell.write(dir .. "/cat.csv", table.concat(text))
  shell.write(dir .. "/cat.lua", 'local mr = require "moonrock"\nreturn mr.schema { name = "cat", label = "y", '
    .. 'fields = { mr.category "c" } }\n')
end

-- Runs all scripts, two at a time: each in a directory of its own name, with what it said and its status.
local function run_all()
  data()
  local prelude = misuse.prelude:gsub("\n", " ")
  for i, script in ipairs(misuse) do
    os.execute(("mkdir -p %s/%d && cd %s/%d && ln -s ../a.libsvm ../uneven.libffm ../cat.csv ../cat.lua ."):format(
      dir, i, dir, i))
    local mode = i % 4 == 0 and "jit.off() " or "" -- some by the interpreter alone
    shell.write(("%s/%d/misuse.lua"):format(dir, i), mode .. prelude .. "\n" .. script.code .. "\nprint 'well'\n")
  end
  local program = shell.program:match("^/") and shell.program or ("$PWD/" .. shell.program)
  os.execute(([[program=%s; seq %d | xargs -P 2 -I {} sh -c 'cd %s/{} || exit; timeout -k 5 60 '$program' misuse.lua \
    >said 2>&1 </dev/null; echo $? >status']]):format(program, #misuse, dir))
end

run_all()

describe("a script that misuses the library:", function()
  for i, script in ipairs(misuse) do
    it(script.name, function()
      local said = shell.read(("%s/%d/said"):format(dir, i))
      local status = tonumber(shell.read(("%s/%d/status"):format(dir, i)))
      local told = ("\n%s\nended with %d and said:\n%s"):format(script.code, status, said)
      assert.is_nil(said:find("Sanitizer", 1, true), told)
      assert.is_nil(said:find("runtime error:", 1, true), told)
      if script.expected == true then
        assert.equal(0, status, told)
        return
      end
      assert.equal(1, status, told)
      local line = script.anywhere and said or said:match("moonrock: misuse%.lua:[12]: ([^\n]*)")
      assert.truthy(line and line:find(script.expected, 1, true), told)
    end)
  end
end)

describe("any calls of public functions with any arguments", function()
  it("end as errors or well", function()
    local seed = os.time() % 1e6 + 1
    local program = shell.program:match("^/") and shell.program or "$PWD/" .. shell.program
    local status, output, errors = shell.run(([[program=%s; script=$PWD/tests/support/misuse_fuzz.lua
      mkdir -p %s/fuzz && cd %s/fuzz && ln -s ../a.libsvm . && timeout -k 5 120 $program $script %d 3]]):format(
      program, dir, dir, seed))
    local told = ("seed %d ended with %d: %s"):format(seed, status, errors:sub(-2000))
    assert.equal(0, status, told)
    assert.is_nil(errors:find("Sanitizer", 1, true), told)
    assert.is_nil(errors:find("runtime error:", 1, true), told)
    assert.matches("%d+ calls", output)
  end)
end)

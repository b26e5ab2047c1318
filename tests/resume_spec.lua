-- Resuming changes nothing: the same bits after kills, at any number of threads, any commit
-- cadence, and under both of the distribution's OpenBLAS builds.

local shell = require "tests.support.shell"

local PROGRAM = shell.program

local function run(command)
  local _, out, errors = shell.run(command)
  return out .. errors
end

describe("a run that is killed and resumed", function()
  local dir = shell.directory()
  local data = dir .. "/train.bin"
  local number = 0

  setup(function()
    run(("%s datasets/synthetic.lua --seed 3 --train 12800 --test 10 --out %s --format bin"):format(
      PROGRAM, dir))
  end)

  local function train(store, threads, commit_every, kill_at, environment, schedule)
    local status, out, errors = shell.run(("%s %s tests/support/killed.lua %s %s %d %d %d %s"):format(environment or "", PROGRAM,
      data, store, threads, commit_every, kill_at, schedule or ""))
    assert.equal(kill_at > 0 and 128 + 9 or 0, status, errors)
    return out .. errors:gsub("moonrock: [^\n]*: goes on where it was left[^\n]*\n", "")
  end

  local function fresh()
    number = number + 1
    return dir .. "/store" .. number
  end

  local whole -- of a run in one go, 400 batches on two threads

  it("ends with a digest and metrics when run in one go", function()
    whole = train(fresh(), 2, 1000, 0)
    assert.matches("^%x+%s+[%d.e-]+ [%d.e-]+\n$", whole)
  end)

  it("ends the same after four kills", function()
    local store = fresh()
    for _, kill_at in ipairs { 40, 133, 205, 371 } do train(store, 2, 33, kill_at) end
    assert.equal(whole, train(store, 2, 33, 0))
  end)

  it("ends the same after three kills under a schedule of the learning rate", function()
    local schedule = '"warmup(50, cosine(300, 0.1))"'
    local one = train(fresh(), 2, 1000, 0, nil, schedule)
    assert.matches("^%x+%s", one)
    assert.not_equal(whole, one)
    local store = fresh()
    for _, kill_at in ipairs { 41, 160, 333 } do train(store, 2, 33, kill_at, nil, schedule) end
    assert.equal(one, train(store, 2, 33, 0, nil, schedule))
  end)

  it("ends the same on one thread and with another commit cadence", function()
    assert.equal(whole, train(fresh(), 1, 50, 0))
  end)

  it("ends the same under the pthread and the OpenMP build of OpenBLAS", function()
    local builds = 0
    for _, build in ipairs { "pthread", "openmp" } do
      local lib = run("ls -d /usr/lib/*/openblas-" .. build):gsub("%s+$", "")
      if not lib:match("No such file") then
        builds = builds + 1
        for threads = 1, 2 do
          assert.equal(whole, train(fresh(), threads, 1000, 0, "LD_LIBRARY_PATH=" .. lib))
        end
      end
    end
    assert.is_true(builds >= 1)
  end)

  it("is not changed by eval, predict and info: not a byte, not a row", function()
    local store = fresh()
    train(store, 2, 100, 0)
    local function bytes()
      return run("cd " .. store .. " && find . -type f | sort | xargs sha256sum")
    end
    local before = bytes()
    run("mkdir " .. dir .. "/other")
    run(("%s datasets/synthetic.lua --seed 4 --train 300 --test 10 --out %s/other --format bin"):format(
      PROGRAM, dir))
    for _, command in ipairs { "eval --json", "predict" } do
      local status, _, errors = shell.run(("%s %s --store %s --data %s/other/train.bin"):format(PROGRAM,
        command, store, dir))
      assert.equal(0, status, errors)
    end
    assert.equal(0, (shell.run(("%s info --store %s"):format(PROGRAM, store))))
    assert.equal(before, bytes())
  end)
end)

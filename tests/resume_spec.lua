-- Resuming changes nothing: the same bits after kills, at any number of threads, any commit
-- cadence, and under both of the distribution's OpenBLAS builds.

local function run(command)
  local pipe = assert(io.popen(command .. " 2>&1"))
  local out = pipe:read("*a")
  pipe:close()
  return out
end

local function temporary()
  return (run("mktemp -d"):gsub("%s+$", ""))
end

local PROGRAM = arg and arg[-1] or "./moonrock"

describe("a run that is killed and resumed", function()
  local dir = temporary()
  local data = dir .. "/train.bin"
  local number = 0

  setup(function()
    run(("%s datasets/synthetic.lua --seed 3 --train 12800 --test 10 --out %s --format bin"):format(
      PROGRAM, dir))
  end)
  teardown(function() run("rm -rf " .. dir) end)

  local function train(store, threads, commit_every, kill_at, environment)
    return run(("%s %s tests/support/killed.lua %s %s %d %d %d"):format(environment or "", PROGRAM,
      data, store, threads, commit_every, kill_at))
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
end)

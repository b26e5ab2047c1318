-- Training that is killed at any instant: the store is at a commit, acknowledged or under way, with
-- the digest of an undisturbed run at that step, and training goes on to the same end.
--
-- KILLS, SEED and FROM (the kill to begin at) come from the environment; `make torture` sets them.
local faults = require "tests.support.faults"
local runs = require "tests.support.runs"
local shell = require "tests.support.shell"

local KILLS, SEED, FROM = faults.number("KILLS", 200), faults.seed(), faults.number("FROM", 1)

describe("training that is killed again and again", function()
  local dir = shell.directory()
  local work = dir .. "/work"
  local store = work .. "/store"
  local all

  setup(function()
    shell.run("mkdir " .. work)
    all = runs.both(dir)
    for _, run in ipairs(all) do -- how long it takes, and how many calls there are
      local clock = require("moonrock.ffi").mr_clock
      local began = clock()
      local status, out, errors, counts = faults.run({ dir = work }, run:command(store))
      assert.equal(0, status, out .. errors)
      assert.is_true(run:finished(store))
      run.seconds, run.calls = clock() - began, counts
      shell.run("rm -rf " .. store)
    end
  end)

  -- Half of the kills come at random instants, from outside; half at a call on files.
  local function plan(run, random)
    if random(2) == 0 then return nil, 0.02 + random() * run.seconds end
    return faults.kill_plan(random, run.calls)
  end

  it("is at a commit after each kill, and ends as if there had been none", function()
    print(("  seed %d, %d kills"):format(SEED, KILLS))
    local last, life, ends, kill = nil, 0, 0, FROM
    local attempts = 0
    while kill < FROM + KILLS do
      attempts = attempts + 1
      local run = all[1 + life % 2]
      local random = faults.random(SEED * 100003 + kill * 17 + attempts)
      local words, seconds = plan(run, random)
      local status, said, errors = faults.run({ dir = work, plan = words, seconds = seconds },
        run:command(store))
      local context = ("SEED=%d FROM=%d: %s, %s"):format(SEED, kill, run.name,
        words or ("after %.3f s"):format(seconds))
      assert.is_true(status == 137 or status == 0, context .. ": " .. said .. errors)
      local now, problem = run:check(store, said, last)
      assert.is_not_false(now, context .. ": " .. tostring(problem))
      last = now
      if status == 0 then
        local good, why = run:finished(store)
        assert.is_true(good, context .. ": " .. tostring(why))
        ends, life, last = ends + 1, life + 1, nil
        shell.run("rm -rf " .. store .. "*")
      else
        kill = kill + 1
        if kill % 100 == 0 then print(("  seed %d: %d kills, %d runs ended"):format(SEED, kill, ends)) end
      end
    end
    assert.is_true(ends >= KILLS / 50, ("only %d runs ended"):format(ends))
    print(("  %d kills, %d runs ended"):format(KILLS, ends))
  end)
end)

-- Training whose power goes at any instant: whatever was not synced is lost, all of it or a random
-- part (support/faults.c), and an acknowledged commit is there.
--
-- POWER (losses), SEED and FROM come from the environment; `make torture` sets them.
local faults = require "tests.support.faults"
local runs = require "tests.support.runs"
local shell = require "tests.support.shell"

local LOSSES, SEED, FROM = faults.number("POWER", 100), faults.seed(), faults.number("FROM", 1)

describe("training whose power goes again and again", function()
  local dir = shell.directory()
  local work, record = dir .. "/work", dir .. "/record"
  local store = work .. "/store"
  local all

  setup(function()
    shell.run("mkdir " .. work)
    all = runs.both(dir)
    for _, run in ipairs(all) do
      local status, out, errors, counts = faults.run({ dir = work, plan = "nosync" }, run:command(store))
      assert.equal(0, status, out .. errors)
      run.calls = counts
      shell.run("rm -rf " .. store)
    end
  end)

  it("is at an acknowledged commit or the one under way, and ends as if nothing had been", function()
    print(("  seed %d, %d losses"):format(SEED, LOSSES))
    local last, life, ends = nil, 0, 0
    for loss = FROM, FROM + LOSSES - 1 do
      local run = all[1 + life % 2]
      local random = faults.random(SEED * 100003 + loss)
      -- The power goes before or after a call; if the run ends first, right after its end.
      local plan = "nosync " .. faults.kill_plan(random, run.calls)
      local part = random(3) > 0 and random(1000000) or nil
      local status, said, errors = faults.run({ dir = work, plan = plan, record = record },
        run:command(store))
      local context = ("SEED=%d FROM=%d: %s, %s"):format(SEED, loss, run.name, plan)
      assert.is_true(status == 137 or status == 0, context .. ": " .. said .. errors)
      context = context .. (", part %s: "):format(tostring(part)) .. faults.recover(work, record, part)
      local now, problem = run:check(store, said, last)
      assert.is_not_false(now, context .. ": " .. tostring(problem))
      last = now
      if status == 0 then
        local good, why = run:finished(store)
        assert.is_true(good, context .. ": " .. tostring(why))
        ends, life, last = ends + 1, life + 1, nil
        shell.run("rm -rf " .. store .. "*")
      end
      if loss % 100 == 0 then print(("  seed %d: %d losses, %d runs ended"):format(SEED, loss, ends)) end
    end
    assert.is_true(ends >= LOSSES / 50, ("only %d runs ended"):format(ends))
    print(("  %d losses, %d runs ended"):format(LOSSES, ends))
  end)
end)

-- The online loop over a pipe: killed, fed again from its committed position, every sample is
-- learned exactly once.
local json = require "dkjson"

local shell = require "tests.support.shell"

local PROGRAM = shell.program
local SAMPLES, KILLS = 200000, 5

local function run(command)
  local status, out, errors = shell.run(command)
  return out .. errors, status
end

describe("moonrock learn over a pipe", function()
  local dir = shell.directory()
  local data = dir .. "/train.svm"

  setup(function()
    run(("%s datasets/synthetic.lua --seed 9 --train %d --test 10 --out %s --format libsvm"):format(
      PROGRAM, SAMPLES, dir))
  end)

  local function learn(store, from, wrapper)
    return run(("tail -n +%d %s | %s %s learn fm --source - --format libsvm --set dim=4 --store %s "
      .. "--batch 128 --commit-every 100 --json"):format(from + 1, data, wrapper or "", PROGRAM, store))
  end

  local function position(store)
    local text, status = run(("%s info --store %s --json"):format(PROGRAM, store))
    if status ~= 0 then return 0, text end
    local info = assert(json.decode(text), text)
    return info.position.samples, info.digest
  end

  it("ends with the digest of a run never killed, after five kills", function()
    local clock = require("moonrock.ffi").mr_clock
    local whole, again = dir .. "/whole", dir .. "/again"
    local began = clock()
    local out, status = learn(whole, 0)
    assert.equal(0, status, out)
    local seconds = clock() - began
    local samples, digest = position(whole)
    assert.equal(SAMPLES, samples)

    local at, wait = 0, seconds / (KILLS + 2)
    for kill = 1, KILLS do
      local _, killed = learn(again, at, shell.killed_after(wait))
      assert.equal(137, killed, "kill " .. kill)
      local now, problem = position(again)
      assert.is_true(now >= at, problem)
      if now == at then wait = 1.4 * wait end -- killed before its first commit
      at = now
    end
    assert.is_true(at > 0)
    out, status = learn(again, at)
    assert.equal(0, status, out)
    local end_samples, end_digest = position(again)
    assert.equal(SAMPLES, end_samples)
    assert.equal(digest, end_digest)
  end)
end)

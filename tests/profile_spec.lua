-- Where the time of training goes.
local json = require "dkjson"
local profile = require "moonrock.profile"
local shell = require "tests.support.shell"
local C = require "moonrock.ffi"

describe("a profile", function()
  it("of a training run has all parts of a step, which add up to its time", function()
    local dir = shell.directory()
    local status, out, errors = shell.moonrock("train", "deepfm", "--schema", "census", "--store", dir .. "/s",
      "--epochs", "2", "--set", "clip_norm=10", "--commit-every", "20", "--profile", "--json")
    assert.equal(0, status, errors)
    local events = {}
    for line in out:gmatch "[^\n]+" do
      local event = json.decode(line)
      events[event.event] = event
    end
    local sum, seen = 0, {}
    for _, part in ipairs(events.profile.parts) do
      sum = sum + part.seconds
      seen[part.name .. (part.direction or "")] = part
    end
    assert.near(events.profile.seconds, sum, 0.01) -- rounded
    local trained = events.epoch.seconds * events.epoch.epoch
    assert.is_true(sum > 0.5 * trained, ("%g of %g"):format(sum, trained))
    for _, name in ipairs { "read: waiting for a batch", "pull: dedupe, find", "pull: occurrences, rows",
      "push: clipping", "push: rows", "push: params", "commit", "linearforward", "linearbackward", "fmforward",
      "lossbackward", "Lua and the rest" } do
      assert.is_truthy(seen[name], name)
    end
    assert.equal(events.result.steps, seen["push: rows"].calls)
    assert.equal(3 * events.result.steps, seen.linearforward.calls) -- none of the evaluation
  end)

  it("leaves out what comes between pause and resume, and is a table on a terminal", function()
    local function work(seconds)
      local till = C.mr_clock() + seconds
      while C.mr_clock() < till do end
    end
    profile.start()
    work(0.02)
    assert.equal(1, C.mr_profile_pause())
    work(0.3)
    C.mr_profile_resume()
    work(0.02)
    local e = profile.finish()
    assert.is_true(e.seconds >= 0.04 and e.seconds < 0.2, tostring(e.seconds))
    assert.equal(0, C.mr_profile_pause())
    local status, out = shell.moonrock("train", "lr", "--schema", "census", "--store",
      shell.directory() .. "/s", "--epochs", "1", "--profile")
    assert.equal(0, status)
    assert.is_truthy(out:find("part +seconds +share +calls +us a call\n"), out)
    assert.is_truthy(out:find("\nforward sum +[%d.]+ +[%d.]+%% +%d+ +[%d.]+\n"), out)
  end)
end)

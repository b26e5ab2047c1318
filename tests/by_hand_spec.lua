-- A loop by hand that goes on after mr.fit and mr.learn has the model's own settings.
local mr = require "moonrock"
local shell = require "tests.support.shell"

local dir = shell.directory()
local lines = {}
for i = 1, 64 do lines[i] = ("%d %d:1 %d:2"):format(i % 2, i % 5 + 1, i % 7 + 10) end
local DATA = shell.write(dir .. "/a.libsvm", table.concat(lines, "\n") .. "\n")

local function open(store, options)
  options = options or {}
  options.store, options.on_notice, options.optim = store, function() end, mr.optim.sgd { lr = 0.5 }
  options.data = mr.data { files = DATA }
  return mr.model("by_hand", function(m)
    local t = m:table("t", { w = { dim = 1 } })
    return function(x) return t(x).w:sum() end
  end)(options)
end

local function by_hand(model, steps)
  local batches = mr.data { files = DATA }:batches(nil, { size = 4 })
  for _ = 1, steps do
    local batch = batches()
    mr.bce(model(batch), batch.label):backward()
    model:step()
  end
  batches:close()
end

local function norm(model)
  local sum = 0
  for key = 1, 20 do sum = sum + model.tables[1]:peek(key, "w")[1] ^ 2 end
  return math.sqrt(sum)
end

-- What a loop does, and ends by an error of the user's own.
local LOOPS = {
  ["mr.fit"] = function(model, o) o.train, o.size, o.epochs = DATA, 4, 1 mr.fit(model, o) end,
  ["mr.learn"] = function(model, o) mr.learn(model, DATA, o) end,
  ["mr.fit, which its caller ended"] = function(model, o)
    o.train, o.size, o.epochs, o.on_step = DATA, 4, 1, function() error "enough" end
    assert.is_false((pcall(mr.fit, model, o)))
  end,
  ["mr.learn, which its caller ended"] = function(model, o)
    o.on_batch = function() error "enough" end
    assert.is_false((pcall(mr.learn, model, DATA, o)))
    model:skip()
  end,
}

for name, loop in pairs(LOOPS) do
  describe("A loop by hand after " .. name, function()
    it("commits", function()
      local store = dir .. "/" .. name:gsub("%W", "_")
      local model = open(store, { commit_every = 2 })
      loop(model, {})
      model:commit()
      by_hand(model, 8)
      assert.is_true(model.batches_since < 8, model.batches_since) -- one was begun
      model:close()
    end)

    it("has the model's own bounds of gradients", function()
      local model = open()
      loop(model, { clip_norm = 1e-9 })
      local before = norm(model)
      assert.is_true(before < 1e-6)
      by_hand(model, 4)
      assert.is_true(norm(model) > 0.01)
      model:close()
      local bound = open(nil, { clip_norm = 1e-9 })
      loop(bound, {})
      by_hand(bound, 4)
      assert.is_true(norm(bound) < 1e-6)
      bound:close()
    end)

    it("takes batches that are not finite as the model's steps do", function()
      local model = open()
      loop(model, { on_nan = "skip" })
      local batches = mr.data { files = DATA }:batches(nil, { size = 4 })
      local batch = batches()
      local ok = pcall(function() (mr.bce(model(batch), batch.label) * (0 / 0)):backward() end)
      assert.is_false(ok)
      batches:close()
      model:close()
    end)
  end)
end

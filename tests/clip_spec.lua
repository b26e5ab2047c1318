-- Gradient clipping, against float64 by definition. With sgd at a rate of 1 a step is the clipped gradient.
local mr = require "moonrock"
local batches = require "tests.support.batches"
local refused = require "tests.support.refused"
local shell = require "tests.support.shell"

local SAMPLES = { { { 7 }, { 3 }, { 9 } }, {}, { { 3 }, { 3 }, { 5 } }, { { 7 } } } -- of batches.sets()
local LABELS = { 0, 0, 1, 0 }
local COLUMNS = { u = { dim = 1, init = mr.init.normal(0.3) }, w = { dim = 1, init = mr.init.normal(0.3) } }

-- z = s sum_e (w + w + u), the same rows looked up twice; s a dense weight, b one that is added.
local function definition(options)
  options = options or {}
  return mr.model("linear", function(m)
    local row = m:table("t", COLUMNS, { clip_each = options.table, admission = options.admission })
    local s = m:param("s", { 1 }, { init = mr.init.constant(1.5), clip_each = options.s })
    local b = m:param("b", { 1 }, { init = mr.init.constant(0.25) })
    return function(x)
      local r, again = row(x), row(x)
      return (r.w:sum() + again.w:sum() + r.u:sum()) * s + b
    end
  end, { optim = mr.optim.sgd { lr = 1 }, loss = "mse" })
end

local function weights(model)
  local all = { s = model.params[1]:weight(1), b = model.params[2]:weight(1) }
  for key = 1, 9 do
    for name in pairs(COLUMNS) do all[name .. key] = model.tables[1]:peek(key, name)[1] end
  end
  return all
end

-- The gradients of the mean of (z - y)^2, by the names of the weights.
local function gradients(w)
  local g = { s = 0, b = 0 }
  for i, sample in ipairs(SAMPLES) do
    local sum = 0
    for _, entry in ipairs(sample) do sum = sum + 2 * w["w" .. entry[1]] + w["u" .. entry[1]] end
    local dz = 2 * (w.s * sum + w.b - LABELS[i]) / #SAMPLES
    g.s, g.b = g.s + dz * sum, g.b + dz
    for _, entry in ipairs(sample) do
      local key = entry[1]
      g["w" .. key] = (g["w" .. key] or 0) + 2 * dz * w.s
      g["u" .. key] = (g["u" .. key] or 0) + dz * w.s
    end
  end
  return g
end

local function norm(g, which)
  local sum = 0
  for name, value in pairs(g) do
    if not which or which(name) then sum = sum + value ^ 2 end
  end
  return math.sqrt(sum)
end

local function of_table(name) return #name == 2 end

local function clip(g, bound, which)
  local by = math.min(1, bound / (norm(g, which) + 1e-6))
  for name, value in pairs(g) do
    if not which or which(name) then g[name] = value * by end
  end
  return by
end

-- One step of a model, its gradients scaled by hand; what each weight moved by is held against the gradients.
local function check(model, expect, scale)
  local before = weights(model)
  local batch = batches.sets()
  local g = gradients(before)
  expect(g)
  mr.mse(model(batch), batch.label):backward()
  if scale then model:scale_gradients(scale) end
  model:step()
  local after = weights(model)
  for name, value in pairs(before) do
    assert.near(g[name] or 0, value - after[name], 2e-6, name) -- weights of up to 6, in floats
  end
  model:close()
end

describe("clipping", function()
  it("is none without bounds, or below them", function()
    check(definition() {}, function() end)
    check(definition() { clip_norm = 100, clip_each = 100, clip_value = 100 }, function() end)
  end)

  it("scales all gradients to a norm, each row once", function()
    check(definition() { clip_norm = 0.5 }, function(g)
      assert.is_true(clip(g, 0.5) < 0.9)
      assert.near(0.5, norm(g), 1e-5)
    end)
  end)

  it("scales tables and params by themselves", function()
    check(definition() { clip_each = 0.3 }, function(g)
      assert.is_true(clip(g, 0.3, of_table) < 0.9)
      for _, param in ipairs { "s", "b" } do clip(g, 0.3, function(name) return name == param end) end
    end)
    check(definition { table = 0.2, s = 0.01 } {}, function(g)
      clip(g, 0.2, of_table)
      assert.is_true(clip(g, 0.01, function(name) return name == "s" end) < 0.9)
    end)
  end)

  it("holds coordinates within a value", function()
    check(definition() { clip_value = 0.1 }, function(g)
      local held = 0
      for name, value in pairs(g) do
        g[name] = math.max(-0.1, math.min(0.1, value))
        held = held + (g[name] ~= value and 1 or 0)
      end
      assert.is_true(held >= 3)
    end)
  end)

  it("holds coordinates within a value as they are after they were scaled", function()
    check(definition() { clip_value = 0.1 }, function(g)
      local held, free = 0, 0
      for name, value in pairs(g) do
        g[name] = math.max(-0.1, math.min(0.1, value / 8))
        if math.abs(value) > 0.8 then held = held + 1 elseif math.abs(value) > 0.1 then free = free + 1 end
      end
      assert.is_true(held >= 1 and free >= 1, ("%d, %d"):format(held, free))
    end, 1 / 8)
  end)

  it("does all three, one after another", function()
    check(definition { table = 0.2 } { clip_value = 0.15, clip_each = 0.1, clip_norm = 0.15 }, function(g)
      for name, value in pairs(g) do g[name] = math.max(-0.15, math.min(0.15, value)) end
      clip(g, 0.2, of_table)
      for _, param in ipairs { "s", "b" } do clip(g, 0.1, function(name) return name == param end) end
      assert.is_true(clip(g, 0.15) < 1)
    end)
  end)

  it("leaves out keys that are not admitted", function()
    check(definition { admission = { count = 3 } } { clip_norm = 0.1 }, function(g)
      for name in pairs(g) do
        if of_table(name) then g[name] = nil end -- each key was seen twice
      end
      assert.near(0, g.s, 0)
      clip(g, 0.1)
    end)
  end)

  it("gives the same bits at any number of threads, and is kept by the store", function()
    local dir, digests = shell.directory(), {}
    for threads = 1, 3 do
      local store = dir .. "/" .. threads
      for run = 1, 2 do
        local bound = run == 1 and 0.5 or nil
        local model = definition() { store = store, threads = threads, clip_norm = bound, clip_each = bound }
        assert.same({ clip_norm = 0.5, clip_each = 0.5 }, model.clip)
        for _ = 1, 4 do
          local batch = batches.large()
          mr.mse(model(batch), batch.label):backward()
          model:step()
        end
        model:commit()
        digests[threads] = model:info().digest
        model:close()
      end
    end
    assert.equal(digests[1], digests[2])
    assert.equal(digests[1], digests[3])
  end)

  it("refuses bounds that are none, and gradients that are not finite", function()
    refused(function() definition() { clip_norm = 0 } end, "model linear: clip_norm is 0, expected a number above 0")
    refused(function() definition { table = "a" } {} end, 'table "t": clip_each is a, expected a number above 0')
    local model = mr.model("huge", function(m)
      local row = m:table("t", { w = { dim = 1, init = mr.init.constant(2e38) } })
      local s = m:param("s", { 1 }, { init = mr.init.constant(1e-37) })
      return function(x) return row(x).w:sum() * s end
    end, { loss = "mse" }) { clip_norm = 1 }
    local batch = batches.build({ { { 1 } } }, { fields = 1 })
    batch.epoch = 0
    mr.mse(model(batch), batch.label):backward()
    refused(function() model:step() end, "not finite")
    model:close()
  end)
end)

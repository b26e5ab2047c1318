-- L2 and decay over whole tables: rows pay for the steps that they idled when they are looked up next. Held
-- against float64 loops that update every row in every step.
local ffi = require "ffi"
local mr = require "moonrock"
local C = require "moonrock.ffi"
local batches = require "tests.support.batches"
local refused = require "tests.support.refused"
local shell = require "tests.support.shell"
local random = require "tests.support.random"

local KEYS, LR, TWO = 40, 0.05, 0.7 -- TWO: what the learning rate becomes after step 130

-- The update rules by definition. s is a weight's state, t its updates so far, lr that of the step.
local RULES = {
  sgd = function(o, s, g, lr) s.w = s.w - lr * (g + o.l2 * s.w) end,
  momentum = function(o, s, g, lr)
    s.u = o.momentum * (s.u or 0) + g + o.l2 * s.w
    s.w = s.w - lr * s.u
  end,
  adagrad = function(o, s, g, lr)
    g = g + o.l2 * s.w
    s.sum = (s.sum or o.init) + g * g
    s.w = s.w - lr * g / (math.sqrt(s.sum) + o.eps)
  end,
  adam = function(o, s, g, lr, t)
    g = g + o.l2 * s.w
    if o.decay then s.w = s.w * (1 - lr * o.decay) end
    s.m = o.beta1 * (s.m or 0) + (1 - o.beta1) * g
    s.v = o.beta2 * (s.v or 0) + (1 - o.beta2) * g * g
    s.w = s.w - lr * s.m / (1 - o.beta1 ^ t) / (math.sqrt(s.v / (1 - o.beta2 ^ t)) + o.eps)
  end,
}

local opt = mr.optim
local table_l2 = { l2_scope = "table", l2 = 0.02, lr = LR }
local function with(more)
  local settings = {}
  for _, from in ipairs { table_l2, more } do
    for name, value in pairs(from) do settings[name] = value end
  end
  return settings
end
local CASES = {
  sgd = { opt.sgd(with {}), RULES.sgd },
  ["sgd with momentum"] = { opt.sgd(with { momentum = 0.8 }), RULES.momentum },
  adagrad = { opt.adagrad(with { init = 0.1 }), RULES.adagrad },
  adam = { opt.adam(with { eps = 1e-3 }), RULES.adam },
  ["adam by global steps"] = { opt.adam(with { eps = 1e-3, bias_correction = "global" }), RULES.adam },
  ["adamw, l2 and decay"] = { opt.adamw(with { eps = 1e-3, decay = 0.03, decay_scope = "table" }), RULES.adam },
  ["adamw, decay alone"] = { opt.adamw { lr = LR, eps = 1e-3, decay = 0.03, decay_scope = "table" }, RULES.adam,
    decay_alone = true },
}

-- Every third step has no use for v.
local with_v = true
local function make(rule)
  return mr.model("linear", function(m)
    local row = m:table("t", {
      w = { dim = 1, init = mr.init.normal(0.3) },
      v = { dim = 1, init = mr.init.normal(0.3) },
    })
    return function(x)
      local r = row(x)
      return with_v and r.w:sum() + r.v:sum() or r.w:sum()
    end
  end, { optim = rule, loss = "mse" })
end

-- Batches of a few keys, rare and frequent ones.
local function batch_of(draw)
  local samples = {}
  for s = 1, 3 do
    samples[s] = {}
    for e = 1, 2 do samples[s][e] = { math.floor(draw() ^ 4 * KEYS) } end
  end
  return batches.build(samples, { fields = 2 }), samples
end

local function learn(model, batch)
  mr.mse(model(batch), batch.label):backward()
  model:step()
end

-- Trains steps from .. to; batches are functions of their step.
local function train(model, from, to, each)
  for step = from, to do
    if step == 131 then model:scale_lr(TWO) end
    with_v = step % 3 ~= 0
    local batch, samples = batch_of(random(step * 7919 + 1))
    if each then each(step, batch, samples) end
    learn(model, batch)
  end
  with_v = true
end

-- The weights that training by definition gives.
local Reference = {}
Reference.__index = Reference

local function reference(model, case)
  local r = setmetatable({ o = case[1], rule = case[2], decay_alone = case.decay_alone, step_number = 0,
    w = {}, v = {} }, Reference)
  for key = 0, KEYS - 1 do
    for _, c in ipairs { "w", "v" } do
      r[c][key] = { w = model.tables[1]:peek(key, c)[1], t = 0 }
    end
  end
  return r
end

function Reference:logit(sample)
  local z = 0
  for _, entry in ipairs(sample) do
    z = z + self.w[entry[1]].w + (with_v and self.v[entry[1]].w or 0)
  end
  return z
end

function Reference:step(samples)
  self.step_number = self.step_number + 1
  local gradient, o, lr = {}, self.o, self.o.lr * (self.step_number > 130 and TWO or 1)
  for s, sample in ipairs(samples) do
    local label = s % 3 == 0 and 1 or 0
    for _, entry in ipairs(sample) do
      gradient[entry[1]] = (gradient[entry[1]] or 0) + 2 * (self:logit(sample) - label) / #samples
    end
  end
  for _, c in ipairs { "w", "v" } do
    for key, s in pairs(self[c]) do
      local g = (c == "w" or with_v) and gradient[key]
      if self.decay_alone and s.t > 0 and not g then
        s.w = s.w * (1 - lr * o.decay)
      elseif g or s.t > 0 then
        s.t = s.t + 1
        self.rule(o, s, g or 0, lr, o.bias_correction == "global" and self.step_number or s.t)
      end
    end
  end
end

local function digest(rule, options)
  local model = make(rule)(options)
  train(model, 1, 300)
  model:commit()
  local hex = model:info().digest
  model:close()
  return hex
end

describe("l2 and decay over whole tables", function()
  for name, case in pairs(CASES) do
    it("is what updating every row in every step gives: " .. name, function()
      local model = make(case[1]) {}
      local r = reference(model, case)
      train(model, 1, 400, function(step, batch, samples)
        model:eval()
        local logits = model(batch)
        for s, sample in ipairs(samples) do
          assert.near(r:logit(sample), logits:get(s), 2e-5, ("step %d"):format(step))
        end
        model:train()
        r:step(samples)
      end)
      for key = 0, KEYS - 1 do
        for _, c in ipairs { "w", "v" } do -- 400 float steps of about 1e-8 each
          assert.near(r[c][key].w, model.tables[1]:peek(key, c)[1], 1e-5, c .. key)
        end
      end
      model:close()
    end)

    it("is resumed to the bit, at any number of threads and budget: " .. name, function()
      local dir = shell.directory()
      local whole = digest(case[1], { store = dir .. "/whole", threads = 2, commit_every = 1000 })
      assert.equal(whole, digest(case[1], { store = dir .. "/one", threads = 1, commit_every = 7 }))
      assert.equal(whole, digest(case[1], { store = dir .. "/cold", cold = true, commit_every = 9 }))
      local from = 1
      for _, to in ipairs { 60, 133, 134, 300 } do
        local model = make(case[1]) { store = dir .. "/parts", cold = to % 2 == 0, commit_every = 1000 }
        train(model, from, to)
        model:commit()
        from = to + 1
        if to == 300 then assert.equal(whole, model:info().digest) end
        model:close()
      end
    end)
  end

  it("is the same for all weights of a row, however wide", function()
    for _, optim in ipairs { opt.adam(with { eps = 1e-3 }), opt.adagrad(with { init = 0.1 }) } do
      local model = mr.model("wide", function(m)
        local row = m:table("t", { v = { dim = 37, init = mr.init.constant(0.5) } })
        return function(x) return row(x).v:sum():sum(2, true) end
      end, { optim = optim }) {}
      for step = 1, 40 do
        local batch = batches.build({ { { step % 20 == 1 and 1 or 2 } } }, { fields = 1 })
        model(batch):sum():backward()
        model:step()
      end
      local w, state = model.tables[1]:peek(1, "v")
      for k = 2, 37 do
        assert.equal(w[1], w[k])
        for i = k, #state, 37 do assert.equal(state[i - k + 1], state[i]) end
      end
      model:close()
    end
  end)

  it("shows scorers and followers the weights of now, and writes nothing", function()
    local dir = shell.directory()
    local definition = make(CASES.adam[1])
    local model = definition { store = dir .. "/store", commit_every = 1000 }
    train(model, 1, 40)
    model:commit()
    local before = model:info().digest
    local follower = definition { store = dir .. "/store", follow = true }
    for round = 1, 2 do
      local batch = batch_of(random(5))
      model:eval()
      local a, b = model(batch), follower(batch)
      for s = 1, 3 do assert.equal(a:get(s), b:get(s)) end
      model:train()
      local told = model:info()
      assert.equal(before, told.digest)
      assert.equal(0, told.tables[1].dirty)
      if round == 1 then
        local seen, idle = a:get(1), model.tables[1]:peek(1000, "w")[1]
        local other = batches.build({ { { 1000 }, { 1001 } } }, { fields = 2 })
        for _ = 1, 30 do learn(model, other) end
        assert.equal(idle, follower.tables[1]:peek(1000, "w")[1]) -- a fresh row owes nothing
        model:eval()
        assert.not_equal(seen, model(batch):get(1))
        model:train()
        model:commit()
        before = model:info().digest
        assert.is_true(follower:refresh())
      end
    end
    follower:close()
    model:close()
  end)

  it("counts from the step that the setting came in", function()
    local dir = shell.directory()
    local touched = mr.optim.sgd { lr = LR, l2 = 0.02 }
    local model = make(touched) { store = dir .. "/store", commit_every = 1000 }
    train(model, 1, 50)
    local before = model.tables[1]:peek(KEYS - 5, "w")[1]
    model:commit()
    model:close()
    model = make(CASES.sgd[1]) { store = dir .. "/store", commit_every = 1000 }
    assert.equal(before, model.tables[1]:peek(KEYS - 5, "w")[1])
    model:close()
  end)

  it("keeps learning rates that change in every step, bounded", function()
    local rule = mr.optim.sgd { lr = LR, l2 = 0.02, l2_scope = "table", idle_steps = 20 }
    local model = make(rule) {}
    learn(model, batches.build({ { { 1 }, { 2 } } }, { fields = 2 }))
    local w, len = model.tables[1]:peek(1, "w")[1], ffi.new "size_t[1]"
    local other = batches.build({ { { 3 }, { 4 } } }, { fields = 2 })
    for step = 2, 500 do
      local factor = 1 / (1 + step / 100)
      model:scale_lr(factor)
      learn(model, other)
      w = w * (1 - LR * factor * 0.02)
      if step == 12 then assert.near(w, model.tables[1]:peek(1, "w")[1], 1e-6) end
      C.mr_table_rates(model.tables[1].c, 1, len)
      assert.is_true(len[0] <= 16 * 42)
    end
    assert.near(w, model.tables[1]:peek(1, "w")[1], 2e-4) -- their mean is over step 1, too
    model:close()
  end)

  it("replays the last idle_steps steps", function()
    local weight = {}
    for _, steps in ipairs { 10, 30 } do
      local model = make(mr.optim.adagrad { lr = 0.001, l2 = 0.5, l2_scope = "table", idle_steps = steps }) {}
      learn(model, batches.build({ { { 1 }, { 2 } } }, { fields = 2 }))
      local before = model.tables[1]:peek(1, "w")[1]
      local other = batches.build({ { { 3 }, { 4 } } }, { fields = 2 })
      for _ = 1, 30 do learn(model, other) end
      local now, _, updates = model.tables[1]:peek(1, "w")
      assert.equal(31, updates)
      weight[steps] = math.abs(before) - math.abs(now[1])
      model:close()
    end
    assert.is_true(weight[10] > 0 and weight[30] > 2 * weight[10])
  end)

  it("refuses what it cannot do", function()
    refused(function() mr.optim.adam { l2_scope = "rows" } end,
      'optimizer adam: l2_scope is "rows", expected one of table, touched')
    refused(function() mr.optim.ftrl { l2_scope = "table" } end, 'no setting "l2_scope"')
    refused(function() make(mr.optim.adam { l2_scope = "table", idle_steps = 0 }) {} end,
      "table t, column v: idle_steps is 0, expected 1 to 1048576")
  end)
end)

-- Every optimizer against its definition in float64 (tests/support/optimizers.lua) and against PyTorch's
-- (tests/fixtures/optimizers.lua), as rows of a table and as dense weights.
local ffi = require "ffi"
local mr = require "moonrock"
local optimizers = require "tests.support.optimizers"
local fixtures = require "tests.fixtures.optimizers"
local stream = require "tests.support.random"

local float = ffi.new "float[1]"
local function as_float(x)
  float[0] = x
  return float[0]
end

-- |a - b| <= 1e-5 max(|b|, rms of b): what a thousand roundings to 24 bits may come to.
local function compare(what, ours, theirs)
  local square, n = 0, 0
  for _, row in ipairs(theirs) do
    for _, b in ipairs(row) do square, n = square + b * b, n + 1 end
  end
  for r, row in ipairs(theirs) do
    local a = ours.weights(r)
    for i, b in ipairs(row) do
      if not (math.abs(a[i] - b) <= 1e-5 * math.max(math.abs(b), math.sqrt(square / n))) then
        error(("%s, row %d, weight %d: %.9g, expected %.9g"):format(what, r, i, a[i], b))
      end
      assert(true) -- it was compared
    end
  end
end

local STEPS, ROWS, MARGIN = 1000, 12, 1e-5

local function text(o, settings)
  local list = {}
  for name, value in pairs(settings) do list[#list + 1] = ("%s = %s"):format(name, tostring(value)) end
  table.sort(list)
  return o.rule .. (list[1] and " { " .. table.concat(list, ", ") .. " }" or "")
end

-- Trains both, and returns how many weights were exactly 0 over time. A gradient that leads to where
-- roundings could decide is drawn again.
local function train(o, form, dim, seed)
  local random = stream(seed)
  local ours = optimizers[form](o, ROWS, dim, mr.init.normal(0.05))
  local rows, zeros = {}, 0
  for r = 1, ROWS do rows[r] = { w = ours.weights(r) } end
  for step = 1, STEPS do
    local g = {}
    for r = 1, ROWS do
      local touched = random() < 0.3
      while touched or form == "param" do
        local draw = {}
        for i = 1, dim do draw[i] = touched and as_float(4 * (random() - 0.5) ^ 3 + 0.05 * rows[r].w[i]) or 0 end
        local after, margin = optimizers.updated(o, step, form == "param", rows[r], draw)
        if margin > MARGIN then
          rows[r], g[r] = after, draw
          break
        end
        touched = true
      end
    end
    ours.step(step, g)
    if step % 100 == 0 then
      local weights = {}
      for r = 1, ROWS do
        weights[r] = rows[r].w
        local a = ours.weights(r)
        for i = 1, dim do
          assert((a[i] == 0) == (rows[r].w[i] == 0), "a weight is 0 in one of the two only")
          if a[i] == 0 then zeros = zeros + 1 end
        end
      end
      compare(("%s of dim %d, step %d"):format(form, dim, step), ours, weights)
    end
  end
  ours.free()
  return zeros / (ROWS * dim * STEPS / 100)
end

local CASES = {
  { "sgd", { lr = 0.05 } }, { "sgd", { lr = 0.05, l2 = 0.1 } }, { "sgd", { lr = 0.05, l1 = 0.03 } },
  { "sgd", { momentum = 0.9 } }, { "sgd", { momentum = 0.9, nesterov = true, l2 = 0.01 } },
  { "sgd", { lr = 0.05, momentum = 0.5, l1 = 0.05 } },
  { "adagrad", {} }, { "adagrad", { init = 0.1, l2 = 0.01 } }, { "adagrad", { l1 = 0.03, init = 0.1 } },
  { "adagrad", { group = 0.03, init = 0.1 } }, { "adagrad", { l1 = 0.01, group = 0.02, init = 0.1 } },
  { "adagrad", { fade_every = 10, init = 0.1 } },
  { "row_adagrad", {} }, { "row_adagrad", { init = 0.1, l2 = 0.01, fade_every = 7, fade = 0.5 } },
  { "row_adagrad", { l1 = 0.03, init = 0.1 } }, { "row_adagrad", { group = 0.03, init = 0.1 } },
  { "adam", {} }, { "adam", { l2 = 0.01, bias_correction = "global" } },
  { "adamw", {} }, { "adamw", { decay = 0.1, bias_correction = "global" } },
  { "amsgrad", {} }, { "amsgrad", { l2 = 0.01, decay = 0.1 } },
  { "lion", {} }, { "lion", { lr = 1e-3, decay = 0.1 } },
  { "rmsprop", {} }, { "rmsprop", { momentum = 0.9, l2 = 0.01 } },
  { "centered_rmsprop", {} }, { "centered_rmsprop", { momentum = 0.9, l2 = 0.01 } },
  { "ftrl", {} }, { "ftrl", { lr = 1, l1 = 2, l2 = 0.1 } }, { "ftrl", { lr = 1, group = 2, l2 = 0.1 } },
  { "ftrl", { lr = 1, l1 = 1, group = 1, beta = 0.5 } },
}

describe("an optimizer agrees with float64 by definition over 1000 steps:", function()
  for number, case in ipairs(CASES) do
    it(text(mr.optim[case[1]](), case[2]), function()
      local zeros = 0
      for _, form in ipairs { "table", "param" } do
        for _, dim in ipairs { 1, 19 } do
          local o = mr.optim[case[1]](case[2])
          if o.group then o.group = o.group * math.sqrt(dim) end
          local z = train(o, form, dim, 1000 * number + dim)
          zeros = zeros + z / 4
        end
      end
      if case[2].l1 or case[2].group then
        assert.is_true(zeros > 0.05 and zeros < 0.95)
      else
        assert.equal(0, zeros)
      end
    end)
  end
end)

describe("an optimizer agrees with PyTorch's:", function()
  for _, case in ipairs(fixtures) do
    local o = mr.optim[case.rule](case.settings)
    it(text(o, case.settings) .. (case.sparse and ", sparse" or ""), function()
      for _, form in ipairs { "table", not case.sparse and "param" or nil } do
        local random = stream(fixtures.seed)
        local ours = optimizers[form](o, fixtures.rows, fixtures.dim, mr.init.constant(0.5))
        local taken = 0
        for step = 1, fixtures.steps do
          local g, any = {}, false
          for r = 1, fixtures.rows do
            local touched = random() < 0.5 or not case.sparse
            local draw = {}
            for i = 1, fixtures.dim do draw[i] = as_float(random() - 0.5) end
            if touched then g[r], any = draw, true end
          end
          if any then
            taken = taken + 1
            ours.step(taken, g)
          end
          local at = case.at[step]
          if at then
            local rows = {}
            for r = 1, fixtures.rows do
              rows[r] = { unpack(at, (r - 1) * fixtures.dim + 1, r * fixtures.dim) }
            end
            compare(("%s, step %d"):format(form, step), ours, rows)
          end
        end
        ours.free()
      end
    end)
  end
end)

describe("an optimizer", function()
  it("moves no weight of a model whose schedule has come to 0, and goes on after", function()
    for _, case in ipairs(CASES) do
      local o = mr.optim[case[1]](case[2])
      for _, form in ipairs { "table", "param" } do
        local ours = optimizers[form](o, 2, 3, mr.init.normal(0.5))
        local g = { { 0.5, -0.25, 1 }, { 2, 1, -1 } }
        ours.step(1, g)
        local before = { ours.weights(1), ours.weights(2) }
        ours.scale_lr(0)
        ours.step(2, g)
        assert.same(before, { ours.weights(1), ours.weights(2) })
        ours.scale_lr(1)
        ours.step(3, g)
        local after = ours.weights(2)
        for i = 1, 3 do assert.is_true(after[i] == after[i]) end
        assert.not_same(before[2], after)
        ours.free()
      end
    end
  end)

  it("of FTRL moves no weight because the learning rate was changed", function()
    for _, settings in ipairs { { l1 = 0.1, l2 = 0.1 }, { l1 = 0.1, group = 0.1 } } do
      local ours = optimizers.table(mr.optim.ftrl(settings), 1, 3, mr.init.normal(0.5))
      ours.step(1, { { 0.5, -0.25, 1 } })
      local before = ours.weights(1)
      ours.scale_lr(0.25)
      ours.step(2, { { 0, 0, 0 } })
      local after = ours.weights(1)
      for i = 1, 3 do assert.near(before[i], after[i], 1e-7) end
      ours.free()
    end
  end)

  it("by rows takes the rows of a param's last axis, however many there are", function()
    for _, o in ipairs { mr.optim.row_adagrad(), mr.optim.row_adagrad { group = 0.1 },
      mr.optim.adagrad { group = 0.1 }, mr.optim.ftrl { group = 0.1 }, mr.optim.rmsprop() } do
      local rows, dim = 2000, 19 -- more than one piece of work
      local weights = {}
      for _, form in ipairs { "param", "table" } do
        local ours = optimizers[form](o, rows, dim, mr.init.constant(0.5))
        local random = stream(5)
        for step = 1, 3 do
          local g = {}
          for r = 1, rows do
            g[r] = {}
            for i = 1, dim do g[r][i] = as_float(random() - 0.5) end
          end
          ours.step(step, g)
        end
        weights[form] = {}
        for r = 1, rows, 37 do weights[form][r] = ours.weights(r) end
        ours.free()
      end
      assert.same(weights.table, weights.param)
    end
  end)

  it("is refused settings that it has not, or out of range, by name", function()
    for message, make in pairs {
      ['optimizer lion has no setting "l2", expected beta1, beta2, decay, decay_scope, idle_steps, lr'] =
        function() mr.optim.lion { l2 = 1 } end,
      ["optimizer sgd: nesterov is 1, expected a boolean"] = function() mr.optim.sgd { nesterov = 1 } end,
      ['optimizer adam: bias_correction is "rows", expected one of global, row'] =
        function() mr.optim.adam { bias_correction = "rows" } end,
      ["optimizer adagrad: fade_every is 2.5, expected a whole number"] =
        function() mr.optim.adagrad { fade_every = 2.5 } end,
      ["p: nesterov looks ahead along the momentum, which is 0"] =
        function() optimizers.param(mr.optim.sgd { nesterov = true }, 1, 1) end,
      ["table t, column w: fade_every is -1, expected a whole number from 0"] =
        function() optimizers.table(mr.optim.adagrad { fade_every = -1 }, 1, 1) end,
      ["p: group is -1, expected a number from 0 to below inf"] =
        function() optimizers.param(mr.optim.ftrl { group = -1 }, 1, 1) end,
    } do
      local ok, problem = pcall(make)
      assert.is_false(ok)
      assert.truthy(problem:find(message, 1, true), problem)
    end
  end)
end)

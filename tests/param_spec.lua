-- Dense params: fresh weights, one update a step, bytes for the store.
local C = require "moonrock.ffi"
local Param = require "moonrock.param"
local layers = require "moonrock.layers"
local mr = require "moonrock"
local raises = require "tests.support.raises"
local tape = require "moonrock.tape"

local function weights(p)
  local list = {}
  for i = 1, p:size() do list[i] = p:weight(i) end
  return list
end

describe("a param", function()
  local t
  before_each(function()
    t = tape.new()
    t:begin(true, 1)
  end)
  after_each(function() t:free() end)

  it("begins the same for the same seed and name, and otherwise not", function()
    local normal = { init = mr.init.normal(0.1) }
    local a = weights(Param.new("w", 1, { 20 }, normal))
    assert.same(a, weights(Param.new("w", 1, { 20 }, normal)))
    assert.not_same(a, weights(Param.new("w", 2, { 20 }, normal)))
    assert.not_same(a, weights(Param.new("v", 1, { 20 }, normal)))
  end)

  it("is updated once a step by the sum of the gradients, and not without one", function()
    local p = Param.new("w", 1, { 2 }, { init = "ones", optim = mr.optim.sgd { lr = 0.5 } })
    assert.equal(0, C.mr_param_step(p.c, 1))
    assert.same({ 1, 1 }, weights(p))
    local loss = (p * layers.tensor({ 2 }, { 1, 3 })):sum()
    loss:backward()
    loss:backward()
    assert.same({ 1, 1 }, weights(p))
    assert.equal(0, C.mr_param_step(p.c, 1))
    assert.same({ 0, -2 }, weights(p))
    assert.equal(0, C.mr_param_step(p.c, 2))
    assert.same({ 0, -2 }, weights(p))
    assert.equal(1, C.mr_param_updates(p.c))
  end)

  it("forgets its gradient when told to", function()
    local p = Param.new("w", 1, { 1 }, { init = "ones", optim = mr.optim.sgd { lr = 0.5 } })
    p:sum():backward()
    C.mr_param_zero(p.c)
    assert.equal(0, C.mr_param_step(p.c, 1))
    assert.equal(1, p:weight(1))
  end)

  it("takes no part when it is not trainable", function()
    local p = Param.new("mean", 1, { 1 }, { init = "ones", trainable = false })
    local q = Param.new("w", 1, { 1 }, { init = "ones", optim = mr.optim.sgd { lr = 0.5 } });
    (p * q):backward()
    C.mr_param_step(p.c, 1)
    C.mr_param_step(q.c, 1)
    assert.equal(1, p:weight(1))
    assert.equal(0.5, q:weight(1))
  end)

  it("refuses a gradient that is not finite, and stays as it was", function()
    local p = Param.new("w", 1, { 2 }, { init = "ones", optim = mr.optim.sgd { lr = 0.5 } })
    local kept = weights(p)
    local corner = mr.operation { -- finite, with an infinite derivative
      name = "corner",
      forward = function(out) out[0] = 0 end,
      backward = function(grad, _, _, da) da[0] = grad[0] / 0 end,
    }
    corner(p:sum()):backward()
    assert.equal(-1, C.mr_param_step(p.c, 1))
    assert.equal("param w: its gradient is not finite", require("ffi").string(C.mr_error()))
    assert.same(kept, weights(p))
    for _, at in ipairs { 1, 16384, 16385, 20000 } do -- in whichever piece of it
      p = Param.new("w", 1, { 20000 }, { init = "ones", optim = mr.optim.sgd { lr = 0.5 } })
      corner(p:slice(1, at, at)):backward()
      assert.equal(-1, C.mr_param_step(p.c, 1), "weight " .. at)
      assert.equal(1, p:weight(1))
    end
  end)

  it("goes on to the bit from its bytes, for every optimizer and size", function()
    for _, rule in ipairs(mr.optim.rules) do
      for _, n in ipairs { 3, 40000 } do
        local options = { init = mr.init.normal(0.1), optim = mr.optim[rule]() }
        local function train(p, from, to)
          for step = from, to do
            t:begin(true, step);
            (p * p * (step % 3)):sum():backward()
            assert.equal(0, C.mr_param_step(p.c, step))
          end
        end
        local whole = Param.new("w", 1, { n }, options)
        train(whole, 1, 6)
        local first = Param.new("w", 1, { n }, options)
        train(first, 1, 3)
        local second = Param.new("w", 99, { n }, options)
        second:load(first:save())
        train(second, 4, 6)
        assert.is_true(whole:save() == second:save())
      end
    end
  end)

  it("refuses bytes of another shape, and is left as it was", function()
    local p = Param.new("w", 1, { 4 }, { optim = mr.optim.adam() })
    local kept = p:save()
    local function fails(bytes, message)
      local ok, problem = pcall(p.load, p, bytes)
      assert.is_false(ok)
      assert.matches(message, problem, 1, true)
      assert.is_true(kept == p:save())
    end
    fails(Param.new("w", 1, { 2, 2 }, { optim = mr.optim.adam() }):save(),
      "param w: its shape is [2, 2, 1, 1], expected [4, 1, 1, 1]")
    fails("short", "param w: 5 bytes, expected 112")
    fails(kept .. "more", "param w: 116 bytes, expected 112")
    fails("\2" .. kept:sub(2), "param w: its format is version 2, expected 1")
  end)

  it("begins its state anew where another setting orders it otherwise", function()
    local function ftrl(group, seed)
      return Param.new("w", seed, { 20, 3 }, { init = mr.init.normal(0.5), optim = mr.optim.ftrl { group = group } })
    end
    local blocks, rows = ftrl(0, 1), ftrl(0.5, 2)
    rows:load(blocks:save())
    assert.same(weights(blocks), weights(rows))
    assert.is_true(ftrl(0.5, 1):save() == rows:save())
    assert.equal(#blocks:save(), #rows:save())
  end)

  it("takes the weights of another optimizer, and its own state begins anew", function()
    local sgd = Param.new("w", 7, { 20000 }, { optim = mr.optim.sgd() })
    local adagrad = Param.new("w", 1, { 20000 }, { optim = mr.optim.adagrad { init = 0.5 } })
    adagrad:load(sgd:save())
    local same = Param.new("w", 7, { 20000 }, { optim = mr.optim.adagrad { init = 0.5 } })
    assert.is_true(same:save() == adagrad:save())
    for _ = 1, 3 do
      sgd:sum():backward()
      assert.equal(0, C.mr_param_step(sgd.c, 1))
    end
    adagrad:load(sgd:save())
    assert.equal(3, C.mr_param_updates(adagrad.c)) -- of the weights, whoever made them
  end)

  it("refuses a wrong shape or option", function()
    raises('param "w": expected a shape of 1 to 4 dimensions', Param.new, "w", 1, {})
    raises('param "w": dimension 1 is 2.5, expected a whole number from 1', Param.new, "w", 1, { 2.5 })
    raises('param "w": expected a shape of 1 to 4 dimensions', Param.new, "w", 1, { 1, 1, 1, 1, 1 })
    raises("lr is -1, expected a number from 0 to below inf", Param.new, "w", 1, { 2 },
      { optim = mr.optim.sgd { lr = -1 } })
  end)
end)

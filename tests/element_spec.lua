-- Element-wise operations that users write as a function of numbers.
local ffi = require "ffi"
local mr = require "moonrock"
local C = require "moonrock.ffi"
local tape = require "moonrock.tape"

local function operation(f) return mr.operation { name = "mine", element = f } end

describe("an element-wise operation", function()
  it("has the gradient of every function it is made of", function()
    local functions = {
      function(x, y) return x * y - x / (y:abs() + 1) + 2 end,
      function(x, y) return x:exp() * (y * y + 1):log() end,
      function(x, y) return (x * x + 0.5):sqrt() - y:sigmoid() * x:tanh() end,
      function(x, y) return x:max(y) * x:min(0.3) + y:relu() - -x end,
      function(x) return x end,
      function(_, y) return y * 1 end,
    }
    for i, f in ipairs(functions) do
      local leaves = debug.getinfo(f, "u").nparams == 1 and { { 3, 300 } } or { { 3, 300 }, { 3, 300 } }
      local worst, where = mr.gradcheck(operation(f), leaves)
      assert(worst < 1e-6, ("%d: %s"):format(i, where))
    end
  end)

  it("computes what the function says", function()
    local t = tape.new()
    t:begin(true, 1)
    local x = mr.tensor({ 3 }, { -1.5, 0.25, 2 }, true)
    local y = operation(function(a) return a * a:sigmoid() + (a - 1):relu() * 3 end)(x)
    for i, a in ipairs { -1.5, 0.25, 2 } do
      assert.near(a / (1 + math.exp(-a)) + math.max(a - 1, 0) * 3, y:get(i), 1e-6) -- of floats
    end
    t:free()
  end)

  it("takes the same tensor twice, and adds to gradients that are there", function()
    local twice = operation(function(a, b) return a * b end)
    assert.is_true(mr.gradcheck(function(x) return twice(x, x) + twice(x, x + 1) end, { { 5 } }) < 1e-6)
  end)

  it("gives the same bits on one thread and on two", function()
    local values = ffi.new("double[?]", 40000)
    for i = 0, 39999 do values[i] = math.sin(i) * 3 end
    local f = operation(function(x) return x * x:sigmoid() end)
    local function gradients(threads)
      C.mr_threads_set(threads)
      local t = tape.new()
      t:begin(true, 1)
      local x = mr.tensor({ 40000 }, values, true)
      f(x):sum():backward()
      local list = {}
      for i = 1, 40000, 7 do list[#list + 1] = x:gradient(i) end
      t:free()
      return list
    end
    local before = C.mr_threads()
    local one = gradients(1)
    assert.same(one, gradients(2))
    C.mr_threads_set(before)
  end)

  it("that cannot be one says why, at the user's line", function()
    local function said(f)
      local _, problem = pcall(f)
      return problem
    end
    assert.matches("element_spec.lua:%d+: operation mine: element takes 0 arguments, expected 1 to 4",
      said(function() operation(function() end) end))
    assert.matches("element_spec.lua:%d+: operation mine: expected its arguments and numbers, got a nil",
      said(function() operation(function(x) local _ = x + 1 end) end))
    assert.matches("element_spec.lua:%d+: operation mine: it takes more than 32 steps", said(function()
      operation(function(x)
        for _ = 1, 40 do x = x + x end
        return x
      end)
    end))
    local t = tape.new()
    t:begin(true, 1)
    assert.matches("operation mine: tensor 2 is %[3%], expected %[2%] as the first", said(function()
      operation(function(x, y) return x + y end)(mr.tensor({ 2 }, { 1, 2 }), mr.tensor({ 3 }, { 1, 2, 3 }))
    end))
    t:free()
  end)
end)

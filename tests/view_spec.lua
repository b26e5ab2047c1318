-- Checked arrays: what operations, optimizers and tensor:data() hand to user code.
local ffi = require "ffi"
local mr = require "moonrock"
local raises = require "tests.support.raises"
local tape = require "moonrock.tape"

describe("an array of a tensor", function()
  local t
  before_each(function()
    t = tape.new()
    t:begin(true, 1)
  end)
  after_each(function() t:free() end)

  it("is read from 0 on, has a length and a text", function()
    local d, n = mr.tensor({ 2, 2 }, { 1, 2, 3, 4 }):data()
    assert.same({ 4, 4, 1, 4, 3 }, { n, #d, d[0], d[3], (d + 2)[0] })
    assert.equal("array of 4 numbers", tostring(d))
  end)

  it("refuses places outside of it, at the user's line, and says which there are", function()
    local d = mr.tensor({ 3 }, { 1, 2, 3 }):data()
    for _, place in ipairs { 3, -1, 2 ^ 31, -2 ^ 40, 1 / 0, 0 / 0 } do
      local ok, problem = pcall(function() return d[place] end)
      assert.is_false(ok)
      assert.matches("view_spec.lua:%d+: array: place %S+ of an array of 3, whose places are 0 to 2", problem)
    end
    raises("place 4 of an array of 3", function() return d + 4 end)
    raises("arithmetic", function() return d - 1 end)
    local ok, problem = pcall(function() return d.p end)
    assert.is_false(ok)
    assert.matches('view_spec.lua:%d+: array: an array has no "p"', problem)
  end)

  it("is read only", function()
    local d = mr.tensor({ 1 }, { 1 }):data()
    local ok, problem = pcall(function() d[0] = 5 end)
    assert.is_false(ok)
    assert.matches("view_spec.lua:%d+: array: the elements of a tensor are read only", problem)
  end)

  it("is over with its step, and when its tape is freed or collected", function()
    local function over(d)
      local ok, problem = pcall(function() return d[0] end)
      assert.is_false(ok)
      assert.matches("used after the call or step that it was good for", problem)
    end
    local d = mr.tensor({ 1 }, { 1 }):data()
    t:begin(true, 2)
    over(d)
    d = mr.tensor({ 1 }, { 1 }):data()
    t:free()
    over(d)
    do
      local other = tape.new()
      other:begin(true, 1)
      d = mr.tensor({ 1 }, { 1 }):data()
      tape.current = nil
    end
    collectgarbage()
    collectgarbage()
    over(d)
    t = tape.new() -- may count in the same place
    t:begin(true, 1)
    over(d)
  end)

  it("has no member whose name code without ffi could know", function()
    local d = mr.tensor({ 1 }, { 1 }):data()
    for _, name in ipairs { "p", "n", "pointer", "count", "data", "c", "v", "value", "counter", "generation" } do
      raises("an array has no", function() return d[name] end)
    end
  end)
end)

describe("the arrays of an operation", function()
  local t
  before_each(function()
    t = tape.new()
    t:begin(true, 1)
  end)
  after_each(function() t:free() end)

  local function forward(f, backward)
    local y = mr.operation { name = "mine", forward = f, backward = backward }(mr.tensor({ 2 }, { 3, 4 }, true))
    if backward then y:sum():backward() end
    return y
  end

  it("refuse to be written outside of, forward and backward, and name the operation", function()
    local ok, problem = pcall(forward, function(out) out[2] = 1 end)
    assert.is_false(ok)
    assert.matches("view_spec.lua:%d+: operation mine: place 2 of an array of 2, whose places are 0 to 1", problem)
    ok, problem = pcall(forward, function(out) out[0] = 1 end, function(_, _, _, da) da[-1] = 1 end)
    assert.is_false(ok)
    assert.matches("operation mine: place %-1 of an array of 2", problem)
  end)

  it("are over with the call", function()
    local kept
    forward(function(out, a)
      kept = a
      out[0] = a[0]
    end)
    local ok, problem = pcall(function() return kept[0] end)
    assert.is_false(ok)
    assert.matches("used after the call or step that it was good for", problem)
    ok, problem = pcall(forward, function(out) out[0] = kept[0] end) -- inside of another one
    assert.is_false(ok)
    assert.matches("used after the call", problem)
  end)

  it("are of doubles when gradients are checked", function()
    local square = mr.operation { name = "square",
      forward = function(out, a, n) for i = 0, n - 1 do out[i] = a[i] * a[i] end end,
      backward = function(g, _, a, da, n) for i = 0, n - 1 do da[i] = da[i] + 2 * a[i] * g[i] end end }
    assert.is_true(mr.gradcheck(square, { { 2, 3 } }) < 1e-6)
  end)

  it("take numbers only", function()
    local ok, problem = pcall(forward, function(out) out[0] = "x" end)
    assert.is_false(ok)
    assert.matches("view_spec.lua:%d+: an array of numbers: place 0 is given a string", problem)
  end)

  it("leave next to no garbage: loops over them are compiled", function()
    local square = mr.operation { name = "square",
      forward = function(out, a, n) for i = 0, n - 1 do out[i] = a[i] * a[i] end end,
      backward = function(g, _, a, da, n) for i = 0, n - 1 do da[i] = da[i] + 2 * a[i] * g[i] end end }
    local values = ffi.new("double[?]", 500)
    for i = 0, 499 do values[i] = i end
    local function step(number)
      t:begin(true, number)
      square(mr.tensor({ 500 }, values, true)):sum():backward()
    end
    local traces = 0
    local function watch(what) if what == "stop" then traces = traces + 1 end end
    jit.flush()
    jit.attach(watch, "trace")
    for number = 1, 100 do step(number) end
    jit.attach(watch)
    assert.is_true(traces > 0)
    collectgarbage()
    collectgarbage "stop"
    local kilobytes = collectgarbage "count"
    for number = 101, 1100 do step(number) end
    local grown = collectgarbage "count" - kilobytes
    collectgarbage "restart"
    assert.is_true(grown < 512, grown)
  end)
end)

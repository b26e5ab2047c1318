-- Initializers: what they say of the weights' moments, and that a weight depends on nothing but the
-- seed, the names, the key and the coordinate.
local mr = require "moonrock"
local raises = require "tests.support.raises"
local Param = require "moonrock.param"
local Table = require "moonrock.table"

local KEYS, DIM = 6000, 5

local function param(init, shape, seed)
  local p = Param.new("w", seed or 1, shape, { init = init })
  local list = {}
  for i = 1, p:size() do list[i] = p:weight(i) end
  return list
end

local function column(init, seed)
  local t = Table.new("t", 0, seed or 1, { v = { dim = DIM, init = init } }, mr.optim.sgd())
  local list = {}
  for key = 1, KEYS do
    local row = t:peek(key, "v")
    for i = 1, DIM do list[#list + 1] = row[i] end
  end
  return list
end

-- mean, variance, kurtosis: within four standard errors of samples of such a distribution.
local function moments(list, mean, variance, kurtosis)
  local n, sum, square = #list, 0, 0
  for _, x in ipairs(list) do sum = sum + x end
  for _, x in ipairs(list) do square = square + (x - sum / n) ^ 2 end
  assert.near(mean, sum / n, 4 * math.sqrt(variance / n))
  assert.near(1, square / n / variance, 4 * math.sqrt((kurtosis - 1) / n))
end

local function range(list, low, high)
  local least, most = math.huge, -math.huge
  for _, x in ipairs(list) do least, most = math.min(least, x), math.max(most, x) end
  assert.is_true(least >= low and most <= high)
  assert.is_true(least <= low + 1e-3 * (high - low) and most >= high - 1e-3 * (high - low))
end

-- A normal distribution cut at two deviations: its variance is 1 - 4 phi(2) / (2 Phi(2) - 1), its kurtosis
-- from the fourth moment 3 - 28 phi(2) / (2 Phi(2) - 1), with phi(2) = 0.05399097, Phi(2) = 0.97724987.
local CUT = 0.05399097 / (2 * 0.97724987 - 1)
local CUT_VARIANCE = 1 - 4 * CUT
local CUT_KURTOSIS = (3 - 28 * CUT) / CUT_VARIANCE ^ 2

describe("the initializer", function()
  for name, weights in pairs {
    ["a param"] = function(init) return param(init, { 200, 300 }) end, ["a column"] = column,
  } do
    it("constant, zeros and ones are just that, of " .. name, function()
      for init, value in pairs { [mr.init.constant(0.25)] = 0.25, [mr.init.zeros()] = 0,
        [mr.init.ones()] = 1, zeros = 0, ones = 1 } do
        for _, x in ipairs(weights(init)) do assert.equal(value, x) end
      end
    end)

    it("a quantile function gives its distribution, of " .. name, function()
      local list = weights(mr.init.quantile(function(u) -- Laplace: variance 2 b^2, kurtosis 6
        return u < 0.5 and 0.3 * math.log(2 * u) or -0.3 * math.log(2 - 2 * u)
      end))
      moments(list, 0, 2 * 0.3 ^ 2, 6)
      local below = 0
      for _, x in ipairs(list) do below = below + (x < 0.3 * math.log(0.2) and 1 or 0) end
      assert.near(0.1, below / #list, 4 * math.sqrt(0.09 / #list))
      assert.same(list, weights(mr.init.quantile(function(u)
        return u < 0.5 and 0.3 * math.log(2 * u) or -0.3 * math.log(2 - 2 * u)
      end)))
    end)

    it("uniform, normal and truncated normal have their moments, of " .. name, function()
      local uniform = weights(mr.init.uniform(-1, 3))
      moments(uniform, 1, 16 / 12, 1.8)
      range(uniform, -1, 3)
      moments(weights(mr.init.normal(0.5)), 0, 0.25, 3)
      moments(weights(mr.init.normal(2, 0.1)), 2, 0.01, 3)
      local cut = weights(mr.init.truncated_normal(1, 0.5))
      moments(cut, 1, 0.25 * CUT_VARIANCE, CUT_KURTOSIS)
      range(cut, 0, 2)
    end)

    it("xavier and he have theirs by the numbers given, of " .. name, function()
      moments(weights(mr.init.xavier_normal(30, 50)), 0, 2 / 80, 3)
      moments(weights(mr.init.xavier_uniform(30, 50)), 0, 2 / 80, 1.8)
      moments(weights(mr.init.he_normal(30)), 0, 2 / 30, 3)
      moments(weights(mr.init.he_uniform(30)), 0, 2 / 30, 1.8)
    end)
  end

  it("xavier and he take the numbers from a param's last two dimensions", function()
    for _, shape in ipairs { { 200, 300 }, { 4, 200, 300 } } do
      assert.same(param(mr.init.xavier_normal(200, 300), shape), param(mr.init.xavier_normal(), shape))
      assert.same(param(mr.init.xavier_uniform(200, 300), shape), param("xavier_uniform", shape))
      assert.same(param(mr.init.he_normal(200), shape), param("he_normal", shape))
      assert.same(param(mr.init.he_uniform(200), shape), param(mr.init.he_uniform(), shape))
    end
    local message = "initializer he_normal: there is no shape [inputs, outputs], give the numbers"
    for _, make in ipairs { function() param("he_normal", { 3 }) end, function() column("he_normal") end } do
      local ok, problem = pcall(make)
      assert.is_false(ok)
      assert.truthy(problem:find(message, 1, true), problem)
    end
    raises("initializer xavier_normal: expected numbers of inputs and outputs, got 3 and nil", mr.init.xavier_normal, 3)
    raises("initializer he_normal: expected numbers of inputs and outputs, got 0 and 1", mr.init.he_normal, 0)
  end)

  it("is a function of seed, names, key and coordinate alone", function()
    for _, init in ipairs { mr.init.uniform(0, 1), mr.init.normal(1), mr.init.truncated_normal(1) } do
      local function table_of(name, columns) return Table.new(name, 0, 9, columns, mr.optim.sgd()) end
      local alone = table_of("t", { v = { dim = 4, init = init } })
      local wide = table_of("t", { a = { dim = 3, init = init }, v = { dim = 9, init = init },
        z = { dim = 1, init = init } })
      wide:peek(8, "v") -- an order of its own
      for key = 5, 8 do
        local few, many = alone:peek(key, "v"), wide:peek(key, "v")
        for i = 1, 4 do assert.equal(few[i], many[i]) end
        assert.not_same(many, wide:peek(key + 1, "v"))
        assert.not_equal(many[1], wide:peek(key, "a")[1])
      end
      local other = table_of("u", { v = { dim = 4, init = init } })
      assert.not_same(alone:peek(5, "v"), other:peek(5, "v"))
      local long, short = param(init, { 100 }, 4), param(init, { 7 }, 4)
      for i = 1, 7 do assert.equal(long[i], short[i]) end
      assert.not_same(short, param(init, { 7 }, 5))
    end
  end)
end)

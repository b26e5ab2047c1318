--- Checks gradients against central differences, in double precision: the tape's operations are
-- compiled for double as well, and run there from leaves that are doubles.
local ffi = require "ffi"
local C = require "moonrock.ffi"
local err = require "moonrock.error"
local pool = require "moonrock.pool"
local tape = require "moonrock.tape"

local STEP = 1e-5
-- Below this size of a gradient its error counts absolutely: differences are good to 1e-10.
local FLOOR = 1e-2

-- Reproducible numbers in (-1, 1), none within 0.01 of 0, where relu has its corner.
local function generator(seed)
  local state = seed
  return function()
    state = (state * 16807) % 2147483647
    local x = state / 2147483647 * 2 - 1
    return x + (x < 0 and -0.01 or 0.01)
  end
end

local function count_of(shape)
  local n = 1
  for i = 1, #shape do n = n * shape[i] end
  return n
end

-- A leaf: its values, how to put it on a tape (returns what f gets) and how to read a gradient.
local function leaf_of(spec, random)
  if type(spec) ~= "table" then err.raise("gradcheck: a leaf is a %s", type(spec)) end
  if spec.lift and spec.c then -- a param: its weights, in double
    local n = spec:size()
    local data = ffi.new("double[?]", n)
    for i = 0, n - 1 do data[i] = spec:weight(i + 1) end
    local tensor
    return { n = n, data = data, place = function()
      tensor = tape.tensor(spec.shape, data, true)
      spec:bind(tensor)
      return spec
    end, gradient = function(i) return tensor:gradient(i + 1) end }
  end
  if spec.batch then -- rows of a lookup: { batch = mr_batch, unique = , dims = { 1, 4 } }
    local width = 0
    for _, d in ipairs(spec.dims) do width = width + d end
    local n = width * spec.unique
    local data, dims = ffi.new("double[?]", n), ffi.new("int32_t[?]", #spec.dims, spec.dims)
    for i = 0, n - 1 do data[i] = random() end
    local columns, lookup, t = {}, nil, nil
    for i, d in ipairs(spec.dims) do columns[i] = pool.column("given", "column " .. i, i - 1, d) end
    return { n = n, data = data, place = function()
      t = tape.current
      lookup = err.check(C.mr_tape_lookup(t.c, spec.batch, dims, #spec.dims, data, spec.unique))
      for _, column in ipairs(columns) do pool.bind(column, t, lookup) end
      return columns
    end, gradient = function(i) return C.mr_tape_lookup_gradient(t.c, lookup, i) end }
  end
  local shape = { unpack(spec.shape or spec, 1, #(spec.shape or spec)) } -- f may change its own
  local n = count_of(shape)
  local data = ffi.new("double[?]", n)
  for i = 0, n - 1 do data[i] = spec.values and spec.values[i + 1] or random() end
  local tensor
  return { n = n, data = data, place = function()
    tensor = tape.tensor(shape, data, true)
    return tensor
  end, gradient = function(i) return tensor:gradient(i + 1) end }
end

---@class GradcheckOptions
---@field seed? integer of the random values; 1
---@field directions? integer compares the slope along so many random directions, of each leaf apart, in place
--- of every element: two evaluations each, so that leaves may be large
---@field step? number of the differences; 1e-5, less where f has many corners
---@field floats? boolean compares the gradient in floats, as training computes it with the kernels in use,
--- with that in double instead

-- The largest difference between lists of gradients, by that leaf's largest gradient.
local function compare_floats(leaves, doubles, floats)
  local worst, where = 0, "nowhere"
  for l, leaf in ipairs(leaves) do
    local scale = FLOOR
    for i = 0, leaf.n - 1 do scale = math.max(scale, math.abs(doubles[l][i])) end
    for i = 0, leaf.n - 1 do
      local e = math.abs(doubles[l][i] - floats[l][i]) / scale
      if not (e <= worst) then
        worst = e == e and e or math.huge
        where = ("leaf %d, element %d: %.9g in floats, %.9g in double"):format(l, i + 1, floats[l][i],
          doubles[l][i])
      end
    end
  end
  return worst, where
end

--- Runs f on leaves and compares the gradient of every element with a central difference. A result
--- of more than one element is weighted with random numbers and summed.
---@param f fun(...): Tensor
---@param specs table[] a leaf each: a shape such as { 2, 3 }; { shape = , values = }; a Param; or
--- { batch = mr_batch, unique = , dims = } for the columns of a lookup
---@param options? GradcheckOptions
---@return number error the largest |a - b| / max(|a|, |b|, 0.01); of directions |a - b| / max(||gradient||,
--- 0.01); in floats |a - b| / max(largest gradient of the leaf, 0.01)
---@return string where
local function gradcheck(f, specs, options)
  local o = options or {}
  local step = o.step or STEP
  local before = tape.current
  local random = generator(o.seed or 1)
  local t, single = tape.new { real = 8, seed = 7 }, nil
  local leaves, weights = {}, nil
  for i, spec in ipairs(specs) do leaves[i] = leaf_of(spec, random) end

  local function loss(on)
    on:begin(true, 1)
    local arguments = {}
    for i, leaf in ipairs(leaves) do arguments[i] = leaf.place() end
    local out = f(unpack(arguments))
    local n = out:count()
    if n == 1 then return out:sum() end
    if not weights then
      weights = ffi.new("double[?]", n)
      for i = 0, n - 1 do weights[i] = random() end
    end
    return (out:reshape(n) * tape.tensor({ n }, weights)):sum()
  end

  local function gradients_of(on)
    loss(on):backward()
    local gradients = {}
    for l, leaf in ipairs(leaves) do
      gradients[l] = {}
      for i = 0, leaf.n - 1 do gradients[l][i] = leaf.gradient(i) end
    end
    return gradients
  end

  -- The slope at a leaf when each element i moves by direction[i].
  local function slope(leaf, direction)
    local kept = ffi.new("double[?]", leaf.n)
    ffi.copy(kept, leaf.data, 8 * leaf.n)
    local value = {}
    for sign = -1, 1, 2 do
      for i = 0, leaf.n - 1 do leaf.data[i] = kept[i] + sign * step * direction[i] end
      value[sign] = loss(t):value()
    end
    ffi.copy(leaf.data, kept, 8 * leaf.n)
    return (value[1] - value[-1]) / (2 * step)
  end

  local ok, worst, where = pcall(function()
    local gradients = gradients_of(t)
    if o.floats then
      single = tape.new { seed = 7 }
      return compare_floats(leaves, gradients, gradients_of(single))
    end
    local worst, where = 0, "nowhere"
    local function note(e, text, ...)
      if e <= worst then return end
      worst = e == e and e or math.huge
      where = text:format(...)
    end
    for l, leaf in ipairs(leaves) do
      local direction = ffi.new("double[?]", leaf.n)
      for d = 1, o.directions or 0 do
        local a, norm = 0, 0
        for i = 0, leaf.n - 1 do
          direction[i] = random() < 0 and -1 or 1
          a, norm = a + gradients[l][i] * direction[i], norm + gradients[l][i] ^ 2
        end
        local b = slope(leaf, direction)
        note(math.abs(a - b) / math.max(math.sqrt(norm), FLOOR),
          "leaf %d, direction %d: %.9g by backward, %.9g by differences", l, d, a, b)
      end
      for i = 0, o.directions and -1 or leaf.n - 1 do
        direction[i] = 1
        local a, b = gradients[l][i], slope(leaf, direction)
        direction[i] = 0
        note(math.abs(a - b) / math.max(math.abs(a), math.abs(b), FLOOR),
          "leaf %d, element %d: %.9g by backward, %.9g by differences", l, i + 1, a, b)
      end
    end
    return worst, where
  end)
  tape.current = before
  t:free()
  if single then single:free() end
  if not ok then error(worst, 0) end
  return worst, where
end

return gradcheck

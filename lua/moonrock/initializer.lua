--- Initializers: how a fresh weight is drawn, as a pure function of (seed, name, key,
-- coordinate); runtime/kernel/init.c has the generator.
local ffi = require "ffi"
local C = require "moonrock.ffi"
local err = require "moonrock.error"

local initializer = {}

local Init = {}
Init.__index = Init

local function new(kind, a, b)
  if type(a) ~= "number" or type(b) ~= "number" then
    err.raise("initializer: expected numbers, got %s and %s", type(a), type(b))
  end
  return setmetatable({ kind = kind, a = a, b = b }, Init)
end

--- Every weight is the value.
---@param value number
function initializer.constant(value) return new(C.MR_CONSTANT, value, 0) end
function initializer.zeros() return initializer.constant(0) end
function initializer.ones() return initializer.constant(1) end

--- Of a bias, a param that is added to the score: the best constant by the labels of the first samples (see
--- moonrock.start), such as the logarithm of their odds.
function initializer.label()
  local init = initializer.constant(0)
  init.label = true
  return init
end

---@param low number
---@param high number
function initializer.uniform(low, high) return new(C.MR_UNIFORM, low, high) end

--- Normal with a mean of 0 and a deviation, or with both.
function initializer.normal(mean, deviation)
  if not deviation then mean, deviation = 0, mean end
  return new(C.MR_NORMAL, mean, deviation)
end

--- The same, within two deviations of the mean; what comes out deviates by 0.8796 of it.
function initializer.truncated_normal(mean, deviation)
  if not deviation then mean, deviation = 0, mean end
  return new(C.MR_TRUNCATED_NORMAL, mean, deviation)
end

local FAN = {} -- name -> make(inputs, outputs)

-- One of `make(inputs, outputs)`: now, or without numbers, as { name }, once a param's shape is known.
local function of_fan(name, make, inputs, outputs)
  FAN[name] = make
  if inputs == nil then return setmetatable({ name }, Init) end
  if not (type(inputs) == "number" and inputs > 0 and type(outputs) == "number" and outputs > 0) then
    err.raise("initializer %s: expected numbers of inputs and outputs, got %s and %s", name,
      tostring(inputs), tostring(outputs))
  end
  return make(inputs, outputs)
end

local function centered(bound) return initializer.uniform(-bound, bound) end

--- Normal of variance 2 / (inputs + outputs). Glorot and Bengio, 2010.
---@param inputs? number without both: those of a param's shape [..., inputs, outputs]
---@param outputs? number
function initializer.xavier_normal(inputs, outputs)
  return of_fan("xavier_normal", function(i, o) return initializer.normal(math.sqrt(2 / (i + o))) end, inputs,
    outputs)
end

--- Uniform of the same variance.
---@param inputs? number
---@param outputs? number
function initializer.xavier_uniform(inputs, outputs)
  return of_fan("xavier_uniform", function(i, o) return centered(math.sqrt(6 / (i + o))) end, inputs, outputs)
end

--- Normal of variance 2 / inputs, for relu. He et al., 2015.
---@param inputs? number without it: that of a param's shape [..., inputs, outputs]
function initializer.he_normal(inputs)
  return of_fan("he_normal", function(i) return initializer.normal(math.sqrt(2 / i)) end, inputs, 1)
end

--- Uniform of the same variance.
---@param inputs? number
function initializer.he_uniform(inputs)
  return of_fan("he_uniform", function(i) return centered(math.sqrt(6 / i)) end, inputs, 1)
end

local VALUES = 65536
local drawn = {} -- by function; C reads them

--- A distribution of your own, by its quantile function: f(u) is the value that a weight is below with
--- chance u, 0 < u < 1. It is called here, for the middles of 65536 equal parts, one of which C draws for
--- each weight.
---@param f fun(u: number): number
function initializer.quantile(f)
  if type(f) ~= "function" then err.raise("initializer quantile: expected a function, got a %s", type(f)) end
  if not drawn[f] then
    local values = ffi.new("float[?]", VALUES)
    for i = 0, VALUES - 1 do
      local value = f((i + 0.5) / VALUES)
      if type(value) ~= "number" or value - value ~= 0 then
        err.raise("initializer quantile: f(%g) is %s, expected a finite number", (i + 0.5) / VALUES,
          tostring(value))
      end
      values[i] = value
    end
    drawn[f] = values
  end
  local init = new(C.MR_DRAWN, 0, 0)
  init.values = drawn[f]
  return init
end

local BY_NAME = {}
for name, make in pairs(initializer) do BY_NAME[name] = make end
local PLAIN = { zeros = true, ones = true, label = true, xavier_normal = true, xavier_uniform = true,
  he_normal = true, he_uniform = true }

--- Fills in a C description. `init` is one of the above, the name of one that needs no numbers, or plain
--- data as in a recipe or a store: { "normal", 0.01 }.
---@param init table|string|nil nil: zeros
---@param to ffi.cdata* an mr_init
---@param shape? integer[] of a param
---@return boolean label whether a param starts by the labels
---@private
function initializer.write(init, to, shape)
  init = init == nil and "zeros" or init
  if type(init) == "string" and PLAIN[init] then
    init = BY_NAME[init]()
  elseif type(init) == "table" and type(init[1]) == "string" then
    local make = BY_NAME[init[1]] or err.raise("initializer %q is unknown", init[1])
    init = make(unpack(init, 2))
  elseif type(init) == "table" and init.kind and init.a and init.b then
    setmetatable(init, Init)
  end
  if getmetatable(init) ~= Init then
    err.raise("expected an initializer such as mr.init.normal(0.01), got %s", tostring(init))
  end
  if FAN[init[1]] then
    local rank = shape and #shape or 0
    if rank < 2 then
      err.raise("initializer %s: there is no shape [inputs, outputs], give the numbers", init[1])
    end
    init = FAN[init[1]](shape[rank - 1], shape[rank])
  end
  if init.label and not shape then
    err.raise('initializer label: it is for params, as m:param("bias", { 1 }, { init = "label" })')
  end
  ffi.fill(to, ffi.sizeof("mr_init"))
  to.kind, to.a, to.b, to.values = init.kind, init.a, init.b, init.values
  return init.label == true
end

return initializer

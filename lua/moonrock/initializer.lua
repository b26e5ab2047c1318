--- Initializers: how a fresh weight is drawn, as a pure function of (seed, name, key,
-- coordinate); runtime/init.c has the generator.
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

function initializer.constant(value) return new(C.MR_CONSTANT, value, 0) end
function initializer.zeros() return initializer.constant(0) end
function initializer.ones() return initializer.constant(1) end
---@param low number
---@param high number
function initializer.uniform(low, high) return new(C.MR_UNIFORM, low, high) end

--- Normal with a mean of 0 and a deviation, or with both.
function initializer.normal(mean, deviation)
  if not deviation then mean, deviation = 0, mean end
  return new(C.MR_NORMAL, mean, deviation)
end

--- The same, within two deviations of the mean.
function initializer.truncated_normal(mean, deviation)
  if not deviation then mean, deviation = 0, mean end
  return new(C.MR_TRUNCATED_NORMAL, mean, deviation)
end

--- Normal of variance 2 / (inputs + outputs). Glorot and Bengio, 2010.
function initializer.xavier_normal(inputs, outputs)
  return initializer.normal(math.sqrt(2 / (inputs + outputs)))
end

--- Uniform of the same variance.
function initializer.xavier_uniform(inputs, outputs)
  local bound = math.sqrt(6 / (inputs + outputs))
  return initializer.uniform(-bound, bound)
end

--- Normal of variance 2 / inputs. He et al., 2015.
function initializer.he(inputs) return initializer.normal(math.sqrt(2 / inputs)) end

--- Fills in a C description. `init` is one of the above, or plain data, as in a recipe or a store:
--- "zeros", "ones" or { "normal", 0.01 }.
---@param init table|string|nil nil: zeros
---@param to ffi.cdata* an mr_init
function initializer.write(init, to)
  if init == nil then init = "zeros" end
  if init == "zeros" or init == "ones" then
    init = initializer[init]()
  elseif type(init) == "table" and type(init[1]) == "string" then
    local make = init[1] ~= "write" and initializer[init[1]]
    if not make then err.raise("initializer %q is unknown", init[1]) end
    init = make(unpack(init, 2))
  elseif type(init) == "table" and init.kind and init.a and init.b then
    setmetatable(init, Init)
  end
  if getmetatable(init) ~= Init then
    err.raise("expected an initializer such as mr.init.normal(0.01), got %s", tostring(init))
  end
  ffi.fill(to, ffi.sizeof("mr_init"))
  to.kind, to.a, to.b = init.kind, init.a, init.b
end

return initializer

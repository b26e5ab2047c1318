--- Optimizers: settings for the update rules of runtime/kernel_optimizer.c, where the formulas
-- stand. Each function takes a table of settings and returns a description that tables and
-- params copy; two models never share its state.
local ffi = require "ffi"
local C = require "moonrock.ffi"
local err = require "moonrock.error"

local optim = {}

-- kind, then the defaults of every setting it takes
local RULES = {
  sgd = { kind = C.MR_SGD, lr = 0.01, l2 = 0, momentum = 0 },
  adagrad = { kind = C.MR_ADAGRAD, lr = 0.05, l2 = 0, eps = 1e-10, init = 0 },
  adam = { kind = C.MR_ADAM, lr = 1e-3, l2 = 0, beta1 = 0.9, beta2 = 0.999, eps = 1e-8,
    bias_correction = "row" },
  adamw = { kind = C.MR_ADAMW, lr = 1e-3, l2 = 0, beta1 = 0.9, beta2 = 0.999, eps = 1e-8,
    decay = 0.01, bias_correction = "row" },
  ftrl = { kind = C.MR_FTRL, lr = 0.1, l1 = 0, l2 = 0, beta = 1 },
}

local Optim = {}
Optim.__index = Optim

local function names(of)
  local list = {}
  for name in pairs(of) do
    if name ~= "kind" then list[#list + 1] = name end
  end
  table.sort(list)
  return table.concat(list, ", ")
end

--- An optimizer by name.
---@param rule string sgd, adagrad, adam, adamw or ftrl
---@param settings table|nil lr, l1, l2, momentum, beta, beta1, beta2, eps, init, decay, and
--- bias_correction = "row" | "global"; those that the rule has
---@return table
function optim.new(rule, settings)
  local defaults = RULES[rule]
  if not defaults then
    err.raise("optimizer %q is unknown, expected one of %s", tostring(rule), names(RULES))
  end
  local o = setmetatable({ rule = rule }, Optim)
  for name, value in pairs(defaults) do o[name] = value end
  for name, value in pairs(settings or {}) do
    if name == "kind" or defaults[name] == nil then
      err.raise("optimizer %s has no setting %q, expected %s", rule, tostring(name), names(defaults))
    end
    if type(value) ~= type(defaults[name]) then
      err.raise("optimizer %s: %s is a %s, expected a %s", rule, name, type(value),
        type(defaults[name]))
    end
    o[name] = value
  end
  return o
end

for rule in pairs(RULES) do
  optim[rule] = function(settings) return optim.new(rule, settings) end
end

--- An optimizer from what stands for one: itself, a name, or plain data as in a recipe or a store,
--- { rule = "adam", lr = 0.001, ... }.
---@param o table|string
---@return table
function optim.of(o)
  if type(o) == "string" then return optim.new(o) end
  if getmetatable(o) == Optim then return o end
  if type(o) ~= "table" or not o.rule then
    err.raise('expected an optimizer such as mr.optim.adam { lr = 0.001 } or { rule = "adam" }, got %s',
      type(o) == "table" and "a table without a rule" or type(o))
  end
  local settings = {}
  for name, value in pairs(o) do
    if name ~= "rule" then settings[name] = value end
  end
  return optim.new(o.rule, settings)
end

--- Fills in a C description.
---@param o table|string see optim.of
---@param to ffi.cdata* an mr_optim
function optim.write(o, to)
  o = optim.of(o)
  ffi.fill(to, ffi.sizeof("mr_optim"))
  for name, value in pairs(o) do
    if name == "bias_correction" then
      to.global_step = value == "global" and 1 or 0
    elseif name ~= "rule" then
      to[name] = value
    end
  end
end

--- The same rule with another learning rate.
function optim.with_lr(o, lr)
  if type(lr) ~= "number" then err.raise("lr is a %s, expected a number", type(lr)) end
  local copy = setmetatable({}, Optim)
  for name, value in pairs(o) do copy[name] = value end
  copy.lr = lr
  return copy
end

return optim

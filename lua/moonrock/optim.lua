--- Optimizers: settings for the update rules of runtime/kernel_optimizer.c, where the formulas
-- stand; lua/README.md has them in a table. Each function takes a table of settings and returns a
-- description that tables and params copy; two models never share its state.
local ffi = require "ffi"
local C = require "moonrock.ffi"
local err = require "moonrock.error"

local optim = {}

-- kind, then the defaults of every setting it takes
local RULES = {
  sgd = { kind = C.MR_SGD, lr = 0.01, l1 = 0, l2 = 0, momentum = 0, nesterov = false },
  adagrad = { kind = C.MR_ADAGRAD, lr = 0.05, l1 = 0, l2 = 0, group = 0, eps = 1e-10, init = 0,
    fade = 0.9, fade_every = 0 },
  row_adagrad = { kind = C.MR_ROW_ADAGRAD, lr = 0.05, l1 = 0, l2 = 0, group = 0, eps = 1e-10, init = 0,
    fade = 0.9, fade_every = 0 },
  adam = { kind = C.MR_ADAM, lr = 1e-3, l2 = 0, beta1 = 0.9, beta2 = 0.999, eps = 1e-8,
    bias_correction = "row" },
  adamw = { kind = C.MR_ADAMW, lr = 1e-3, l2 = 0, beta1 = 0.9, beta2 = 0.999, eps = 1e-8,
    decay = 0.01, bias_correction = "row" },
  amsgrad = { kind = C.MR_AMSGRAD, lr = 1e-3, l2 = 0, beta1 = 0.9, beta2 = 0.999, eps = 1e-8,
    decay = 0, bias_correction = "row" },
  lion = { kind = C.MR_LION, lr = 1e-4, beta1 = 0.9, beta2 = 0.99, decay = 0 },
  rmsprop = { kind = C.MR_RMSPROP, lr = 0.01, l2 = 0, beta2 = 0.99, eps = 1e-8, momentum = 0 },
  centered_rmsprop = { kind = C.MR_CENTERED_RMSPROP, lr = 0.01, l2 = 0, beta2 = 0.99, eps = 1e-8,
    momentum = 0 },
  ftrl = { kind = C.MR_FTRL, lr = 0.1, l1 = 0, l2 = 0, group = 0, beta = 1 },
}

local Optim = {}
Optim.__index = Optim

local function sorted(of)
  local list = {}
  for name in pairs(of) do
    if name ~= "kind" then list[#list + 1] = name end
  end
  table.sort(list)
  return list
end

local function names(of) return table.concat(sorted(of), ", ") end

optim.rules = sorted(RULES)

--- An optimizer by name.
---@param rule string sgd, adagrad, row_adagrad, adam, adamw, amsgrad, lion, rmsprop,
--- centered_rmsprop or ftrl
---@param settings table|nil lr, l1, l2, group, momentum, nesterov, beta, beta1, beta2, eps, init, fade,
--- fade_every, decay, and bias_correction = "row" | "global"; those that the rule has
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
    if name == "bias_correction" and value ~= "row" and value ~= "global" then
      err.raise('optimizer %s: bias_correction is %q, expected "row" or "global"', rule, value)
    end
    if name == "fade_every" and value % 1 ~= 0 then
      err.raise("optimizer %s: fade_every is %g, expected a whole number", rule, value)
    end
    o[name] = value
  end
  return o
end

for _, rule in ipairs(optim.rules) do
  optim[rule] = function(settings) return optim.new(rule, settings) end
end

--- Fills in a C description.
---@param o table made by one of the functions above
---@param to ffi.cdata* an mr_optim
function optim.write(o, to)
  if getmetatable(o) ~= Optim then
    err.raise("expected an optimizer such as mr.optim.adam{ lr = 0.001 }, got %s", type(o))
  end
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
  local copy = setmetatable({}, Optim)
  for name, value in pairs(o) do copy[name] = value end
  copy.lr = lr
  return copy
end

return optim

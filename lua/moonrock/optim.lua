--- Optimizers: settings for the update rules of runtime/optim/kernel_optimizer.c, where the formulas
-- stand; README.md has them in a table. Each function takes a table of settings and returns a
-- description that tables and params copy; two models never share its state.
local ffi = require "ffi"
local C = require "moonrock.ffi"
local err = require "moonrock.error"
local view = require "moonrock.view"

local optim = {}

-- kind, then the defaults of every setting it takes
local RULES = {
  sgd = { kind = C.MR_SGD, lr = 0.01, l1 = 0, l2 = 0, momentum = 0, nesterov = false },
  adagrad = { kind = C.MR_ADAGRAD, lr = 0.05, l1 = 0, l2 = 0, group = 0, eps = 1e-10, init = 1e-5,
    fade = 0.9, fade_every = 0 },
  row_adagrad = { kind = C.MR_ROW_ADAGRAD, lr = 0.05, l1 = 0, l2 = 0, group = 0, eps = 1e-10, init = 1e-5,
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
  ftrl = { kind = C.MR_FTRL, lr = 0.1, l1 = 0, l2 = 0, group = 0, beta = 0.01 },
}

-- Where l2 and decay work: "touched": on the rows of the batch; "table": on every row in each step.
for rule, settings in pairs(RULES) do
  if settings.l2 and rule ~= "ftrl" then settings.l2_scope, settings.idle_steps = "touched", 1000 end
  if settings.decay then settings.decay_scope, settings.idle_steps = "touched", 1000 end
end

local WORDS = { bias_correction = { row = 0, global = 1 }, l2_scope = { touched = 0, table = 1 },
  decay_scope = { touched = 0, table = 1 } }
local FIELDS = { bias_correction = "global_step", l2_scope = "l2_table", decay_scope = "decay_table" }

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

--- The name of a rule by its number in C.
---@param kind integer mr_optim_kind
---@private
function optim.name(kind)
  for name, rule in pairs(RULES) do
    if rule.kind == kind then return name end
  end
  return "in Lua"
end

--- An optimizer by name.
---
--- `l2_scope = "table"` (tables only; not for ftrl) adds l2/2 ||W||^2 over the whole table to every batch's
--- loss, as reference runs of the literature do, instead of over the batch's rows: every row that was
--- ever trained gets the gradient l2 w in each step. A row pays for the steps that it idled when it is
--- looked up next: sgd without momentum in closed form, w *= prod_i (1 - lr_i l2), all others by the last
--- `idle_steps` (1000) of them in full, each an update that counts; what is beyond those is left out,
--- which is an approximation. Learning rates are those of the steps. Scoring, serving and `peek` see the
--- weights as they are by now and write nothing; exports and shrinking see rows as their last update
--- left them. A key without a row owes nothing.
---
--- `decay_scope = "table"` does the same for adamw's decay: w *= prod_i (1 - lr_i decay) over the steps
--- that a row idled, exactly (Loshchilov and Hutter, 2019, on every weight in each step).
---@param rule string sgd, adagrad, row_adagrad, adam, adamw, amsgrad, lion, rmsprop,
--- centered_rmsprop or ftrl
---@param settings table|nil lr, l1, l2, group, momentum, nesterov, beta, beta1, beta2, eps, init, fade,
--- fade_every, decay, and bias_correction = "row" | "global", l2_scope and decay_scope = "touched" |
--- "table", idle_steps; those that the rule has
---@return table
---@private
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
      err.raise("optimizer %s: %s is %s, expected a %s", rule, name, err.show(value), type(defaults[name]))
    end
    if WORDS[name] and not WORDS[name][value] then
      err.raise("optimizer %s: %s is %q, expected one of %s", rule, name, value, names(WORDS[name]))
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

--- An optimizer of your own, for tables and dense weights. `update` gets one row's column, or a piece of a
--- dense weight: w[0 .. n - 1] to change, the gradient g[0 .. n - 1], summed over the batch, and its state,
--- `state` vectors of n that follow one another; t is the number of this update, from 1; o has lr, as it
--- is in this step, and the settings. They are arrays of floats (see moonrock.view) that are good until it
--- returns; inside of it the model does not go on: no step, no other batch, no close. LuaJIT compiles it; it
--- runs on one thread. It must be a function of these alone, so that a resumed run goes on to the same bits,
--- and stand in the model's file (or one that it requires), which the store keeps.
---@param given table { name =, state = 0 to 8 (0), init = what the state starts at (0), lr =, settings = {},
--- update = function(w, g, state, n, t, o) }
---@return table
---@private
function optim.user(given)
  local name = given.name
  if type(name) ~= "string" or RULES[name] then
    err.raise("mr.optimizer: name is %s, expected a text that no other optimizer is called", tostring(name))
  end
  if type(given.update) ~= "function" then
    err.raise("optimizer %s: update is a %s, expected a function(w, g, state, n, t, o)", name,
      type(given.update))
  end
  if type(given.lr) ~= "number" then
    err.raise("optimizer %s: lr is %s, expected a number", name, tostring(given.lr))
  end
  -- stores tell optimizers by their numbers
  local kind = C.MR_USER + tonumber(C.mr_hash(name, #name, 0) % 2 ^ 30)
  local vectors = given.state or 0
  if not (type(vectors) == "number" and vectors >= 0 and vectors <= 8 and vectors % 1 == 0) then
    err.raise("optimizer %s: state is %s, expected a whole number from 0 to 8", name, tostring(vectors))
  end
  return setmetatable({ rule = name, kind = kind, lr = given.lr, vectors = vectors,
    init = given.init or 0, update = given.update, settings = given.settings or {} }, Optim)
end

--- Whether something is an optimizer written in Lua.
---@private
function optim.in_lua(o) return getmetatable(o) == Optim and o.update ~= nil end

-- Room for so many weights, their gradient and state, which C copies to and from; the views that update
-- gets of it; the settings.
local function work(o, n)
  local settings = {}
  for name, value in pairs(o.settings) do settings[name] = value end
  return { subject = "optimizer " .. o.rule, update = o.update, vectors = o.vectors, settings = settings,
    w = ffi.new("float[?]", n), g = ffi.new("float[?]", n), state = ffi.new("float[?]", n * o.vectors + 1),
    views = { view.float(), view.float(), view.float() } }
end

-- Points the views at so many weights.
local function views_of(room, n)
  local views = room.views
  return view.point(views[1], room.w, n), view.point(views[2], room.g, n),
    view.point(views[3], room.state, n * room.vectors)
end

local function rows_update(room, c, column, dim)
  local w, g, state, settings, update = room.w, room.g, room.state, room.settings, room.update
  local vw, vg, vs = views_of(room, dim)
  settings.lr = C.mr_table_optim(c, column).lr
  local t = C.mr_table_updated(c, column, w, g, state)
  while t > 0 do
    update(vw, vg, vs, dim, t, settings)
    t = C.mr_table_updated(c, column, w, g, state)
  end
end

local function pieces_update(room, c)
  local w, g, state, settings, update = room.w, room.g, room.state, room.settings, room.update
  settings.lr = C.mr_param_optim(c).lr
  local t, piece, n = C.mr_param_updates(c), 0, C.mr_param_updated(c, 0, w, g, state)
  while n > 0 do
    local vw, vg, vs = views_of(room, n)
    update(vw, vg, vs, n, t, settings)
    piece = piece + 1
    n = C.mr_param_updated(c, piece, w, g, state)
  end
end

-- Runs updates, whose views are good until they are done.
local function guarded(room, run, c, column, dim)
  local before = view.enter(room.subject, room)
  local ok, problem = pcall(run, room, c, column, dim)
  view.leave(before)
  if not ok then error(problem, 0) end
end

--- The update of a table's column after its pushes.
---@return fun(c: ffi.cdata*) of the table in C
---@private
function optim.column_update(o, column, dim)
  local room = work(o, dim)
  return function(c) guarded(room, rows_update, c, column, dim) end
end

--- The update of a dense weight of so many numbers after its steps.
---@return fun(c: ffi.cdata*) of the param in C
---@private
function optim.param_update(o, size)
  local room = work(o, math.min(size, 16384))
  return function(c) guarded(room, pieces_update, c) end
end

--- An optimizer from what stands for one: itself, a name, or plain data as in a recipe or a store,
--- { rule = "adam", lr = 0.001, ... }.
---@param o table|string
---@return table
---@private
function optim.of(o)
  if type(o) == "string" then return optim.new(o) end
  if getmetatable(o) == Optim then return o end
  if type(o) ~= "table" or not o.rule then
    err.raise('expected an optimizer such as mr.optim.adam { lr = 0.001 } or { rule = "adam" }, got %s',
      type(o) == "table" and "a table without a rule" or type(o))
  end
  local settings = {}
  for name, value in pairs(o) do
    if name ~= "rule" and name ~= "kind" then settings[name] = value end -- the rule has its kind
  end
  return optim.new(o.rule, settings)
end

--- The same, but settings without a rule are those of a given rule: { lr = 0.1 } is its with another rate.
---@param o table|string|nil nil: the given one
---@param base table|string see optim.of
---@return table
---@private
function optim.over(o, base)
  base = optim.of(base)
  if o == nil then return base end
  if type(o) ~= "table" or getmetatable(o) == Optim or o.rule then return optim.of(o) end
  local own = optim.in_lua(base)
  local settings = {}
  for name, value in pairs(own and {} or base) do
    if name ~= "rule" and name ~= "kind" then settings[name] = value end
  end
  for name, value in pairs(o) do
    if own and name ~= "lr" then
      err.raise("optimizer %s: only its lr can be set by itself, not %s", base.rule, tostring(name))
    end
    settings[name] = value
  end
  if own then return optim.with_lr(base, settings.lr) end
  return optim.new(base.rule, settings)
end

--- Fills in a C description.
---@param o table|string see optim.of
---@param to ffi.cdata* an mr_optim
---@private
function optim.write(o, to)
  o = optim.of(o)
  ffi.fill(to, ffi.sizeof("mr_optim"))
  for name, value in pairs(o) do
    if WORDS[name] then
      to[FIELDS[name]] = WORDS[name][value]
    elseif name ~= "rule" and name ~= "update" and name ~= "settings" then
      to[name] = value
    end
  end
end

--- The same rule with another learning rate.
---@private
function optim.with_lr(o, lr)
  if type(lr) ~= "number" then err.raise("lr is a %s, expected a number", type(lr)) end
  local copy = setmetatable({}, Optim)
  for name, value in pairs(o) do copy[name] = value end
  copy.lr = lr
  return copy
end

return optim

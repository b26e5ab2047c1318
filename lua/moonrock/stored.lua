--- What a store's code sees of the library: what declares models and schemas, made for it from the lists
-- below, and nothing that opens, reads, writes, finds files, trains or scores. The code runs in a box
-- (moonrock.sandbox).
local C = require "moonrock.ffi"
local err = require "moonrock.error"
local sandbox = require "moonrock.sandbox"
local source = require "moonrock.source"

local stored = {}

-- ---- objects -----------------------------------------------------------------------------------

local ARITHMETIC = { "__add", "__sub", "__mul", "__div", "__unm" }
local TENSOR = { "sum", "mean", "max", "softmax", "relu", "sigmoid", "tanh", "leaky_relu", "gelu", "silu",
  "exp", "log", "sqrt", "abs", "square", "matmul", "slice", "transpose", "reshape", "flatten", "rank", "dim",
  "shape", "count", "value", "get" }

local Row = {} -- a lookup's columns by name

-- What a method of `m` is called with, but for `m`, in whose place a table of the box may stand.
local function without_self(box, n, _, ...) return nil, sandbox.into_all(box, n - 1, ...) end

local function declare_classes(box)
  local tape, pool = require "moonrock.tape", require "moonrock.pool"
  local Param, Table, reader = require "moonrock.param", require "moonrock.table", require "moonrock.reader"
  box:class(tape.Tensor, { methods = TENSOR, operators = ARITHMETIC })
  local param = { "name", "shape" }
  local of_param = {}
  for _, name in ipairs(TENSOR) do
    if name ~= "shape" then of_param[#of_param + 1] = name end
  end
  box:class(Param, { methods = of_param, operators = ARITHMETIC, fields = param })
  box:class(pool.Column, { methods = { "sum", "mean", "sqrtn", "weighted_mean", "max", "fields", "sequence" },
    operators = ARITHMETIC, fields = { "name", "dim", "table" } })
  box:class(reader.Batch, { methods = { "keys" },
    fields = { "n", "epoch", "last_of_epoch", "label", "weight" } })
  local rows = box:class(Row, { rows = true })
  local table_class = box:class(Table, { fields = { "name" } })
  table_class.__call = box:host(function(t, batch) return stored.row(t(batch)) end)
  box.class_of = function(value)
    if stored.rows[value] then return rows end
    local of_batch = rawget(value, "batch") ~= nil and rawget(value, "name") ~= nil -- labels, keys
    return of_batch and box.opaque or nil
  end
  box:class(require("moonrock.element").Symbol, { methods = { "max", "min", "exp", "log", "sqrt", "abs",
    "relu", "sigmoid", "tanh" }, operators = ARITHMETIC })
end

stored.rows = setmetatable({}, { __mode = "k" }) -- tables of a lookup's columns, which are used again

function stored.row(row)
  stored.rows[row] = true
  return row
end

-- ---- the library -------------------------------------------------------------------------------

local function functions(box, library, names)
  local made = {}
  for _, name in ipairs(names) do made[name] = box:host(library[name]) end
  return made
end

-- All functions of a module that has none but those that declare and compute.
local function all(box, into, library)
  for name, f in pairs(library) do
    if type(f) == "function" then into[name] = box:host(f) end
  end
end

-- A table with functions in it, which other tables of a box may not have.
local function spec_of(box, spec)
  if type(spec) ~= "table" then return box:into(spec) end
  local copy = {}
  for key, value in next, spec do copy[key] = box:into(value) end
  return copy
end

-- A function of symbols with as many parameters as the box's, which tells how many there are.
local function of_arity(f, n)
  if n == 1 then return function(a) return f(a) end end
  if n == 2 then return function(a, b) return f(a, b) end end
  if n == 3 then return function(a, b, c) return f(a, b, c) end end
  if n == 4 then return function(a, b, c, d) return f(a, b, c, d) end end
  return f
end

local function operation(box)
  local tape = require "moonrock.tape"
  return box:host(tape.operation, function(_, _, spec)
    local copy = spec_of(box, spec)
    if type(spec) == "table" and type(copy.element) == "function" then
      local element = rawget(spec, "element")
      copy.element = of_arity(copy.element, debug.getinfo(element, "u").nparams)
    end
    return copy
  end)
end

local function optimizer(box)
  return box:host(require("moonrock.optim").user, function(_, _, spec) return spec_of(box, spec) end)
end

-- A model's function gets this for `m`; layers get the host's side of it. `m` is what they declare in.
local function checked(name, bytes)
  local limit = C.mr_memory_limit()
  if not (bytes <= limit) then
    err.raise("%s: needs %.0f MB of memory at least, the process may use %.0f MB (--memory)", name,
      bytes / 1e6, limit / 1e6)
  end
end

local function declarations(model)
  local m = { name = model.name, seed = model.seed }
  function m.param(_, name, shape, options)
    local count = 1
    for _, d in ipairs(type(shape) == "table" and shape or {}) do count = count * (tonumber(d) or 1) end
    checked(("param %q"):format(tostring(name)), 8 * count)
    return model:param(name, shape, options)
  end
  function m.table(_, name, columns, options)
    local t = model:table(name, columns, options)
    checked(("table %q"):format(tostring(name)), C.mr_memory_floor())
    return t
  end
  function m.fields() return model:fields() end
  return m
end

-- What a layer declares in: `m`, or a table of the box that stands in front of it, as in models/ensemble.lua.
local function declare_in(box, m)
  if box.real[m] ~= nil then return box.real[m] end
  if type(m) ~= "table" then return box:into(m) end
  local function method(name)
    return function(_, ...)
      local n, given = select("#", ...), { ... }
      for i = 1, n do given[i] = given[i] ~= nil and { box:out(given[i]) } or {} end
      local result
      box:raw(function()
        for i = 1, n do given[i] = given[i][1] end
        result = m[name](m, unpack(given, 1, n))
      end)
      return box:into(result)
    end
  end
  return { param = method "param", table = method "table", fields = method "fields" }
end

local function with_model(box, n, m, ...)
  if n == 0 then return end
  return declare_in(box, m), select(2, sandbox.into_all(box, n, nil, ...))
end

local function facade(box, model)
  local host = declarations(model)
  local class = box:class(nil, {})
  local methods = { name = host.name, seed = host.seed }
  for _, name in ipairs { "param", "table", "fields" } do
    methods[name] = box:host(host[name], without_self)
  end
  class.__index = function(_, key) return methods[key] end
  return box:proxy(host, class)
end

local OPTIM = { "new", "with_lr" }
local INIT = { "constant", "zeros", "ones", "uniform", "normal", "truncated_normal", "xavier_normal",
  "xavier_uniform", "he_normal", "he_uniform", "quantile" }
local SCHEMA = { "category", "categories", "numeric", "bucket", "cross", "schema" }
-- Functions whose first argument is the model.
local LAYERS = { linear = true, batch_norm = true, layer_norm = true, prelu = true, dice = true,
  activation = true, mlp = true, frequency = true, cross_network = true, cin = true,
  multi_head_attention = true, attention_pool = true, squeeze_excitation = true, mmoe = true }

-- Definitions are the box's own tables, so that a model can be made of another's.
local function define(name, build, settings)
  if type(name) ~= "string" or type(build) ~= "function" then
    error("mr.model: expected a name and a function", 2)
  end
  return { name = name, build = build, settings = settings }
end

local function library(box, modules)
  local M = { version = require("ffi").string(C.mr_version()), model = define }
  for _, name in ipairs { "layers", "interactions", "attention", "gates", "losses" } do
    for key, f in pairs(require("moonrock." .. name)) do
      if type(f) == "function" then M[key] = box:host(f, LAYERS[key] and with_model) end
    end
  end
  local pool, optim, schema = require "moonrock.pool", require "moonrock.optim", require "moonrock.schema"
  all(box, M, { fm = pool.fm, bi_interaction = pool.bi_interaction, ffm = pool.ffm })
  M.optim = functions(box, optim, OPTIM)
  for _, rule in ipairs(optim.rules) do M.optim[rule] = box:host(optim[rule]) end
  M.optim.rules = { unpack(optim.rules) }
  M.init = functions(box, require "moonrock.initializer", INIT)
  M.schedule = {}
  all(box, M.schedule, require "moonrock.schedule")
  M.optimizer, M.operation = optimizer(box), operation(box)
  for key, f in pairs(functions(box, schema, SCHEMA)) do M[key] = f end
  local text_of = box:host(function(name)
    return source.shipped_text(name) or type(name) == "string" and rawget(modules, name)
      or err.raise("mr.find: a store's code finds shipped models and the store's modules, not %s",
        err.show(name))
  end)
  function M.find(name) return box:load(text_of(name), name) end
  return M
end

local function environment(kept, subject, fast)
  local box = sandbox.new(subject, fast)
  declare_classes(box)
  local modules = type(kept.modules) == "table" and kept.modules or {}
  local M = library(box, modules)
  local loaded = { moonrock = M, bit = box.env.bit }
  local text_of = box:host(function(name)
    if type(name) ~= "string" then err.raise("require: expected a name, got %s", err.show(name)) end
    return rawget(modules, name) or name:match "^models%." and source.shipped_text(name:sub(8))
      or err.raise("a store's code may not require %q", name)
  end)
  function box.env.require(name)
    if loaded[name] == nil then
      local result = box:load(text_of(name), name)
      loaded[name] = result == nil or result
    end
    return loaded[name]
  end
  return box
end

-- ---- models and schemas ------------------------------------------------------------------------

--- The definition of a model that a store keeps.
---@param kept table what the store says of its model
---@param dir string the store, for errors
---@param fast boolean its code is compiled, and has no limits of time once it is built
---@return table definition
function stored.definition(kept, dir, fast)
  local box = environment(kept, ("store %s: the code of model %s"):format(dir, kept.name), fast)
  local made = box:run(kept.source, kept.module or kept.name)
  local build = type(made) == "table" and rawget(made, "build")
  if type(build) ~= "function" or type(rawget(made, "name")) ~= "string" then
    err.raise("store %s: the code of model %s returns no mr.model(...)", dir, kept.name)
  end
  local Model, settings = require "moonrock.model", {}
  local given = rawget(made, "settings")
  for name, value in next, type(given) == "table" and given or {} do
    if name ~= "options" then settings[name] = value end -- they were checked when the store was made
  end
  local definition = Model.define(rawget(made, "name"), function(model, opt)
    local options = {}
    for name, value in pairs(opt) do options[name] = value end
    local m = facade(box, model)
    local forward, own_loss = box:raw(build, m, box:out(options))
    box:built()
    return forward, own_loss
  end, box:into(settings))
  definition.source = { text = kept.source, module = kept.module }
  definition.stored_modules = kept.modules
  return definition
end

--- A schema whose store keeps its code alone.
---@return Schema
function stored.schema(kept, dir)
  local box = environment(kept, ("store %s: the code of its schema"):format(dir), false)
  return box:into(box:run(kept.schema.source, kept.schema.module or "schema"))
end

return stored

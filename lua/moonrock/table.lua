--- Tables: rows of named columns behind 64-bit keys (runtime/table/table.c). Calling one with a batch
-- pulls the batch's rows and returns their columns: `local r = row(x)`, then `r.w:sum()`.
local ffi = require "ffi"
local C = require "moonrock.ffi"
local check = require "moonrock.check"
local clip = require "moonrock.clip"
local err = require "moonrock.error"
local handle = require "moonrock.handle"
local initializer = require "moonrock.initializer"
local optim = require "moonrock.optim"
local pool = require "moonrock.pool"
local tape = require "moonrock.tape"

local Table = {}
Table.__index = Table

local BATCH = ffi.typeof "mr_batch" -- and pointers to it

-- Raises that a table has no such column, and which it has.
local function no_column(t, column)
  err.raise("table %q has no column %s; it has %s", t.name, err.show(column), table.concat(t.names, ", "))
end

local RINGS = 16 -- lookups of this many pulls have handles of their own

local function sorted_names(columns)
  local names = {}
  for name in pairs(columns) do names[#names + 1] = name end
  table.sort(names)
  return names
end

local function column_check(name, at, column, option)
  if type(column) ~= "table" then
    err.raise("table %q: column %q is a %s, expected { dim = , init = , optim = }", name, at,
      type(column))
  end
  for key in pairs(column) do
    if not option[key] then
      err.raise("table %q: column %q has no option %q, expected dim, init, optim, admit or precision", name,
        at, tostring(key))
    end
  end
  if at:find("/", 1, true) then
    err.raise("table %q: column %q has a / in its name, which parts the names of records", name, at)
  end
  local dim = column.dim
  if type(dim) ~= "number" or dim < 1 or dim > 65535 or dim % 1 ~= 0 then
    err.raise("table %q: column %q has dim %s, expected a whole number from 1 to 65535", name, at,
      err.show(dim))
  end
end

local COLUMN_OPTIONS = { dim = true, init = true, optim = true, admit = true, precision = true }
local PRECISIONS = { float32 = 0, bf16 = 1 }

local OPTIONS = { ttl = true, admission = true, max_rows = true, shrink_every = true, shrink_by = true,
  half_life = true, clip_each = true }
local ADMISSION = { count = true, chance = true, keys = true, error = true, initial = true }

local UNIT = { s = 1, m = 60, h = 3600, d = 86400, w = 7 * 86400 }

--- Seconds of "30d", "12h", "15m", "10s", "2w" or a number; nil for anything else.
---@param text string|number
---@private
function Table.seconds(text)
  if type(text) == "number" then return text >= 0 and text or nil end
  local number, unit = tostring(text):match("^([%d.]+)%s*([smhdw]?)$")
  return tonumber(number) and tonumber(number) * (UNIT[unit] or 1)
end

local function check_number(name, what, value, low, high)
  if type(value) ~= "number" or not (value >= low and value <= high) then
    err.raise("table %q: %s is %s, expected a number from %g to %g", name, what, tostring(value), low, high)
  end
  return value
end

-- How often a key has to be seen until a column is trained; 0: at once.
local function admit_of(name, column, admission)
  if admission and admission.chance then return (column.admit == false) and 0 or 2 end
  local count = column.admit or admission and admission.count or 0
  return check_number(name, "admission: count", count, 0, 15)
end

local function half_of(name, at, precision)
  return PRECISIONS[precision or "float32"]
    or err.raise('table %q: column %q has precision %s, expected "bf16" or "float32"', name, at,
      err.show(precision))
end

-- The options of a table: those of the model's user (--ttl, --admit, --max-rows) where it names none.
local function options_of(name, given, defaults)
  local o = {}
  for key, value in pairs(given or {}) do
    if not OPTIONS[key] then err.raise("table %q has no option %q", name, tostring(key)) end
    o[key] = value
  end
  if o.ttl == nil then o.ttl = defaults.ttl end
  if o.max_rows == nil then o.max_rows = defaults.max_rows end
  local admit = defaults.admit
  if o.admission == nil and admit and admit ~= 0 then
    o.admission = admit < 1 and { chance = admit } or { count = admit }
  end
  for key in pairs(o.admission or {}) do
    if not ADMISSION[key] then err.raise("table %q: admission has no option %q", name, tostring(key)) end
  end
  return o
end

local function apply(self, o, admits)
  local c, name = self.c, self.name
  local seconds = o.ttl and (Table.seconds(o.ttl)
    or err.raise('table %q: ttl is %s, expected a time such as "30d"', name, tostring(o.ttl)))
  if seconds then err.check(C.mr_table_expiry(c, seconds)) end
  if o.max_rows then self.max_rows = check_number(name, "max_rows", o.max_rows, 1, 2 ^ 53) end
  self.clip_each = clip.check(("table %q"):format(name), "clip_each", o.clip_each)
  self.shrink_every, self.shrink_by, self.half_life = o.shrink_every, o.shrink_by, o.half_life
  if not admits then return end
  local a, given = ffi.new "mr_admission", o.admission or {}
  a.keys, a.error = given.keys or 1e6, given.error or 0.01
  a.chance = given.chance or 0
  a.initial = given.initial and 1 or 0
  err.check(C.mr_table_admission(c, a))
end

--- Makes a table. Columns are kept in the order of their names.
---@param name string
---@param id integer its number in the store, from 0
---@param seed integer|ffi.cdata* the model's
---@param columns table<string, { dim: integer, init: any, optim: table, admit: integer, precision: string }>
--- admit: how often a key has to be seen in training until the column is trained; precision = "bf16": its
--- weights take half the room, and so does their state unless the rule is AMSGrad, row_adagrad or in Lua
---@param default_optim table for columns that name none
---@param options table|nil ttl: a row lives so long after its last gradient (seconds, "30d");
--- admission = { count = 3 } or { chance = 0.1 }, keys = how many there may be (1e6), error = of the
--- filter (0.01), initial = true: columns are what they will begin with until then, instead of 0;
--- max_rows: so many stay, the best by shrink_by ("step", "count", "norm" or "score", which takes
--- half_life in steps), checked every shrink_every steps (10000); clip_each: see moonrock.clip
---@param defaults table|nil ttl, admit, max_rows, precision of the model's user
---@return table
---@private
function Table.new(name, id, seed, columns, default_optim, options, defaults)
  if type(columns) ~= "table" or next(columns) == nil then
    err.raise("table %q: expected columns, as { w = { dim = 1 } }", name)
  end
  defaults = defaults or {}
  local o = options_of(name, options, defaults)
  local admits = false
  local names = sorted_names(columns)
  local description = ffi.new("mr_column[?]", #names)
  local anchors, rules = {}, {}
  for i, column_name in ipairs(names) do
    local column = columns[column_name]
    column_check(name, column_name, column, COLUMN_OPTIONS)
    anchors[i] = column_name
    description[i - 1].name = column_name
    description[i - 1].dim = column.dim
    description[i - 1].admit = admit_of(name, column, o.admission)
    description[i - 1].half = half_of(name, column_name, column.precision or defaults.precision)
    admits = admits or description[i - 1].admit > 1
    local subject = ("table %q: column %q"):format(name, column_name)
    err.call(subject, initializer.write, column.init, description[i - 1].init)
    rules[i] = err.call(subject, optim.over, column.optim, default_optim)
    err.call(subject, optim.write, rules[i], description[i - 1].optim)
  end
  local c = err.check(C.mr_table_new(name, id, seed, description, #names))
  local self = setmetatable({ c = ffi.gc(c, C.mr_table_free), name = name, id = id,
    subject = ("table %q"):format(name),
    names = anchors, dims = {}, rings = {}, ring = 0, base_lr = {} }, Table)
  local updates = {}
  for i, column_name in ipairs(names) do
    self.dims[i] = columns[column_name].dim
    self.base_lr[i] = C.mr_table_optim(c, i - 1).lr
    if optim.in_lua(rules[i]) then
      updates[#updates + 1] = optim.column_update(rules[i], i - 1, self.dims[i])
    end
  end
  self.updates = updates[1] and updates -- of optimizers in Lua
  apply(self, o, admits)
  local others = { __index = function(_, column) no_column(self, column) end }
  for r = 1, RINGS do
    local row = setmetatable({}, others)
    for i, column_name in ipairs(names) do
      row[column_name] = pool.column(name, column_name, i - 1, self.dims[i])
    end
    self.rings[r] = row
  end
  return self
end

--- Looks up the rows of a batch's keys, each distinct key once. The columns returned last until
-- the step is over.
---@param batch table
---@return table<string, table> columns by name
function Table:__call(batch)
  if type(batch) ~= "table" or not ffi.istype(BATCH, batch.c) then
    err.raise("table %q: expected a batch, got %s", self.name, type(batch))
  end
  handle.idle(self.subject, "a lookup")
  local t = tape.current
  if not t then err.raise("table %q: looked up outside of a model's function", self.name) end
  local lookup = C.mr_table_pull(self.c, t.c, batch.c)
  if lookup == -2 and self.relieve then
    self.relieve()
    lookup = C.mr_table_pull(self.c, t.c, batch.c)
  end
  if lookup < 0 then err.check(lookup) end
  self.ring = self.ring % RINGS + 1
  local row = self.rings[self.ring]
  for i = 1, #self.names do
    pool.bind(row[self.names[i]], t, lookup)
  end
  return row
end

--- Scales every column's learning rate by a factor of the one it was made with.
---@param factor number
---@private
function Table:scale_lr(factor)
  for i = 1, #self.names do
    C.mr_table_optim(self.c, i - 1).lr = self.base_lr[i] * factor
  end
end

--- After a push: runs the columns' optimizers that are written in Lua.
---@private
function Table:update()
  for i = 1, #self.updates do self.updates[i](self.c) end
  C.mr_table_drop(self.c)
end

-- Learning rates by step are kept for columns whose l2 or decay is of the whole table.
local function rates_name(self, i) return ("rates/%s/%s"):format(self.name, self.names[i]) end
local len = ffi.new "size_t[1]"

--- Puts them into the commit that a store has begun.
---@param store table
---@private
function Table:save_rates(store)
  for i = 1, #self.names do
    local bytes = C.mr_table_rates(self.c, i - 1, len)
    if len[0] > 0 then
      store:put(rates_name(self, i), bytes, tonumber(len[0]))
    elseif self.had_rates and self.had_rates[i] then
      store:remove(rates_name(self, i))
    end
  end
end

--- Reads those of the last commit.
---@param store table
---@private
function Table:load_rates(store)
  self.had_rates = {}
  for i = 1, #self.names do
    local bytes = store:get(rates_name(self, i))
    self.had_rates[i] = bytes ~= nil
    if bytes then err.check(C.mr_table_rates_load(self.c, i - 1, bytes, #bytes)) end
  end
end

--- Number of rows that were ever updated.
---@return integer
function Table:rows() return C.mr_table_rows(self.c) end

--- The weights of a key, as they are or as they would begin.
---@param key integer|ffi.cdata*
---@param column string
---@return number[] weights
---@return number[] state of the optimizer
---@return integer updates so far; 0 for a key without a row
function Table:peek(key, column)
  check.key("peek", key)
  for i, name in ipairs(self.names) do
    if name == column then
      local n = C.mr_table_state(self.c, i - 1)
      local out = ffi.new("float[?]", n)
      local updates = err.check(C.mr_table_peek(self.c, i - 1, key, out))
      local weights, state = {}, {}
      for k = 0, n - 1 do
        if k < self.dims[i] then weights[k + 1] = out[k] else state[k - self.dims[i] + 1] = out[k] end
      end
      return weights, state, updates
    end
  end
  no_column(self, column)
end

--- The columns as one line of text.
function Table:layout()
  local parts = {}
  for i, name in ipairs(self.names) do
    local floats = C.mr_table_state(self.c, i - 1)
    local half = C.mr_table_half(self.c, i - 1)
    parts[i] = ("%s dim %d%s optimizer %s state %d%s"):format(name, self.dims[i], half > 0 and " bf16" or "",
      optim.name(C.mr_table_optim(self.c, i - 1).kind), floats - self.dims[i], half > 1 and " bf16" or "")
  end
  return table.concat(parts, ", ")
end

function Table:__tostring()
  return ("table %q: %d rows\n  %s"):format(self.name, self:rows(), (self:layout():gsub(", ", "\n  ")))
end

--- Frees it. What was looked up in it is over.
---@private
function Table:free()
  handle.idle(self.subject, "it is freed")
  if self.owner then
    err.raise("%s: it is %s's, which frees it when it is closed", self.subject, self.owner.subject)
  end
  handle.close(self, self.subject .. ": it was freed; make it again", C.mr_table_free)
end

local new = Table.new
handle.public(Table, "table", { new = true, seconds = true, update = true, scale_lr = true,
  save_rates = true })
Table.new = err.public("table", new)
return Table

--- What a store and a model must agree on: tables with their columns, and dense weights, matched by
-- name. A store keeps every layout that a table's records were ever written in, by number; a model
-- whose columns are others writes a new one and reads the old ones too.
local ffi = require "ffi"
local C = require "moonrock.ffi"
local err = require "moonrock.error"

local layout = {}

-- What of a column is in half precision, or nil.
local function half_of(t, i)
  local half = C.mr_table_half(t.c, i - 1)
  return half ~= 0 and half or nil
end

local function columns_of(t)
  local list = {}
  for i, name in ipairs(t.names) do
    list[i] = { name = name, dim = t.dims[i], kind = C.mr_table_optim(t.c, i - 1).kind,
      state = C.mr_table_state(t.c, i - 1) - t.dims[i], half = half_of(t, i) }
  end
  return list
end

local function same_columns(a, b)
  if #a ~= #b then return false end
  for i, x in ipairs(a) do
    local y = b[i]
    if x.name ~= y.name or x.dim ~= y.dim or x.kind ~= y.kind or x.state ~= y.state or x.half ~= y.half then
      return false
    end
  end
  return true
end

local function by_name(list, name)
  for _, item in ipairs(list) do
    if item.name == name then return item end
  end
end

--- The number of a table in the store: the one it has, or a free one.
---@param kept table|nil what the store keeps
---@param taken table[] tables made so far
---@param name string
function layout.id(kept, taken, name)
  local old = kept and by_name(kept.tables, name)
  if old then return old.id end
  local id = 0
  for _, t in ipairs(kept and kept.tables or {}) do id = math.max(id, t.id + 1) end
  for _, t in ipairs(kept and kept.dropped or {}) do id = math.max(id, t + 1) end
  for _, t in ipairs(taken) do id = math.max(id, t.id + 1) end
  return id
end

-- Tells C which columns the records of a layout have.
local function register(t, number, columns)
  local list = ffi.new("mr_kept_column[?]", #columns)
  for i, column in ipairs(columns) do
    list[i - 1].name, list[i - 1].dim = column.name, column.dim
    list[i - 1].state, list[i - 1].kind = column.state, column.kind
    list[i - 1].half = column.half or 0
  end
  err.check(C.mr_table_layout(t.c, number, list, #columns))
end

--- Tells a table of all layouts that its records are in; the last one is the table's own.
---@param t table { c = }
---@param layouts table[]
function layout.register(t, layouts)
  for number, columns in ipairs(layouts) do register(t, number, columns) end
  err.check(C.mr_table_layout_now(t.c, #layouts))
end

--- What a store keeps of the model as it is.
---@param m table
---@return table
function layout.of(m)
  local tables, params = {}, {}
  for i, t in ipairs(m.tables) do
    tables[i] = { name = t.name, id = t.id, layouts = t.layouts or { columns_of(t) } }
  end
  for i, p in ipairs(m.params) do
    params[i] = { name = p.name, shape = table.concat(p.shape, "x") }
  end
  return { tables = tables, params = params, dropped = m.dropped_ids }
end

-- A table's old layouts, and a new one where its columns are not those of the last; what is new and what
-- would be lost goes into the lists.
local function adapt_table(t, old, news, losses)
  local now, last = columns_of(t), old.layouts[#old.layouts]
  local changed = not same_columns(now, last)
  for _, was in ipairs(last) do
    local is = by_name(now, was.name)
    if not is then
      losses[#losses + 1] = ("column %q of table %q (dim %d)"):format(was.name, t.name, was.dim)
    elseif is.dim ~= was.dim then
      losses[#losses + 1] = ("column %q of table %q has dim %d there, %d in the model"):format(was.name,
        t.name, was.dim, is.dim)
    elseif is.kind ~= was.kind or is.state ~= was.state then
      news[#news + 1] = ("column %q of table %q has another optimizer: its weights stay, its state "
        .. "begins anew"):format(was.name, t.name)
    elseif is.half ~= was.half then
      news[#news + 1] = ("column %q of table %q is in %s there, in %s from now on"):format(was.name, t.name,
        was.half and "bf16" or "float32", is.half and "bf16" or "float32")
    end
  end
  for _, is in ipairs(now) do
    if not by_name(last, is.name) then
      news[#news + 1] = ("column %q of table %q is new"):format(is.name, t.name)
    end
  end
  t.layouts = {}
  for i, columns in ipairs(old.layouts) do t.layouts[i] = columns end
  if changed then t.layouts[#t.layouts + 1] = now end
  layout.register(t, t.layouts)
end

--- Matches the model with what its store keeps. What would be lost is refused unless options allow it;
--- then it is dropped by the next commit.
---@param m table
---@param kept table layout.of an earlier model
---@param options table allow_drop, on_notice, read_only
function layout.adapt(m, kept, options)
  local news, losses = {}, {}
  local dropped = { tables = {}, params = {} }
  m.dropped_ids = kept.dropped
  for _, old in ipairs(kept.tables) do
    local t = by_name(m.tables, old.name)
    if t then
      adapt_table(t, old, news, losses)
    else
      losses[#losses + 1] = ("table %q"):format(old.name)
      dropped.tables[#dropped.tables + 1] = old
    end
  end
  for _, t in ipairs(m.tables) do
    if not by_name(kept.tables, t.name) then news[#news + 1] = ("table %q is new"):format(t.name) end
  end
  for _, old in ipairs(kept.params) do
    local p = by_name(m.params, old.name)
    local shape = p and table.concat(p.shape, "x")
    if shape ~= old.shape then
      losses[#losses + 1] = p and ("param %q is %s there, %s in the model"):format(old.name, old.shape,
        shape) or ("param %q (%s)"):format(old.name, old.shape)
      dropped.params[old.name] = true
    end
  end
  for _, p in ipairs(m.params) do
    if not by_name(kept.params, p.name) then news[#news + 1] = ("param %q is new"):format(p.name) end
  end
  if #losses > 0 and not options.allow_drop then
    err.raise("store %s: going on with this model would lose what the store has: %s. Use the model and the "
      .. "options it was made with, another --store, or --allow-drop", m.directory,
      table.concat(losses, "; "))
  end
  if options.on_notice then
    for _, text in ipairs(news) do options.on_notice(("store %s: %s"):format(m.directory, text)) end
    for _, text in ipairs(losses) do
      options.on_notice(("store %s: dropped: %s"):format(m.directory, text))
    end
  end
  return dropped
end

return layout

--- Dropping the rows that are worth least: `model:shrink{...}`, and tables with `max_rows`.
local ffi = require "ffi"
local C = require "moonrock.ffi"
local err = require "moonrock.error"

local shrink = {}

local SHRINK_EVERY = 10000 -- steps

local BY = { step = C.MR_BY_STEP, count = C.MR_BY_COUNT, norm = C.MR_BY_NORM, score = C.MR_BY_SCORE }

local OPTIONS = { table = "string", min_count = "number", min_norm = "number", min_score = "number",
  half_life = "number", max_rows = "number", by = "string", column = "string", forget = "number",
  dry_run = "boolean" }

local function check(o)
  for name, value in pairs(o) do
    local kind = OPTIONS[name]
    if not kind then err.raise("shrink has no option %q", tostring(name)) end
    if type(value) ~= kind then err.raise("shrink: %s is a %s, expected a %s", name, type(value), kind) end
    if kind == "number" and not (value >= 0 and value < math.huge) then
      err.raise("shrink: %s is %g, expected 0 or more", name, value)
    end
  end
  if o.by and not BY[o.by] then
    err.raise("shrink: by is %q, expected step, count, norm or score", o.by)
  end
  if (o.min_score or o.max_rows and o.by == "score") and not (o.half_life and o.half_life > 0) then
    err.raise("shrink: a score needs half_life, in steps")
  end
  if not (o.min_count or o.min_norm or o.min_score or o.max_rows or o.forget) then
    err.raise("shrink: expected min_count, min_norm, min_score, max_rows or forget")
  end
end

local function column_number(t, name)
  if not name then return -1 end
  for i, column in ipairs(t.names) do
    if column == name then return i - 1 end
  end
  err.raise("table %q has no column %q", t.name, name)
end

-- Shrinks tables, each by options of its own, in one commit.
local function run(model, tables, options, dry_run)
  local store = model.store
  if not store then err.raise("model %s: it shrinks in its store, and has none", model.name) end
  if model.open then err.raise("model %s: shrink it after model:step(), not before", model.name) end
  if model.batches_since > 0 and not model.read_only then model:commit() end
  model.train_tape:reset()
  model.eval_tape:reset() -- it may show rows that go
  local what = ffi.new("mr_shrink[?]", #tables)
  for i, t in ipairs(tables) do
    local o, w = options[i], what[i - 1]
    w.table = t.c
    w.min_count, w.min_norm, w.min_score = o.min_count or 0, o.min_norm or 0, o.min_score or 0
    w.half_life, w.max_rows, w.forget = o.half_life or 0, o.max_rows or -1, o.forget or -1
    w.by, w.column = BY[o.by or "step"], column_number(t, o.column)
  end
  err.check(C.mr_store_shrink(store.c, what, #tables, dry_run and 1 or 0))
  local dropped, told = 0, {}
  for i, t in ipairs(tables) do
    told[i] = { name = t.name, rows = what[i - 1].rows, dropped = what[i - 1].dropped }
    dropped = dropped + told[i].dropped
  end
  return dropped, told
end

--- Drops rows: those below a minimum, and then those worth least until max_rows are left. Everything
--- is committed first; the drops are a commit of their own, at the same step. A key that was dropped
--- is a new one when it is seen again.
---@param model table
---@param o table table (its name; by default all tables), min_count (updates), min_norm (L2 norm of
--- the weights), min_score (count halved every half_life steps since the last update), half_life,
--- max_rows with by = "step" | "count" | "norm" | "score", column (by default the one with most
--- updates, and for norms the widest), forget (drops of this step and before will not be asked for by a
--- delta any more), dry_run (only counts)
---@return number dropped rows
---@return table tables { { name =, rows =, dropped = }, ... }
function shrink.run(model, o)
  if type(o) ~= "table" then err.raise("shrink: expected a table of options, got %s", type(o)) end
  check(o)
  local tables, options = {}, {}
  for _, t in ipairs(model.tables) do
    if not o.table or o.table == t.name then
      tables[#tables + 1], options[#options + 1] = t, o
    end
  end
  if #tables == 0 then err.raise("model %s: it has no table %q", model.name, tostring(o.table)) end
  return run(model, tables, options, o.dry_run)
end

--- The tables that have a `max_rows` (with shrink_every, shrink_by and half_life), or nil.
function shrink.limits(model)
  local limits
  for _, t in ipairs(model.tables) do
    if t.max_rows then
      check { max_rows = t.max_rows, by = t.shrink_by, half_life = t.half_life }
      if not model.store then
        err.raise("table %q: max_rows needs a store; without one its rows stay in memory", t.name)
      end
      limits = limits or {}
      limits[#limits + 1] = t
    end
  end
  return limits
end

--- Shrinks the tables of `limits` whose turn it is: at steps that are multiples of their shrink_every,
--- so that results depend on nothing else. Once it is done, doing it again changes nothing: a run that
--- was killed in between does it when it goes on.
function shrink.enforce(model, limits)
  local tables, options = {}, {}
  local step = model.step_number
  for _, t in ipairs(limits) do
    if step > 0 and step % (t.shrink_every or SHRINK_EVERY) == 0 and t:rows() > t.max_rows then
      tables[#tables + 1] = t
      options[#options + 1] = { max_rows = t.max_rows, by = t.shrink_by, half_life = t.half_life }
    end
  end
  if #tables > 0 then run(model, tables, options, false) end
end

return shrink

--- A store's model without its code: tables and dense weights as the layouts in the store describe them. It
-- can be looked at and shrunk, not trained or asked for scores.
local ffi = require "ffi"
local json = require "moonrock.json"
local C = require "moonrock.ffi"
local err = require "moonrock.error"
local export = require "moonrock.export"
local Model = require "moonrock.model"
local position = require "moonrock.position"
local size = require "moonrock.size"
local Store = require "moonrock.store"
local Table = require "moonrock.table"
local tape = require "moonrock.tape"

local function table_of(t, kept)
  local columns = kept.layouts[#kept.layouts]
  local made = { c = t.c, name = t.name, id = t.id, names = {}, dims = {}, rings = {}, ring = 0, base_lr = {},
    layouts = kept.layouts }
  for i, column in ipairs(columns) do
    made.names[i], made.dims[i], made.base_lr[i] = column.name, column.dim, 1
  end
  return setmetatable(made, Table)
end

local function dims_of(text)
  local shape = {}
  for d in tostring(text):gmatch "%d+" do shape[#shape + 1] = tonumber(d) end
  return shape
end

local function fill(m, store, kept, cold)
  local by_name = {}
  for _, t in ipairs(kept.layout.tables) do by_name[t.name] = t end
  for i, t in ipairs(export.tables(kept)) do
    m.tables[i] = table_of(t, by_name[t.name])
    store:load(m.tables[i], cold)
  end
  for i, p in ipairs(kept.layout.params) do m.params[i] = { name = p.name, shape = dims_of(p.shape) } end
  local state = json.decode(store:get "state" or "")
  if type(state) ~= "table" then err.raise("store %s: record state: cannot be read", store.dir) end
  m.step_number = state.step
  local data_sets = store:get "data_sets"
  position.load(m, state, data_sets and json.decode(data_sets))
  m.train_tape, m.eval_tape = tape.new(), tape.new()
end

---@param dir string
---@param options? { write?: boolean, cold?: boolean, memory?: number, threads?: integer }
---@return table model
return function(dir, options)
  local o = options or {}
  err.check(C.mr_threads_set(o.threads or 0))
  if o.memory then
    local bytes, problem = size(o.memory)
    if not bytes then err.raise("memory: %s", problem) end
    err.check(C.mr_memory_limit_set(bytes))
  end
  local store = Store.open(dir, o.write and "write" or "read")
  local m
  local ok, problem = pcall(function()
    local kept = export.description(store)
    m = setmetatable({ name = kept.name, subject = "model " .. kept.name, seed = kept.seed,
      opt = kept.options or {}, schema = kept.schema and { name = kept.schema.name }, kept = kept,
      store = store, directory = dir, tables = {}, params = {}, position = ffi.new "mr_position", fit = {},
      batches_since = 0, read_only = not o.write, training = false, step_number = 0 }, Model)
    store.owner = m
    fill(m, store, kept, o.cold)
  end)
  if not ok then
    if m then m:close() else store:close() end
    error(problem, 0)
  end
  return m
end

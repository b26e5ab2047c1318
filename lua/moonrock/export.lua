--- Export and import: a store's last commit as files, and back (runtime/exchange/export.c has the formats).
local ffi = require "ffi"
local json = require "moonrock.json"
local C = require "moonrock.ffi"
local err = require "moonrock.error"
local layout = require "moonrock.layout"
local Model = require "moonrock.model"
local Store = require "moonrock.store"

local export = {}

local FORMATS = { bin = C.MR_EXPORT_BIN, tsv = C.MR_EXPORT_TSV, npy = C.MR_EXPORT_NPY }
export.formats = { "tsv", "npy", "bin" }

-- ---- tables that only understand records ----------------------------------------------------

-- Vectors of state without a momentum, of the rules that may have one.
local PLAIN = { [C.MR_SGD] = 0, [C.MR_RMSPROP] = 1, [C.MR_CENTERED_RMSPROP] = 2 }

-- A table of the columns that a store's description tells of, which reads all of its layouts.
local function decoder(t)
  local columns = t.layouts[#t.layouts]
  local list = ffi.new("mr_column[?]", #columns)
  for i, c in ipairs(columns) do
    local to = list[i - 1]
    to.name, to.dim = c.name, c.dim
    to.optim.kind, to.optim.lr = c.kind, 1
    to.optim.momentum = PLAIN[c.kind] and c.state > PLAIN[c.kind] * c.dim and 0.5 or 0
    to.optim.vectors = c.kind >= C.MR_USER and c.state / c.dim or 0
    to.half = c.half and 1 or 0
  end
  local c = ffi.gc(err.check(C.mr_table_new(t.name, t.id, 0, list, #columns)), C.mr_table_free)
  for i, column in ipairs(columns) do
    if C.mr_table_state(c, i - 1) ~= column.dim + column.state then
      err.raise("table %q: column %q is said to have %d numbers of state, which its optimizer has not",
        t.name, column.name, column.state)
    end
  end
  local made = { name = t.name, id = t.id, c = c }
  layout.register(made, t.layouts)
  return made
end

--- The tables that a store's description of its model tells of, to understand its records by.
---@param description table the record "model"
---@return table[] { name =, id =, c = }
function export.tables(description)
  local tables = {}
  for i, t in ipairs(description.layout.tables) do
    tables[i] = decoder(t)
  end
  table.sort(tables, function(a, b) return a.id < b.id end)
  return tables
end

--- Frees them; each counts in the memory that is promised.
function export.free(tables)
  for _, t in ipairs(tables) do
    C.mr_table_free(ffi.gc(t.c, nil))
    t.c = nil
  end
end

-- Pointers to tables, for C; they live as long as the list.
function export.pointers(tables)
  local list = ffi.new("mr_table *[?]", #tables + 1)
  for i, t in ipairs(tables) do list[i - 1] = t.c end
  return list, #tables
end

--- What a store says of its model.
---@return table
function export.description(store)
  local text = store:get "model"
  local kept = text and json.decode(text)
  if type(kept) ~= "table" then err.raise("store %s: holds no model", store.dir) end
  return kept
end

-- ---- export ---------------------------------------------------------------------------------

--- The format of a path: the one given, or what its ending says; a name without an ending is bin.
---@param path string
---@param format string|nil
---@return string|nil
---@return string|nil problem
function export.format(path, format)
  if format then
    if FORMATS[format] then return format end
    return nil, ("format %q is none of %s"):format(tostring(format), table.concat(export.formats, ", "))
  end
  local ending = path ~= "-" and path:gsub("/+$", ""):match "[^/.][^/]*%.([^./]+)$"
  if not ending then return "bin" end
  if FORMATS[ending] then return ending end
  return nil, ("%s: expected a name that ends in .tsv, .npy or .bin, or a format"):format(path)
end

local function chosen(store, tables, names)
  local by_name, known = {}, {}
  for i, t in ipairs(tables) do by_name[t.name], known[i] = i, t.name end
  local wanted = {}
  for _, name in ipairs(names) do
    if not by_name[name] then
      err.raise("store %s: has no table %q; it has %s", store.dir, name, table.concat(known, ", "))
    end
    wanted[by_name[name]] = true
  end
  local list = {}
  for i, t in ipairs(tables) do
    if wanted[i] then list[#list + 1] = t end
  end
  return list
end

-- The step that rows of an age are after: of so many steps, or seconds.
local function after(store, o)
  local commit = store:info().commit
  if o.age_seconds then
    return err.check(C.mr_store_step_at(store.c, commit.time - o.age_seconds))
  end
  return o.age and math.max(0, commit.step - o.age) or 0
end

--- Writes the last commit of an open store; see export.export.
---@param store table
---@param tables table[]
---@return table { format =, step =, commit =, since =, rows =, drops = }
function export.write(store, tables, path, o)
  o = o or {}
  local format, problem = export.format(path, o.format)
  if not format then err.raise("export: %s", problem) end
  if o.tables and #o.tables > 0 then tables = chosen(store, tables, o.tables) end
  local c = ffi.new "mr_export"
  c.format, c.since = FORMATS[format], o.since or 0
  c.count, c.after = o.min_count or 0, after(store, o)
  c.part = (o.tables and #o.tables > 0 or o.min_count or o.age or o.age_seconds) and 1 or 0
  local list, n = export.pointers(tables)
  err.check(C.mr_store_export(store.c, list, n, c, path))
  local commit = store:info().commit
  return { file = path, format = format, step = commit.step, commit = commit.number,
    since = o.since, rows = tonumber(c.rows), drops = tonumber(c.drops) }
end

--- Writes the last commit of a store as a file. Others may train meanwhile.
---@param dir string
---@param path string the file; npy: a directory; "-": standard output
---@param options table|nil format = "tsv" | "npy" | "bin" (found from the path's ending; bin if it has
--- none), tables = names, min_count =, since = step, age = steps or age_seconds =
---@return table
function export.export(dir, path, options)
  local store = Store.open(dir, "read")
  local ok, result = pcall(function()
    local tables = export.tables(export.description(store))
    local ok, result = pcall(export.write, store, tables, path, options)
    export.free(tables)
    return ok and result or error(result, 0)
  end)
  store:close()
  if not ok then error(result, 0) end
  return result
end

-- ---- import ---------------------------------------------------------------------------------

-- What a path holds: a format, and whether it is a binary export of some rows only.
local function kind_of(path, format)
  if path == "-" then return format or "tsv" end
  local file, problem = io.open(path, "rb")
  if not file then error("import: " .. problem, 0) end
  local head = file:read(16)
  file:close()
  if head and head:sub(1, 8) == "moonrock" then return "bin", head:byte(13) == 1 end
  if format then return format end
  if head == nil and path:match("%.npy/?$") then return "npy" end
  if path:match("%.tsv$") then return "tsv" end
  err.raise("%s: is no binary export of this program; its name says nothing else (.tsv, or a "
    .. "directory .npy): give its format", path)
end

-- Records are taken as they stand, so they have to be of the same columns.
local function check_part(path, kept)
  if err.check(C.mr_export_get(path, "model")) == 0 then err.raise("%s: tells of no model", path) end
  local other = json.decode(ffi.string(C.mr_export_value(), C.mr_export_value_len()))
  local layouts = {}
  for _, t in ipairs(kept.layout.tables) do layouts[t.name] = Store.encode(t.layouts) end
  for _, t in ipairs(other.layout.tables) do
    if layouts[t.name] and layouts[t.name] ~= Store.encode(t.layouts) then
      err.raise("%s: its table %q has other columns than the store's; export it as tsv or npy, which "
        .. "go by the names of columns", path, t.name)
    end
  end
end

local function add_rows(dir, path, format, trust)
  local model, kept = require "moonrock.reopen"(dir, { detached = true, trust = trust })
  if format == "bin" then check_part(path, kept) end
  local store = Store.open(dir, "write")
  local ok, rows = pcall(function()
    local state = json.decode(store:get "state")
    model:scale_lr(state.lr_factor or 1)
    local step = math.max(1, store:info().commit.step)
    store:begin()
    local list, n = export.pointers(model.tables) -- in any order
    local added = err.check(C.mr_import_rows(store.c, list, n, path, FORMATS[format], step))
    if state.step ~= step then -- rows are of a step from 1 on
      state.step = step
      store:put("state", Store.encode(state))
    end
    store:finish(step)
    return added
  end)
  store:close()
  model:close()
  if not ok then error(rows, 0) end
  return rows
end

--- Imports files into a store: a full binary export makes one, deltas after it bring it up to date, all
--- at once; rows (tsv, npy, a binary export of some rows) go into the tables of one that is there, each
--- file as a commit.
---@param dir string
---@param files string|string[]
---@param options table|nil format = "tsv" | "npy", where a path's ending does not tell
---@return table { files =, rows = }
function export.import(dir, files, options)
  if type(files) == "string" then files = { files } end
  local format = options and options.format
  local kinds, whole = {}, 0
  for i, path in ipairs(files) do
    local kind, part = kind_of(path, format)
    kinds[i] = kind
    if kind == "bin" and not part then whole = whole + 1 end
  end
  if whole > 0 and whole < #files then
    err.raise("import: full exports and deltas, and files of rows, go one kind at a time")
  end
  local rows = 0
  if whole > 0 then
    local list = ffi.new("const char *[?]", #files)
    for i, path in ipairs(files) do list[i - 1] = path end
    err.check(C.mr_store_import(dir, list, #files))
  else
    for i, path in ipairs(files) do rows = rows + add_rows(dir, path, kinds[i], options and options.trust) end
  end
  return { files = #files, rows = whole == 0 and rows or nil }
end

--- The last commit of a model's store as a file; see export.export.
function Model:export(path, options)
  if not self.directory then err.raise("model %s: it has no store to export", self.name) end
  return export.export(self.directory, path, options)
end

return export

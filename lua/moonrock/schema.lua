--- Schemas: what the columns of CSV data are, and how they become keys (runtime/data/schema.c).
local ffi = require "ffi"
local C = require "moonrock.ffi"
local err = require "moonrock.error"
local handle = require "moonrock.handle"
local reader = require "moonrock.reader"
local source = require "moonrock.source"

local schema = {}

local Field = {}
Field.__index = Field

local SCALES = { none = C.MR_SCALE_NONE, standard = C.MR_SCALE_STANDARD, log = C.MR_SCALE_LOG,
  log_standard = C.MR_SCALE_LOG_STANDARD }

local function field(kind, column, options, known)
  if type(column) ~= "string" then err.raise("a field: expected a column's name, got a %s", type(column)) end
  local f = setmetatable({ kind = kind, column = column, at = source.caller(),
    where = err.where() }, Field)
  for name, value in pairs(options or {}) do
    if name ~= "name" and not known[name] then
      err.raise("field %q has no option %q", column, tostring(name))
    end
    f[name] = value
  end
  f.name = f.name or column
  return f
end

--- One key for each value of a column.
---@param column string
---@param options? { name?: string }
function schema.category(column, options) return field("category", column, options, {}) end

--- A key for each part of a column's text.
---@param column string
---@param options? { separator?: string, name?: string }
function schema.categories(column, options)
  return field("categories", column, options, { separator = true })
end

--- One key, whose value is the number: as it is, its logarithm, standardised, or both.
---@param column string
---@param options? { scale?: "none"|"standard"|"log"|"log_standard", mean?: number,
--- deviation?: number, name?: string }
function schema.numeric(column, options)
  return field("numeric", column, options, { scale = true, mean = true, deviation = true })
end

--- One key for each interval of a number, between quantiles of the training data or given edges.
---@param column string
---@param options? { quantiles?: integer, edges?: number[], name?: string }
function schema.bucket(column, options)
  local f = field("bucket", column, options, { quantiles = true, edges = true })
  if not (options and options.name) then f.name = column .. ".bucket" end
  return f
end

--- One key for each combination of two or more fields (or columns, as categories).
---@param parts string[] names of fields before it or of columns; `name` names the cross
function schema.cross(parts)
  local names = {}
  for i, part in ipairs(parts) do names[i] = part end
  local f = field("cross", table.concat(names, "*"), { name = parts.name }, {})
  f.parts, f.column = names, nil
  return f
end

---@class Schema
local Schema = {}
Schema.__index = Schema

local KINDS = { category = C.MR_CATEGORY, categories = C.MR_CATEGORIES, numeric = C.MR_NUMERIC,
  bucket = C.MR_BUCKET, cross = C.MR_CROSS }

local OPTIONS = { name = true, format = true, header = true, columns = true, separator = true,
  missing = true, trim = true, quote = true, escape = true, decimal = true, label = true, weight = true,
  fields = true, files = true,
  recipe = true, task = true }

local PARTS = { train = true, valid = true, test = true }

local function byte(text, what)
  if type(text) ~= "string" or #text ~= 1 then
    err.raise("schema: %s is %q, expected one character", what, tostring(text))
  end
  return text:byte()
end

-- Raises what is wrong with a schema at the line of its first field: a file that returns it makes a tail
-- call, which leaves no line.
local function wrong(o, format, ...)
  local message = format:format(...)
  if type(o.fields) == "table" and getmetatable(o.fields[1]) == Field then
    error(("%s: %s"):format(o.fields[1].where, message), 0)
  end
  err.raise("%s", message)
end

-- What C returned; an error of it is the schema's.
local function checked(o, result)
  if result == nil or type(result) == "number" and result < 0 then
    wrong(o, "%s", ffi.string(C.mr_error()))
  end
  return result
end

-- The texts and the numbers of an option; a number among texts alone stands for its text.
local function values_of(o, option, given, numbers)
  local texts = {}
  if type(given) ~= "table" then given = { given } end
  for i, value in ipairs(given) do
    if type(value) == "number" and numbers then
      numbers[#numbers + 1] = value
    elseif type(value) == "string" or type(value) == "number" then
      texts[#texts + 1] = tostring(value)
    else
      wrong(o, 'schema %q: %s: expected texts, as { "1" }, got %s in place %d', o.name or "schema", option,
        type(value) == "boolean" and tostring(value) or "a " .. type(value), i)
    end
  end
  return texts
end

local BLANKS = { blanks = true, [" +"] = true, ["%s+"] = true, ["\\s+"] = true }
local HEADERS = { [true] = C.MR_HEADER_NAMES, [false] = C.MR_HEADER_NONE, skip = C.MR_HEADER_SKIPPED }

local function write_field(f, anchors)
  local c = ffi.new "mr_field"
  anchors[#anchors + 1] = f
  c.kind, c.name, c.column = KINDS[f.kind], f.name, f.column
  c.separator = f.kind == "categories" and byte(f.separator or "|", "a field's separator") or 0
  if f.kind == "numeric" then
    c.scale = SCALES[f.scale or "standard"] or err.raise("field %q: scale is %q, expected none, standard, "
      .. "log or log_standard", f.name, tostring(f.scale))
    if f.mean or f.deviation then
      c.literal, c.mean, c.deviation = 1, f.mean or 0, f.deviation or 1
    end
  elseif f.kind == "bucket" then
    if f.edges then
      c.edges_n = #f.edges
      local edges = ffi.new("double[?]", #f.edges, f.edges)
      anchors[#anchors + 1] = edges
      c.edges = edges
    else
      c.quantiles = f.quantiles or 20
    end
  elseif f.kind == "cross" then
    local parts, n, copy = reader.strings(f.parts)
    anchors[#anchors + 1], anchors[#anchors + 2] = parts, copy
    c.parts, c.parts_n = parts, n
  end
  return c
end

-- Without opening it: it may be a pipe.
local function exists(path) return C.mr_path_kind(path) > 0 end

-- Where a file is that a schema names, from the root: beside the schema, or beside the program it ships with.
local function beside(path, file)
  local folder = path and path:match("^(.*/)[^/]*$") or ""
  local found = file:match("^/") and file or folder .. file
  local program = ffi.string(C.mr_program()):match("^(.*/)[^/]*$") or ""
  for _, place in ipairs { "", program, program .. "../share/lua/5.1/" } do
    if exists(place .. found) then
      found = place .. found
      break
    end
  end
  return ffi.string(err.check(C.mr_path_absolute(found)))
end

-- How cells are written, to C's options.
local function write_cells(o, c)
  local name = o.name or "schema"
  local separator = o.separator or (o.format == "tsv" and "\t" or ",")
  if type(separator) ~= "string" or separator == "" then
    wrong(o, 'schema %q: separator is %s, expected a text such as ";" or "::", or "blanks"', name,
      err.show(separator))
  end
  c.separator = BLANKS[separator] and "" or separator
  local header = o.header
  if header == nil then header = not o.columns end
  c.header = HEADERS[header] or wrong(o, 'schema %q: header is %s, expected true, false or "skip"', name,
    err.show(header))
  c.trim = o.trim ~= false and 1 or 0
  c.quote = o.quote ~= false and 1 or 0
  if o.escape then
    if type(o.escape) ~= "string" or #o.escape ~= 1 then
      wrong(o, 'schema %q: escape is %s, expected one character, as "\\\\"', name, err.show(o.escape))
    end
    c.escape = o.escape:byte()
  end
  local decimal = o.decimal or "."
  if decimal ~= "." and decimal ~= "," then
    wrong(o, 'schema %q: decimal is %s, expected "." or ","', name, err.show(decimal))
  end
  c.decimal = decimal:byte()
end

--- A schema.
---@param o table name, format = "csv" | "tsv", header (true; "skip": the first line is passed), columns
--- (names, without a header), separator (some bytes, or "blanks": a run of spaces and tabs), missing (texts
--- that stand for none), trim (true), quote (true), escape (none), decimal ("."), label = "column" or
--- { "column", positive = {...}, negative = {...} } (texts, or numbers by value), weight, fields = {
--- mr.category "c", ... }, files = { train =, valid =, test = } beside the schema's own file, recipe = {
--- model = options }, task = "binary" | "regression"
---@return Schema
function schema.schema(o)
  if type(o) ~= "table" or type(o.fields) ~= "table" then
    err.raise("mr.schema: expected { fields = { ... } }")
  end
  for name in pairs(o) do
    if not OPTIONS[name] then wrong(o, "mr.schema has no option %q", tostring(name)) end
  end
  local c = ffi.new "mr_schema_options"
  local anchors = {}
  local function list(option, given, numbers)
    local strings, n, copy = reader.strings(values_of(o, option, given or {}, numbers))
    anchors[#anchors + 1], anchors[#anchors + 2] = strings, copy
    return n > 0 and strings or nil, n
  end
  local function array(numbers)
    local copy = ffi.new("double[?]", #numbers, numbers)
    anchors[#anchors + 1] = copy
    return copy, #numbers
  end
  for _, name in ipairs { "name", "label", "weight", "format" } do
    local is = type(o[name])
    if is ~= "nil" and is ~= "string" and not (name == "label" and is == "table") then
      wrong(o, "mr.schema: %s is %s, expected a text", name, err.show(o[name]))
    end
  end
  c.name = o.name or "schema"
  write_cells(o, c)
  c.columns, c.columns_n = list("columns", o.columns)
  c.missing, c.missing_n = list("missing", o.missing or { "" })
  local label = o.label
  if type(label) == "string" then label = { label } end
  if label then
    if type(label[1]) ~= "string" then
      wrong(o, "schema %q: label: expected a column's name first, got %s", o.name or "schema",
        err.show(label[1]))
    end
    local positive, negative = {}, {}
    c.label = label[1]
    c.positive, c.positive_n = list("label: positive", label.positive, positive)
    c.negative, c.negative_n = list("label: negative", label.negative, negative)
    c.positive_numbers, c.positive_numbers_n = array(positive)
    c.negative_numbers, c.negative_numbers_n = array(negative)
  end
  c.weight = o.weight
  local opened = checked(o, C.mr_schema_new(c))
  local at = o.fields[1] and o.fields[1].at or {}
  local self = setmetatable({ c = ffi.gc(opened, C.mr_schema_free), name = o.name or "schema",
    format = o.format or "csv", recipe = o.recipe or {}, task = o.task, source_text = at.text,
    module = at.module, given = o, parts = {} }, Schema)
  for i, f in ipairs(o.fields) do
    if getmetatable(f) ~= Field then
      wrong(o, "schema %s: field %d is a %s, expected mr.category, mr.numeric, ...", self.name, i, type(f))
    end
    checked(o, C.mr_schema_field(opened, write_field(f, anchors)))
  end
  for part, file in pairs(o.files or {}) do
    if type(file) ~= "string" or not PARTS[part] then
      err.raise("schema %s: files.%s is %s, expected { train =, valid =, test = } with the path of a file or "
        .. "a directory each", self.name, tostring(part), err.show(file))
    end
    self.parts[part] = beside(at.path, file)
  end
  return self
end

function Schema:__tostring()
  local names = {}
  for i = 1, self:fields_count() do
    names[i] = ffi.string(err.check(C.mr_schema_field_name(self.c, i - 1)))
  end
  return ("schema %s: %d fields%s\n  %s"):format(self.name, #names,
    self:fitted() and "" or ", not fitted yet", table.concat(names, " "))
end

--- Takes the files that a store keeps in the place of those beside a schema that has no place any more.
---@param parts table<string, string>
---@private
function Schema:found(parts)
  for part, file in pairs(parts) do
    if exists(file) or not self.parts[part] or not exists(self.parts[part]) then self.parts[part] = file end
  end
end

function Schema:fields_count() return C.mr_schema_fields(self.c) end

--- Whether all statistics are known: given in the schema, fitted, or restored.
function Schema:fitted() return C.mr_schema_unfitted(self.c) == nil end

local function files_of(self, part)
  if PARTS[part] then
    local file = self.parts[part]
    if not file then err.raise("schema %s names no files for %q", self.name, part) end
    if not exists(file) then
      err.raise("schema %s: its %s file %s is not here; give the data by --data", self.name, part, file)
    end
    return file
  end
  return part
end

--- The paths behind a part, or files as they are.
---@private
function Schema:paths(part) return files_of(self, part) end

--- Fits means, deviations and quantiles over training files, once.
---@param options { files?: string|string[], split?: table, bad_lines?: string }
function Schema:fit(options)
  local o = options or {}
  local c = ffi.new "mr_reader_options"
  local list, n, copy = reader.strings(files_of(self, o.files or "train"))
  c.files, c.files_n, c.format, c.schema, c.size = list, n, self.format, self.c, 1
  c.labels, c.bad_lines, c.epochs = C.MR_LABELS_AUTO, reader.bad_lines(o.bad_lines), 1
  reader.write_split(o.split, c)
  err.check(C.mr_schema_fit(self.c, c))
  return copy
end

--- What was fitted, as text; `restore` takes it back.
---@return string
function Schema:statistics() return ffi.string(err.check(C.mr_schema_statistics(self.c))) end

---@param text string
function Schema:restore(text) err.check(C.mr_schema_restore(self.c, text)) end

--- Lets what still needs fitting run along with a stream: means, deviations and quantiles of the samples so
--- far, about the last 8,192 of them.
---@return boolean running whether there is any
function Schema:run() return err.check(C.mr_schema_run(self.c)) > 0 end

--- Whether there are statistics that run along.
function Schema:running() return C.mr_schema_running(self.c) > 0 end

--- Keeps the numbers of a batch of a stream until it is done with.
---@param batch table
---@private
function Schema:observe(batch)
  if C.mr_schema_observe(self.c, batch.c) < 0 then err.check(-1) end
end

--- The next `advance` is to this batch.
---@private
function Schema:mark() C.mr_schema_mark(self.c) end

--- Takes in the batches up to the mark.
---@private
function Schema:advance() C.mr_schema_advance(self.c) end

--- The statistics that run along, as bytes; `restore_running` takes them back.
---@return ffi.cdata* bytes
---@return integer len
function Schema:running_bytes()
  local len = ffi.new "size_t[1]"
  return err.check(C.mr_schema_moving_bytes(self.c, len)), tonumber(len[0])
end

---@param bytes string
function Schema:restore_running(bytes) err.check(C.mr_schema_moving_load(self.c, bytes, #bytes)) end

--- Batches of a part ("train", "valid", "test") or of files; see moonrock.reader.
---@param part string|string[]
---@param options table|nil
---@return Batches
function Schema:batches(part, options)
  if not self:fitted() then
    if part ~= "train" then
      err.raise("schema %s: field %q needs fitting: train on files first, or give its statistics in "
        .. "the schema", self.name, ffi.string(err.check(C.mr_schema_unfitted(self.c))))
    end
    self:fit { files = part, bad_lines = options and options.bad_lines }
  end
  return reader.open(files_of(self, part), options, { format = self.format, schema = self.c, owner = self,
    task = self.task, fields = self:fields_count() })
end

handle.public(Schema, "schema", {})
return schema

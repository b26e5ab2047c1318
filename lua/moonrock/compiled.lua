--- A schema as plain data, as it was compiled: stores keep that beside its source, and it alone is read
-- again. So features are those of training, whatever the source would give elsewhere, and no code runs.
local err = require "moonrock.error"
local schema = require "moonrock.schema"

local compiled = {}

local Field = getmetatable(schema.category "column")
local NOT_KEPT = { at = true, where = true } -- of a field: where it was written

local function plain(value, at)
  local kind = type(value)
  if kind == "string" or kind == "boolean" or kind == "number" and value - value == 0 then return value end
  if kind ~= "table" then
    err.raise("schema: %s is %s, which a store cannot keep; expected texts and finite numbers", at,
      err.show(value))
  end
  local copy = {}
  for key, inner in pairs(value) do
    if getmetatable(value) ~= Field or not NOT_KEPT[key] then
      copy[key] = plain(inner, ("%s.%s"):format(at, tostring(key)))
    end
  end
  return copy
end

-- JSON objects have either names or numbers for keys: { "income", positive = ... } becomes names.
local function by_names(label)
  if type(label) ~= "table" then return label end
  return { column = label[1], positive = label.positive, negative = label.negative }
end

--- The data of a schema; not its files, which are where they are, and not its recipes.
---@param s Schema
---@return table
function compiled.of(s)
  local data = {}
  for name, value in pairs(s.given) do
    if name ~= "files" and name ~= "recipe" then data[name] = plain(value, name) end
  end
  data.label = by_names(data.label)
  return data
end

local function equal(a, b)
  if type(a) ~= "table" or type(b) ~= "table" then return a == b end
  for key, value in pairs(a) do
    if not equal(value, b[key]) then return false end
  end
  for key in pairs(b) do
    if a[key] == nil then return false end
  end
  return true
end

--- Whether two schemas make the same features and labels of the same data.
---@param a table
---@param b table
---@return boolean
function compiled.same(a, b)
  for _, name in ipairs { "fields", "label", "weight", "missing", "separator", "header", "columns", "trim",
    "quote", "escape", "decimal", "format" } do
    if not equal(a[name], b[name]) then return false end
  end
  return true
end

--- The schema of such data.
---@param data table
---@return Schema
function compiled.schema(data)
  if type(data) ~= "table" or type(data.fields) ~= "table" then err.raise("schema: it has no fields") end
  local o = {}
  for name, value in pairs(data) do o[name] = value end
  o.fields = {}
  for i, f in ipairs(data.fields) do
    if type(f) ~= "table" or type(f.name) ~= "string" or f.column ~= nil and type(f.column) ~= "string" then
      err.raise("schema: field %d has no name", i)
    end
    local copy = { at = {}, where = "schema" }
    for name, value in pairs(f) do copy[name] = value end
    o.fields[i] = setmetatable(copy, Field)
  end
  if type(data.label) == "table" then
    o.label = { data.label.column, positive = data.label.positive, negative = data.label.negative }
  end
  return schema.schema(o)
end

return compiled

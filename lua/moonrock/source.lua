--- Where code comes from: the text of a model's file, and of the user's modules that it requires. What
-- a store keeps of it is run by moonrock.stored.
local err = require "moonrock.error"

local source = {}

local function read_file(path)
  local f = io.open(path, "rb")
  if not f then return nil end
  local text = f:read("*a")
  f:close()
  return text
end

local function embedded(module)
  local ok, texts = pcall(require, "moonrock.embedded")
  return ok and texts[module] or nil
end

-- The text behind a chunk name: "@models/fm.lua" in the program, or a file.
local function text_of(chunk)
  local path = chunk:match("^@(.*)$")
  if not path then return chunk end
  local module = path:gsub("%.lua$", ""):gsub("/", ".")
  return read_file(path) or embedded(module), module
end

--- The source of the file that a function was written in.
---@param f function
---@return table { text=, module= }
function source.of(f)
  local chunk = debug.getinfo(f, "S").source
  local text, module = text_of(chunk)
  return { text = text, module = module }
end

-- "@moonrock/" inside the program, "@/somewhere/lua/moonrock/" from a checkout.
local HERE = debug.getinfo(1, "S").source:match("^(@.*)source%.lua$") or "@moonrock/"

--- The source of the innermost file under way that is not the library's.
---@return table { text=, module=, path= }
function source.caller()
  local level = 2
  while true do
    local frame = debug.getinfo(level, "S")
    if not frame then return {} end
    local chunk = frame.source
    if frame.what ~= "C" and chunk:sub(1, #HERE) ~= HERE then
      local text, module = text_of(chunk)
      return { text = text, module = module, path = chunk:match("^@(.*)$") }
    end
    level = level + 1
  end
end

-- Folders of models and schemas, in which `require` looks too, after everywhere else.
local folders = {}

local function look_beside(path)
  local folder = path:match "^(.*/)[^/]*$"
  if not folder or folders[folder] then return end
  folders[folder], folders[#folders + 1] = true, folder
  package.path = ("%s;%s?.lua;%s?/init.lua"):format(package.path, folder, folder)
end

local function is_users(path)
  if path:match "^%./" then return true end
  for _, folder in ipairs(folders) do
    if path:sub(1, #folder) == folder then return true end
  end
  return false
end

--- The user's modules that were required so far: module name to text.
function source.modules()
  local found = {}
  for name in pairs(package.loaded) do
    if not name:match("^moonrock") and not name:match("^models%.") and not name:match("^datasets%.") then
      local path = package.searchpath and package.searchpath(name, package.path)
      if path and is_users(path) then found[name] = read_file(path) end
    end
  end
  return found
end

local SHIPPED = { "lr", "fm", "ffm", "fwfm", "afm", "nfm", "wide_deep", "deepfm", "dcn", "dcnv2", "xdeepfm",
  "finalmlp", "autoint", "fibinet", "din", "mmoe", "mf", "two_tower", "ensemble" }
source.shipped = SHIPPED

--- Calls a function; the second value has the text of every model file that source.find found in it, by path.
---@param work function
---@return any
---@return table<string, string>
function source.collect(work)
  local outer, found = source.found, {}
  source.found = found
  local ok, result = pcall(work)
  source.found = outer
  if not ok then error(result, 0) end
  for path, text in pairs(outer and found or {}) do outer[path] = text end
  return result, found
end

--- The model definition of a name that ships with the program, or of a Lua file.
---@param model string
---@return table definition
function source.find(model)
  if model:match("%.lua$") then
    look_beside(model)
    local chunk, problem = loadfile(model)
    if not chunk then err.raise("model %s: %s", model, problem) end
    local definition = chunk()
    if type(definition) ~= "table" or not definition.build then
      err.raise("model %s: the file returns %s, expected mr.model(...)", model, type(definition))
    end
    if source.found then source.found[model] = read_file(model) end
    return definition
  end
  local ok, definition = pcall(require, "models." .. model)
  if ok then return definition end
  if not tostring(definition):match("module 'models%.") then error(definition, 0) end
  err.raise("model %q is unknown, expected one of %s, or the path of a Lua file", model,
    table.concat(SHIPPED, ", "))
end

--- The schema of a name that ships with the program, or of a Lua file.
---@param name string
---@return table schema
function source.schema(name)
  if not name:match("[./]") then return require("datasets." .. name) end
  look_beside(name)
  local chunk, problem = loadfile(name)
  if not chunk then err.raise("schema %s: %s", name, problem) end
  local schema = chunk()
  if type(schema) ~= "table" or not schema.batches then
    err.raise("schema %s: the file returns %s, expected mr.schema{...}", name, type(schema))
  end
  return schema
end

--- The text of a model that ships with the program, or nil.
---@param name any
---@return string|nil
function source.shipped_text(name)
  for _, known in ipairs(SHIPPED) do
    if known == name then return source.of(require("models." .. name).build).text end
  end
end

return source

--- Where code comes from: the text of a model's file, of the user's modules that it requires, and
-- the way back, from a store. Code from a store is loaded as text into an environment without
-- io, os and ffi.
local err = require "moonrock.error"

local source = {}

-- Text and chunk name of the Lua modules that are not the library's, by module name.
local modules = {}

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
  local kept = modules[chunk]
  if kept then return kept end
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
      local kept = modules[chunk]
      if kept then return kept end
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

-- What code from a store may see.
local function sandbox(stored)
  local env = {}
  for _, name in ipairs { "assert", "error", "ipairs", "next", "pairs", "pcall", "select", "tonumber",
    "tostring", "type", "unpack", "xpcall", "setmetatable", "getmetatable", "rawget", "rawset",
    "rawequal" } do
    env[name] = _G[name]
  end
  env.math, env.table, env.bit = math, table, require "bit"
  env.string = {}
  for name, f in pairs(string) do
    if name ~= "dump" then env.string[name] = f end
  end
  env._G = env
  local loaded = {}
  env.require = function(name)
    if name == "moonrock" then
      return setmetatable({ find = function(model)
        return stored[model] and source.load(stored[model], model, env) or source.find(model)
      end }, { __index = require "moonrock" })
    end
    if loaded[name] == nil then
      local text = stored[name]
      if not text then error(("a store's code may not require %q"):format(name), 2) end
      loaded[name] = source.load(text, name, env) or true
    end
    return loaded[name]
  end
  return env
end

--- Runs text (never byte code) in an environment and returns what it returns.
function source.load(text, name, env)
  if text:sub(1, 1) == "\27" then err.raise("%s: byte code, expected Lua text", name) end
  local chunkname = "@" .. name:gsub("%.", "/") .. ".lua"
  local chunk, problem = loadstring(text, chunkname)
  if not chunk then err.raise("%s", problem) end
  modules[chunkname] = { text = text, module = name, path = chunkname:sub(2) }
  return setfenv(chunk, env)()
end

--- The model of a store, from the store alone.
---@param dir string
---@param options table|nil read_only (true by default), follow, threads, ...; detached: without the
--- store, so that its tables and params are as they begin
---@return table model
function source.reopen(dir, options)
  local json = require "dkjson"
  local Store = require "moonrock.store"
  local o = { read_only = true }
  for name, value in pairs(options or {}) do o[name] = value end
  local store = Store.open(dir, "read")
  local text, files = store:get "model", store:get "files"
  store:close()
  if not text then err.raise("store %s: holds no model", dir) end
  local kept = json.decode(text)
  if not kept.source then
    err.raise("store %s: model %q was defined in a script, not in a file of its own; open it from "
      .. "that script", dir, kept.name)
  end
  local env = sandbox(kept.modules or {})
  local definition = source.load(kept.source, kept.module or kept.name, env)
  definition.stored_modules = kept.modules
  for name, value in pairs(kept.options or {}) do
    if o[name] == nil then o[name] = value end
  end
  if kept.schema and not o.schema then
    if not kept.schema.source then
      err.raise("store %s: schema %q was defined in a script, not in a file of its own", dir,
        tostring(kept.schema.name))
    end
    o.schema = source.load(kept.schema.source, kept.schema.module or "schema", env)
    o.schema.source_text, o.schema.module = kept.schema.source, kept.schema.module
    if files then o.schema:found(json.decode(files)) end
  elseif kept.data and not o.data then
    o.data = require("moonrock.reader").data(kept.data)
  end
  if not o.detached then
    o.store = dir
    return definition(o), kept
  end
  o.detached, o.seed = kept, kept.seed
  local model = definition(o)
  model.directory = dir
  require("moonrock.layout").adapt(model, kept.layout, o)
  return model, kept
end

return source

--- The model of a store, from the store alone: its code runs in a box, if it is trusted; a shipped
-- model's is the program's own. Schemas are data (moonrock.compiled).
local json = require "moonrock.json"
local compiled = require "moonrock.compiled"
local err = require "moonrock.error"
local Model = require "moonrock.model"
local source = require "moonrock.source"
local Store = require "moonrock.store"
local stored = require "moonrock.stored"
local trust = require "moonrock.trust"

-- The model that ships with the program, if that is what the store keeps.
local function shipped(kept)
  local name = type(kept.module) == "string" and kept.module:match "^models%.([%w_]+)$" or kept.name
  local of = (kept.options or {}).of
  if source.shipped_text(name) ~= kept.source or of ~= nil and not source.shipped_text(of) then return nil end
  return source.find(name)
end

local function schema_of(kept, dir, allowed)
  local s = kept.schema
  local made
  if s.compiled then
    made = compiled.schema(s.compiled)
  elseif not s.source then
    err.raise("store %s: schema %q was defined in a script, not in a file of its own", dir, tostring(s.name))
  elseif not allowed() then
    err.raise("%s", trust.refusal(dir))
  else
    made = stored.schema(kept, dir)
  end
  made.source_text, made.module = s.source, s.module
  return made
end

---@param dir string
---@param options table|nil read_only (true by default), follow, threads, ...; trust (false): run code that
--- is not known to be this user's, this once; model: a definition to use instead of the store's; detached:
--- without the store, so that its tables and params are as they begin
---@return table model
---@return table kept
return function(dir, options)
  local o = { read_only = true }
  for name, value in pairs(options or {}) do o[name] = value end
  local given, once = o.model, o.trust
  o.model, o.trust = nil, nil
  local store = Store.open(dir, "read")
  local text, signature, files = store:get "model", store:get "signature", store:get "files"
  store:close()
  local kept = text and json.decode(text)
  if type(kept) ~= "table" then err.raise("store %s: holds no model", dir) end
  local known
  local function allowed()
    known = known or trust.known(kept, signature) or false
    return known or once
  end
  local definition = given or shipped(kept)
  if not definition then
    if not kept.source then
      err.raise("store %s: model %q was defined in a script, not in a file of its own; open it from "
        .. "that script", dir, tostring(kept.name))
    end
    if not allowed() then err.raise("%s", trust.refusal(dir)) end
    definition = stored.definition(kept, dir, known ~= false)
    definition.foreign = not known
  end
  for name, value in pairs(type(kept.options) == "table" and kept.options or {}) do
    if o[name] == nil and not Model.own_options[name] then o[name] = value end
  end
  if kept.schema and not o.schema then
    o.schema = schema_of(kept, dir, allowed)
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

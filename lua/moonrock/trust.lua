--- Whose code a store holds. A commit signs it with a key that only this user can read; other stores are
-- opened with `trust = true`, or once `moonrock trust` has noted the hash of their code. Both are of
-- the code itself, so that copies are as trusted as what they were made of.
local ffi = require "ffi"
local C = require "moonrock.ffi"

local trust = {}

local KEY_BYTES = 32

local function environment(name)
  local value = os.getenv(name)
  return value and value ~= "" and value or nil
end

--- Where the key and the list of trusted code are; nil without a home.
---@return string|nil
function trust.directory()
  local given = environment "MOONROCK_CONFIG"
  if given then return given end
  local base = environment "XDG_CONFIG_HOME"
  if base then return base .. "/moonrock" end
  local home = environment "HOME"
  return home and home .. "/.config/moonrock"
end

local keys = {} -- by directory

-- The key, or nil and why there is none.
local function key()
  local dir = trust.directory()
  if not dir then return nil, "neither MOONROCK_CONFIG, XDG_CONFIG_HOME nor HOME is set" end
  if not keys[dir] then
    local bytes = ffi.new("char[?]", KEY_BYTES)
    if C.mr_key_load(dir .. "/key", bytes, KEY_BYTES) < 0 then return nil, ffi.string(C.mr_error()) end
    keys[dir] = ffi.string(bytes, KEY_BYTES)
  end
  return keys[dir]
end

-- All code that a store would run, without a way to read it as two.
local function code(kept)
  local parts = { "moonrock code 1" }
  local function add(text) parts[#parts + 1] = ("%d:%s"):format(#tostring(text), tostring(text)) end
  add(kept.source)
  local names = {}
  for name in pairs(kept.modules or {}) do names[#names + 1] = tostring(name) end
  table.sort(names)
  for _, name in ipairs(names) do
    add(name)
    add(kept.modules[name])
  end
  local schema = kept.schema
  if schema and not schema.compiled then
    add "schema"
    add(schema.source)
  end
  return table.concat(parts, "\n")
end

local hex = ffi.new "char[65]"

--- The hash of a store's code.
---@param kept table what the store says of its model
---@return string
function trust.hash(kept)
  local text = code(kept)
  C.mr_sha256(text, #text, hex)
  return ffi.string(hex)
end

local here = {} -- hashes of code that this process signed

--- The signature of code that is this user's own; nil and why, if the key cannot be had. In this
--- process the code counts as signed all the same.
---@param kept table
---@return string|nil
---@return string|nil problem
function trust.sign(kept)
  here[trust.hash(kept)] = true
  local secret, problem = key()
  if not secret then return nil, problem end
  local text = code(kept)
  C.mr_hmac_sha256(secret, #secret, text, #text, hex)
  return ffi.string(hex)
end

local function list_path()
  local dir = trust.directory()
  return dir and dir .. "/trusted"
end

local function listed(hash)
  local path = list_path()
  local file = path and io.open(path)
  if not file then return false end
  local found = false
  for line in file:lines() do found = found or line:match "^%x+" == hash end
  file:close()
  return found
end

--- How a store's code is known: "own" (signed by this user), "trusted" (noted by `moonrock trust`), or nil.
---@param kept table
---@param signature string|nil what the store has
---@return string|nil
function trust.known(kept, signature)
  local hash = trust.hash(kept)
  if here[hash] then return "own" end
  if signature then
    local mine = key()
    if mine then
      local text = code(kept)
      C.mr_hmac_sha256(mine, #mine, text, #text, hex)
      if ffi.string(hex) == signature then return "own" end
    end
  end
  return listed(hash) and "trusted" or nil
end

--- Trusts the code of a store from now on, wherever it is.
---@param kept table
---@param dir string the store, as a remark
---@return string path of the list
function trust.remember(kept, dir)
  local secret, problem = key() -- makes the directory, too
  if not secret then error(problem, 0) end
  local path, hash = list_path(), trust.hash(kept)
  if listed(hash) then return path end
  local file, reason = io.open(path, "a")
  if not file then error(reason, 0) end
  local ok, why = file:write(("%s %s %s\n"):format(hash, os.date "!%Y-%m-%dT%H:%M:%SZ",
    (dir:gsub("%c", "?"))))
  if ok then ok, why = file:close() end
  if not ok then error(("%s: %s"):format(path, why), 0) end
  return path
end

--- What is said of a store that nobody trusts.
---@param dir string
---@return string
function trust.refusal(dir)
  return (("store DIR: its code is not known to be yours, and is not run. See it with `moonrock show "
    .. "--store DIR --source`; then give --trust (trust = true) for once, or run `moonrock trust DIR`. With "
    .. "a model file of your own, as in `moonrock eval MODEL.lua --store DIR`, its code is not needed")
    :gsub("DIR", (dir:gsub("%%", "%%%%"))))
end

return trust

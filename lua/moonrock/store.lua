--- The store of a model: named records, rows, commits (runtime/store/store.c and what store.h lists).
local ffi = require "ffi"
local json = require "moonrock.json"
local C = require "moonrock.ffi"
local err = require "moonrock.error"
local handle = require "moonrock.handle"

local Store = {}
Store.__index = Store

local MODES = { read = C.MR_STORE_READ, write = C.MR_STORE_WRITE, create = C.MR_STORE_CREATE,
  follow = C.MR_STORE_FOLLOW }

--- Opens a directory.
---@param dir string
---@param mode "read"|"write"|"create"|"follow" create: made if it is not there; read, follow: others
--- may write
---@private
function Store.open(dir, mode)
  if type(dir) ~= "string" or not MODES[mode] then
    err.raise("store: expected a directory and one of read, write, create and follow, got %s and %s",
      err.show(dir), err.show(mode))
  end
  local c = err.check(C.mr_store_open(dir, MODES[mode]))
  return setmetatable({ c = ffi.gc(c, C.mr_store_close), dir = dir }, Store)
end

--- Closes it, after the commit under way. Tables whose rows are in it read no more of them.
---@private
function Store:close()
  handle.idle("store " .. self.dir, "it is closed")
  if self.owner then
    err.raise("store %s: it is %s's, which closes it when it is closed", self.dir, self.owner.subject)
  end
  handle.close(self, ("store %s: it was closed; open it again"):format(self.dir), C.mr_store_close)
end

function Store:__tostring()
  local commit = self:info().commit
  return ("store %s: commit %d, step %d"):format(self.dir, commit.number, commit.step)
end

local function text(self, what, value)
  if type(value) ~= "string" then
    err.raise("store %s: %s: expected a text, got %s", self.dir, what, err.show(value))
  end
  return value
end

--- A named record as a string, or nil.
---@private
function Store:get(name)
  if err.check(C.mr_store_get(self.c, text(self, "get", name))) == 0 then return nil end
  return ffi.string(C.mr_store_value(self.c), C.mr_store_value_len(self.c))
end

-- A number that dkjson's 14 digits would round.
local Exact = { __tojson = function(self) return ("%.17g"):format(self.number) end }

local function exact(value)
  if type(value) == "number" then
    local whole = tonumber(("%.14g"):format(value)) == value or value ~= value or math.abs(value) == math.huge
    return whole and value or setmetatable({ number = value }, Exact)
  elseif type(value) ~= "table" then
    return value
  end
  local copy = setmetatable({}, getmetatable(value))
  for key, inner in pairs(value) do copy[key] = exact(inner) end
  return copy
end

--- A record's text: JSON whose keys are in order and whose numbers are read back to the bit. A run that
--- is resumed must not go on from rounded sums.
---@param value table
---@return string
---@private
function Store.encode(value)
  local keys = {}
  local function collect(t)
    for key, inner in pairs(t) do
      if type(key) == "string" and not keys[key] then
        keys[key] = true
        keys[#keys + 1] = key
      end
      if type(inner) == "table" then collect(inner) end
    end
  end
  collect(value)
  table.sort(keys)
  return json.encode(exact(value), { keyorder = keys })
end

--- Makes the store a table's, and reads its rows into the cache if they fit.
---@param t table
---@param cold boolean|nil they are read when they are looked up
---@private
function Store:load(t, cold)
  err.check((cold and C.mr_store_attach or C.mr_store_load)(self.c, t.c))
end

--- A commit: begin, put and put_table in any order, then finish or abort.
---@private
function Store:begin() err.check(C.mr_commit_begin(self.c)) end

---@param name string
---@param bytes string|ffi.cdata*
---@param len integer|nil for a string, its length
---@private
function Store:put(name, bytes, len)
  if type(name) ~= "string" or type(bytes) ~= "string" and type(bytes) ~= "cdata" then
    err.raise("store %s: put: expected a name and bytes, got a %s and a %s", self.dir, type(name),
      type(bytes))
  end
  if type(bytes) == "string" and len and not (len >= 0 and len <= #bytes) then
    err.raise("store %s: record %s: %.0f bytes of a string of %d", self.dir, name, len, #bytes)
  end
  err.check(C.mr_commit_put(self.c, name, bytes, len or #bytes))
end

--- A record that is gone from the commit on.
---@private
function Store:remove(name) err.check(C.mr_commit_remove(self.c, name)) end

--- A table that is gone, with its rows and its filter.
---@private
function Store:drop_table(name, id) err.check(C.mr_commit_drop_table(self.c, name, id)) end

--- The rows of a table that changed since the last commit.
---@private
function Store:put_table(t) err.check(C.mr_commit_table(self.c, t.c)) end

--- Makes the commit durable.
---@param step integer
---@private
function Store:finish(step) err.check(C.mr_commit_end(self.c, step)) end

--- Makes it durable while the caller goes on.
---@param step integer
---@private
function Store:finish_behind(step) err.check(C.mr_commit_behind(self.c, step)) end

--- Waits for the commit that is being written.
---@private
function Store:wait() err.check(C.mr_commit_wait(self.c)) end

--- Whether no commit is being written any more. Raises if it failed.
---@return boolean
---@private
function Store:poll() return err.check(C.mr_commit_poll(self.c)) == 1 end
---@private
function Store:abort() C.mr_commit_abort(self.c) end

--- Keeps the last committed state as `name`, in the place of an older one.
function Store:checkpoint(name) err.check(C.mr_store_checkpoint(self.c, text(self, "checkpoint", name))) end

--- Makes the state kept as `name` the store's.
---@private
function Store:restore(name) err.check(C.mr_store_restore(self.c, text(self, "restore", name))) end

--- Copies the store, by hard links where it can, to a directory that is not there yet.
---@private
function Store:copy(dir) err.check(C.mr_store_copy(self.c, text(self, "copy", dir))) end

--- Goes on to the last commit, in a store opened to follow it: whether there is a newer one.
---@return boolean
---@private
function Store:follow() return err.check(C.mr_store_follow(self.c)) == 1 end

--- Hash of all rows and state, in hexadecimal.
function Store:digest()
  local hex = ffi.new "char[33]"
  err.check(C.mr_store_digest(self.c, hex))
  return ffi.string(hex)
end

--- Number, step and time of the last commit; bytes and files of the database, bytes that the directory takes
--- on disk, the database's directory.
---@return table
function Store:info()
  return {
    commit = { number = C.mr_store_number(self.c, "commit"), step = C.mr_store_number(self.c, "step"),
      time = C.mr_store_number(self.c, "time") },
    bytes = C.mr_store_number(self.c, "bytes"), files = C.mr_store_number(self.c, "files"),
    disk = math.floor(C.mr_store_number(self.c, "disk")),
    database = ffi.string(err.check(C.mr_store_database(self.c))),
  }
end

Store.open = err.public("store", Store.open)
handle.public(Store, "store", { open = true, encode = true, poll = true })
return Store

-- One operation on a store, made by tests/durable_spec.lua in a process whose power goes:
--   moonrock durable.lua OPERATION STORE [FILE...]
-- It says "done" once the operation is acknowledged.
package.path = "./tests/?.lua;" .. package.path
local ffi = require "ffi"
local C = require "moonrock.ffi"
local err = require "moonrock.error"
local rows = require "support.rows"
local Store = require "moonrock.store"

local operation, path = arg[1], arg[2]

local function open(mode)
  local store, t = Store.open(path, mode or "write"), rows.table()
  store:load(t)
  return store, t
end

local function step(store, t, n)
  rows.step(t, n)
  rows.commit(store, t, n)
end

local function write(store, t, file, since)
  local o, list = ffi.new "mr_export", ffi.new("mr_table *[1]", { t.c })
  o.format, o.since = 0, since
  err.check(C.mr_store_export(store.c, list, 1, o, file))
end

local does = {}

-- Steps 1 and 2, of which 1 is kept; exports of 2, and of what 3 adds to it.
function does.prepare(files)
  local store, t = open "create"
  step(store, t, 1)
  store:checkpoint "best"
  step(store, t, 2)
  write(store, t, files[1], 0)
  store:copy(path .. ".later")
  store:close()
  path = path .. ".later"
  store, t = open()
  step(store, t, 3)
  write(store, t, files[2], 2)
  store:close()
end

-- A new store that is left without a commit is removed again.
function does.create()
  local store, t = open "create"
  step(store, t, 1)
end

function does.commit()
  local store, t = open()
  step(store, t, 3)
end

function does.keep() open():checkpoint "best" end

function does.restore() open():restore "best" end

function does.shrink()
  local store, t = open()
  local what = ffi.new "mr_shrink[1]"
  what[0].table, what[0].max_rows, what[0].forget, what[0].column = t.c, 2, -1, -1
  err.check(C.mr_store_shrink(store.c, what, 1, 0))
end

function does.copy() open():copy(path .. ".copy") end

function does.import(files)
  local list = ffi.new("const char *[1]", { files[1] })
  err.check(C.mr_store_import(path, list, 1))
end

function does.export(files)
  local store, t = open "read"
  write(store, t, files[1], 0)
end

does[operation] { arg[3], arg[4] }
print "done"
io.stdout:flush()

-- A small table and a batch made by hand, for specs of the store.
local ffi = require "ffi"
local C = require "moonrock.ffi"
local initializer = require "moonrock.initializer"
local losses = require "moonrock.losses"
local optim = require "moonrock.optim"
local pool = require "moonrock.pool"
local Table = require "moonrock.table"
local tape = require "moonrock.tape"

local rows = {}

local KEYS = { 1, 2, 3, 2, 18446744073709551615ULL, 0 }

function rows.table()
  return Table.new("t", 0, 42, {
    w = { dim = 1 },
    v = { dim = 16, init = initializer.normal(0.1) },
  }, optim.adagrad { lr = 0.1 })
end

local batch = ffi.new "mr_batch"
local anchors = { keys = ffi.new("uint64_t[6]", KEYS), offsets = ffi.new("uint32_t[4]", { 0, 2, 4, 6 }),
  label = ffi.new("float[3]", { 1, 0, 1 }) }
batch.n, batch.entries, batch.fields = 3, 6, 2
batch.keys, batch.offsets, batch.label = anchors.keys, anchors.offsets, anchors.label
local handle = { c = batch, n = 3, anchors = anchors }
handle.label = { batch = handle, name = "label" }

local recorder = tape.new {}

-- One training step of a table.
function rows.step(t, step)
  recorder:begin(true, step)
  local r = t(handle)
  losses.bce(r.w:sum() + pool.fm(r.v), handle.label):backward()
  local n = C.mr_table_push(t.c, step)
  if n ~= 5 then error(("%d rows: %s"):format(n, ffi.string(C.mr_error()))) end
  recorder:reset()
end

-- A commit of the table and of a record that says which step it is.
function rows.commit(store, t, step)
  store:begin()
  store:put("state", ("step %d"):format(step))
  store:put_table(t)
  store:finish(step)
end

return rows

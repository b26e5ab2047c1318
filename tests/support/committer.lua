-- Steps and commits until it is killed, and says each commit that was acknowledged:
--   moonrock committer.lua STORE
package.path = "./tests/?.lua;" .. package.path
local rows = require "support.rows"
local Store = require "moonrock.store"

local store = Store.open(arg[1], "create")
local t = rows.table()
store:load(t)
local from = store:info().commit.step
for step = from + 1, from + 100000 do
  rows.step(t, step)
  rows.commit(store, t, step)
  if step % 7 == 0 then store:checkpoint "best" end
  print(step)
  io.stdout:flush()
end

-- Follows a store until the file STOP is there, and prints a line for every state that it sees: commit,
-- step, digest, and the quality of the rows and weights in memory on DATA:
--   moonrock follower.lua STORE DATA STOP MEMORY
local mr = require "moonrock"

local store, data, stop, memory = arg[1], arg[2], arg[3], tonumber(arg[4])

local function exists(path)
  local file = io.open(path)
  return file ~= nil and file:close()
end

local model = mr.reopen(store, { follow = true, memory = memory })
local refreshed = true
while true do
  if refreshed then
    local r = mr.evaluate(model, model.data:batches(data, { size = 512, epochs = 1, shuffle = false }))
    local commit = model.store:info().commit
    print(("%d %d %s %.17g"):format(commit.number, commit.step, model.store:digest(), r.logloss))
    io.stdout:flush()
  end
  local last = exists(stop)
  refreshed = model:refresh()
  if last and not refreshed then break end
end
model:close()

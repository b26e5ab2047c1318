-- Trains Wide & Deep, commits every other step for SECONDS, restores an earlier state now and then, and
-- prints a line for every commit, as follower.lua does, and "restored" lines; it goes on until it has
-- restored a state and followers wrote six lines each to their files:
--   moonrock leader.lua STORE TRAIN DATA SECONDS [FILE...]
local mr = require "moonrock"
local C = require "moonrock.ffi"

local store, train, data, seconds = arg[1], arg[2], arg[3], tonumber(arg[4])
local model = mr.find "wide_deep" {
  data = mr.data { files = train, format = "bin", fields = 39 }, store = store, seed = 5, dim = 4,
  hidden = { 16, 8 }, commit_every = 1000000, on_notice = function() end,
}
model:commit()

local function say()
  local r = mr.evaluate(model, model.data:batches(data, { size = 512, epochs = 1, shuffle = false }))
  local commit = model.store:info().commit
  print(("%d %d %s %.17g"):format(commit.number, commit.step, model.store:digest(), r.logloss))
  io.stdout:flush()
end

-- Whether the followers have seen enough, or never will.
local began, commits, restored = C.mr_clock(), 0, false
local function done()
  local passed = C.mr_clock() - began
  if passed < seconds then return false end
  if passed > 200 then return true end
  for i = 5, #arg do
    local file, lines = io.open(arg[i]), 0
    for _ in file and file:lines() or function() end do lines = lines + 1 end
    if file then file:close() end
    if lines < 6 then return false end
  end
  return restored
end

say()
while not done() do
  for batch in model:batches(train, { size = 64, epochs = 100, shuffle = true }) do
    mr.bce(model(batch), batch.label):backward()
    model:step()
    if model.step_number % 2 == 0 then
      model:commit()
      commits = commits + 1
      say()
      if commits % 20 == 5 then model.store:checkpoint "kept" end
      if commits % 20 == 0 or done() then break end
    end
  end
  if commits % 40 == 0 then
    model:restore "kept"
    print "restored"
    restored = true
    say()
  end
end
model:close()

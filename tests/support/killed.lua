-- Trains Wide & Deep on a file of raw records, and kills itself with SIGKILL after a step:
--   moonrock killed.lua DATA STORE THREADS COMMIT_EVERY KILL_AT [SCHEDULE]     (0: runs to the end)
-- Without a kill it prints the digest of the store and its metrics.
local ffi = require "ffi"
local mr = require "moonrock"

ffi.cdef [[ int kill(int, int); int getpid(void); ]]

local path, store, threads, commit_every, kill_at = arg[1], arg[2], tonumber(arg[3]), tonumber(arg[4]),
  tonumber(arg[5])

local model = mr.find "wide_deep" {
  data = mr.data { files = path, format = "bin", fields = 39 }, store = store, threads = threads,
  seed = 5, dim = 4, hidden = { 16, 8 }, dropout = 0.2, commit_every = commit_every,
  schedule = arg[6],
}
for batch in model:batches(path, { size = 64, epochs = 2, window = 1000, shuffle = true }) do
  mr.bce(model(batch), batch.label):backward()
  model:step()
  if model.step_number == kill_at then ffi.C.kill(ffi.C.getpid(), 9) end
end
model:commit()
local r = mr.evaluate(model, model.data:batches(path, { size = 512, epochs = 1, shuffle = false }))
print(model:info().digest, ("%.17g %.17g"):format(r.logloss, r.auc))
model:close()

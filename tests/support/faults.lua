--- Running the program while its disk fails, it is killed, or the power goes (support/faults.c).
local ffi = require "ffi"
local shell = require "tests.support.shell"

local faults = {}

local LIBRARY, RECOVER = "build/tests/faults.so", "build/tests/faults-recover"
local CLASSES = { "write", "sync", "open", "read", "name", "any" }

-- The file of counts: how many calls of each class there were, and how many were met.
local function read_counts(path)
  local bytes = shell.read(path)
  local counts = {}
  if not bytes or #bytes < 56 then return counts end
  local at = ffi.cast("const uint64_t *", bytes)
  for i, class in ipairs(CLASSES) do counts[class] = tonumber(at[i - 1]) end
  counts.met = tonumber(at[6])
  return counts
end

--- Runs a command whose calls on files below a directory go through a plan. A program is killed
--- after `seconds`, when they are given.
---@param o table dir (absolute), plan, record, seconds
---@param ... string the program and its words
---@return integer status, string output, string errors, table counts by class, and `met`
function faults.run(o, ...)
  local counts = os.tmpname()
  local words = { "env", "ASAN_OPTIONS=detect_leaks=0:verify_asan_link_order=0",
    "LD_PRELOAD=" .. LIBRARY, "FAULTS_DIR=" .. o.dir, "FAULTS_COUNTS=" .. counts,
    "FAULTS_PLAN=" .. (o.plan or "") }
  if o.record then words[#words + 1] = "FAULTS_RECORD=" .. o.record end
  for i = 1, select("#", ...) do words[#words + 1] = (select(i, ...)) end
  for i, word in ipairs(words) do words[i] = shell.quote(word) end
  local command = table.concat(words, " ")
  if o.seconds then command = shell.killed_after(o.seconds) .. command end
  local status, output, errors = shell.run(command)
  local read = read_counts(counts)
  os.remove(counts)
  return status, output, errors, read
end

--- Makes the directory what a loss of power left of it. Returns what was lost, as a line.
---@param dir string
---@param record string
---@param seed integer|nil without it all that was not synced is lost
function faults.recover(dir, record, seed)
  local status, output, errors = shell.run(("%s %s %s %s"):format(RECOVER, shell.quote(dir),
    shell.quote(record), seed or ""))
  if status ~= 0 then error(output .. errors, 2) end
  return (output:gsub("%s+$", ""))
end

local PLACES = { "COMMIT", "MANIFEST", ".sst", "CURRENT", "kept", "staging", "creating", "db-1" }

--- A plan that kills at a random call: of a class, on files of some name, or of a compaction.
---@param random function
---@param calls table how many there are in a whole run, by class
---@return string
function faults.kill_plan(random, calls)
  local plan = random(2) == 0 and "do=kill" or "do=after"
  local kind = random(8)
  if kind < 2 then return ("%s match=%s nth=%d"):format(plan, PLACES[1 + random(#PLACES)], 1 + random(30)) end
  if kind == 2 then return ("%s thread=rocksdb:low nth=%d"):format(plan, 1 + random(100)) end
  local class = ({ "write", "sync", "name", "any" })[1 + random(4)]
  return ("%s class=%s nth=%d"):format(plan, class, 1 + random(calls[class]))
end

--- A stream of random numbers of its own: random(n) is from 0 to n - 1, random() from 0 to 1.
function faults.random(seed)
  local state = (seed * 7919 + 17) % 2147483647
  if state == 0 then state = 1 end
  local function draw()
    state = state * 48271 % 2147483647
    return (state - 1) / 2147483646
  end
  for _ = 1, 3 do draw() end
  return function(n)
    local x = draw()
    return n and math.floor(x * n) or x
  end
end

--- A number of the environment, or the one given.
function faults.number(name, default) return tonumber(os.getenv(name) or "") or default end

--- The seed of a file's random choices: SEED, or the time.
function faults.seed() return faults.number("SEED", os.time() % 1000000) end

return faults

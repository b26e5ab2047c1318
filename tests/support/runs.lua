--- A small training run that is broken off in all ways, and what it is held against: the digests, by
--- step, of a run that was left alone.
local json = require "dkjson"
local shell = require "tests.support.shell"

local runs = {}
runs.__index = runs

local SCRIPT = "tests/support/acknowledged.lua"

--- Raw records of the synthetic data set; returns the file.
function runs.data(dir, rows)
  local status, out, errors = shell.run(("%s datasets/synthetic.lua --seed 3 --train %d --test 10 --out %s "
    .. "--format bin"):format(shell.program, rows, dir))
  if status ~= 0 then error(out .. errors) end
  return dir .. "/train.bin"
end

--- A run of `moonrock train MODEL`, with options in one string. Trains it once on a store of its
--- own, with a commit at every step, to know the digests.
---@param dir string where the reference's store is made
---@param data string
---@param model string
---@param options string
---@param cadence integer batches between commits
function runs.new(dir, data, model, options, cadence)
  local self = setmetatable({ digests = {}, words = {}, name = model }, runs)
  for word in ("train %s --data %s --format bin --json %s"):format(model, data, options):gmatch("%S+") do
    self.words[#self.words + 1] = word
  end
  local words = { self:command(dir .. "/reference-" .. model, 1) }
  for i, word in ipairs(words) do words[i] = shell.quote(word) end
  local status, out, errors = shell.run("ACKNOWLEDGED=digest " .. table.concat(words, " "))
  if status ~= 0 then error(out .. errors) end
  for step, digest in out:gmatch("digest (%d+) (%x+)\n") do
    step = tonumber(step)
    self.digests[step] = self.digests[step] or {}
    self.digests[step][digest] = true
    self.final = digest
  end
  self.cadence = cadence
  return self
end

--- The two runs that are broken off by kills and losses of power: one that commits by count, and one
--- with validation, early stopping and kept states.
---@param dir string
function runs.both(dir)
  local data = runs.data(dir, 2048)
  local common = "--epochs 2 --set dim=4 --threads 2 --window 500 "
  return {
    runs.new(dir, data, "fm", common .. "--batch 64", 3),
    runs.new(dir, data, "wide_deep", common .. "--batch 128 --valid 0.2 --patience 9", 2),
  }
end

--- The words of the run on a store: the program, the script, and so on.
function runs:command(store, cadence)
  local words = { shell.program, SCRIPT }
  for _, word in ipairs(self.words) do words[#words + 1] = word end
  for _, word in ipairs { "--store", store, "--commit-every", cadence or self.cadence } do
    words[#words + 1] = tostring(word)
  end
  return unpack(words)
end

--- What `info` says of a store, or nil and its message.
local function info(store)
  local status, out, errors = shell.moonrock("info", "--store", store, "--json")
  if status ~= 0 then return nil, errors end
  return json.decode(out)
end

--- Checks what a run left, by what it said. `last` is the step of the store before it, nil for none.
--- Returns the step of the store now (nil: none, or one without its first commit), or false and what
--- is wrong.
function runs:check(store, said, last)
  local acknowledged, under_way = last, nil
  for what, step in said:gmatch("(%l+) (%w+)\n") do
    if what == "begun" then under_way = step == "kept" and step or tonumber(step)
    elseif what == "done" then acknowledged, under_way = tonumber(step), nil end
  end
  local told, problem = info(store)
  if not told then
    local none = problem:find("does not exist", 1, true) or problem:find("holds no model", 1, true)
    if none and not acknowledged then return nil end
    return false, ("step %s was acknowledged, but: %s"):format(tostring(acknowledged), problem)
  end
  local step = told.commit.step
  if step ~= acknowledged and step ~= under_way and under_way ~= "kept" then
    return false, ("the store is at step %d; acknowledged %s, under way %s"):format(step,
      tostring(acknowledged), tostring(under_way))
  end
  if not (self.digests[step] and self.digests[step][told.digest]) then
    return false, ("step %d has the digest %s, which no undisturbed run has"):format(step, told.digest)
  end
  return step
end

--- Checks a store whose run went through: returns true, or false and what is wrong.
function runs:finished(store)
  local told, problem = info(store)
  if not told then return false, problem end
  if told.digest == self.final then return true end
  return false, ("the run ended with digest %s, undisturbed with %s"):format(told.digest, self.final)
end

return runs

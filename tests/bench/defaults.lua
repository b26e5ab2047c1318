-- What every model reaches with nothing set, on four data sets; and a search for better defaults.
--
--   ./moonrock tests/bench/defaults.lua --criteo FILE --frappe DIR [--models lr,fm] [--sets census,criteo]
--       [--epochs N] [--grid lr=0.01,0.02 --grid init=0.001,0.01] [--set NAME=VALUE] [--valid] [--threads N]
--
-- prints a line of JSON for each: model, set, settings, auc and logloss, after one epoch. `census` ships,
-- `synthetic` is made (100,000 rows); `criteo` is a sample in Criteo's raw format, `frappe` a directory of
-- train.csv, valid.csv and test.csv; without these their sets are left out. Criteo's sample is scored by
-- five folds. With --valid, and in a grid, the others are scored on validation data instead of the test
-- data: a tenth of the training data, or the file.
local argparse = require "argparse"
local json = require "dkjson"

local mr = require "moonrock"

local MODELS = { "lr", "fm", "ffm", "fwfm", "afm", "nfm", "wide_deep", "deepfm", "dcn", "dcnv2", "xdeepfm",
  "autoint", "fibinet", "finalmlp", "mmoe", "ensemble" }

local function list(text)
  local words = {}
  for word in text:gmatch "[^,]+" do words[#words + 1] = tonumber(word) or word end
  return words
end

local function pair(text)
  local name, value = text:match "^([%w_.]+)=(.*)$"
  if not name then return nil, ("'%s' is no NAME=VALUE"):format(text) end
  return { name, list(value) }
end

local p = argparse("defaults", "What every model reaches with nothing set, on four data sets.")
p:option "--criteo"
p:option "--frappe"
p:option "--models":convert(list):default(table.concat(MODELS, ","))
p:option "--sets":convert(list):default "census,criteo,frappe,synthetic"
p:option "--epochs":convert(tonumber):default "1"
p:option "--threads":convert(tonumber):default "1"
p:option "--grid":convert(pair):count "*":default {}
p:option "--set":convert(pair):count "*":default {}
p:flag "--valid"
local args = p:parse(arg)
if #args.grid > 0 then args.valid = true end

-- ---- the sets: the data of a model, and how it is fitted --------------------------------------------

local function synthetic()
  local dir = os.tmpname()
  os.remove(dir)
  os.execute("mkdir " .. dir)
  local program = require("ffi").string(require("moonrock.ffi").mr_program())
  local make = "%s datasets/synthetic.lua --seed 42 --train 100000 --test 20000 --out %s >/dev/null 2>&1"
  os.execute(make:format(program, dir))
  local train, test = dir .. "/train.bin", dir .. "/test.bin"
  return { data = { data = mr.data { format = "bin", task = "binary" } }, dir = dir, fit = { train = train,
    split = args.valid and 0.1 or nil, valid = args.valid and train or nil,
    test = not args.valid and test or nil } }
end

local SETS = {
  census = function()
    local schema = mr.schema_of "census"
    return { data = { schema = schema }, fit = { train = "train",
      split = args.valid and 0.1 or nil, valid = args.valid and "train" or nil,
      test = not args.valid and "test" or nil } }
  end,
  criteo = function()
    if not args.criteo then return nil end
    local schema = mr.schema_of "datasets/criteo.lua"
    return { data = { schema = schema }, folds = 5, fit = { train = args.criteo } }
  end,
  frappe = function()
    if not args.frappe then return nil end
    local schema = mr.schema_of "datasets/frappe.lua"
    local dir = args.frappe .. "/"
    return { data = { schema = schema }, fit = { train = dir .. "train.csv",
      valid = args.valid and dir .. "valid.csv" or nil, test = not args.valid and dir .. "test.csv" or nil } }
  end,
  synthetic = synthetic,
}

-- ---- a run ---------------------------------------------------------------------------------------

local function run(name, set, settings)
  local options, fit = { threads = args.threads }, { epochs = args.epochs }
  for key, value in pairs(set.data) do options[key] = value end
  for key, value in pairs(set.fit) do fit[key] = value end
  local paths = {}
  for path in pairs(settings) do paths[#paths + 1] = path end
  table.sort(paths) -- "optim" comes before "optim.beta"
  for _, path in ipairs(paths) do
    local value, of_fit = settings[path], path:match "^fit%.(.+)"
    require("moonrock.search").set(of_fit and fit or options, of_fit or path, value)
  end
  local definition = mr.find(name)
  local function make() return definition(options) end
  if set.folds then
    fit.folds = set.folds
    return mr.cross_validate(make, fit).mean
  end
  local model = make()
  local result = mr.fit(model, fit)
  model:close()
  return result.test or result.valid
end

local function combinations(grid)
  local all = { {} }
  for _, g in ipairs(grid) do
    local more = {}
    for _, settings in ipairs(all) do
      for _, value in ipairs(g[2]) do
        local longer = { [g[1]] = value }
        for key, v in pairs(settings) do longer[key] = v end
        more[#more + 1] = longer
      end
    end
    all = more
  end
  return all
end

for _, set_name in ipairs(args.sets) do
  local set = SETS[set_name]()
  for _, name in ipairs(set and args.models or {}) do
    for _, settings in ipairs(combinations(args.grid)) do
      for _, s in ipairs(args.set) do settings[s[1]] = #s[2] > 1 and s[2] or s[2][1] end
      local ok, scores = pcall(run, name, set, settings)
      if type(scores) == "table" and scores.interrupted then error(scores, 0) end
      local line = { set = set_name, model = name, settings = settings, epochs = args.epochs }
      if ok then line.auc, line.logloss = scores.auc, scores.logloss else line.problem = tostring(scores) end
      print(json.encode(line, { keyorder = { "set", "model", "epochs", "auc", "logloss", "settings" } }))
      io.stdout:flush()
    end
  end
  if set and set.dir then os.execute("rm -r " .. set.dir) end
end

--- Choosing by validation: `cross_validate` scores a model on folds of its training data, `search`
-- tries settings and returns the best. Neither looks at test data.
local C = require "moonrock.ffi"
local err = require "moonrock.error"
local metrics = require "moonrock.metrics"
local trainer = require "moonrock.trainer"

local search = {}

local function copy(t)
  local c = {}
  for name, value in pairs(t) do c[name] = value end
  return c
end

-- The metrics of a trained model: of the best validation if it stopped by it, else of the last. There is
-- no best where the monitor was never defined.
local function scores_of(result, fit)
  return fit.patience and result.best and result.best.valid or result.valid
end

-- Mean and deviation (over n - 1) of every metric, over the n folds in which it is defined; and in how many
-- it is not, by name.
local function summary(list)
  local mean, deviation, undefined = {}, {}, nil
  for name, value in pairs(list[1]) do
    if type(value) == "number" then -- not slices
      local sum, squares, n = 0, 0, 0
      for _, scores in ipairs(list) do
        local x = scores[name]
        if x == x then sum, n = sum + x, n + 1 end
      end
      mean[name] = sum / n
      for _, scores in ipairs(list) do
        local x = scores[name]
        if x == x then squares = squares + (x - mean[name]) ^ 2 end
      end
      deviation[name] = math.sqrt(squares / (n - 1))
      if n < #list then
        undefined = undefined or {}
        undefined[name] = #list - n
      end
    end
  end
  return mean, deviation, undefined
end

-- Says of which folds the mean of a metric is not.
local function tell_undefined(list, names, notice)
  for _, name in ipairs(names) do
    local folds, why = {}, nil
    for fold, scores in ipairs(list) do
      local problem = scores[name] and metrics.undefined(scores, name)
      if problem then folds[#folds + 1], why = fold, why or problem end
    end
    if #folds > 0 then
      notice(("%s is not defined in fold%s %s (%s): its mean is of %s"):format(name, #folds > 1 and "s" or "",
        table.concat(folds, ", "), why, #folds < #list and ("the other %d"):format(#list - #folds) or "none"))
    end
  end
end

--- Trains `folds` models, each on all records of the training data but those of its fold, and scores
--- it on these. A record's fold depends on its number alone. What a schema has to fit is fitted
--- anew to each training part, and in the end to all of it.
---@param make fun(fold: integer): table a new model for each fold; it is closed afterwards. One with a
--- store of its own for each fold is resumed
---@param options table folds (5), on_fold(fold, metrics), and those of mr.fit; not valid, test or split
---@return { mean: table, deviation: table, undefined: table|nil, folds: table[] } of the metrics, over
--- the folds in which each is defined; deviation is that of a fold, over one less; undefined: in how many it
--- is not
function search.cross_validate(make, options)
  if type(options) ~= "table" then
    err.raise("mr.cross_validate: expected a function and options, got %s and %s", type(make), type(options))
  end
  local fit = copy(options)
  local folds, on_fold = fit.folds or 5, fit.on_fold
  fit.folds, fit.on_fold = nil, nil
  for _, name in ipairs { "valid", "test", "split" } do
    if fit[name] ~= nil then err.raise("mr.cross_validate takes no %s: folds of train are held out", name) end
  end
  fit.valid = fit.train
  local list, schema, statistics, notice = {}, nil, nil, nil
  for fold = 1, folds do
    local model = make(fold)
    if type(model) ~= "table" or not model.step_number then
      err.raise("mr.cross_validate: its function returned a %s, expected a model", type(model))
    end
    fit.split = { fold = fold, folds = folds, part = "train" }
    if model.schema and model.schema.statistics and model.step_number == 0 then
      if model.schema ~= schema then
        schema, statistics = model.schema, model.schema:fitted() and model.schema:statistics()
      end
      schema:fit { files = fit.train, split = fit.split, bad_lines = fit.bad_lines }
    end
    list[fold] = scores_of(trainer.fit(model, fit), fit)
    notice = model.notice
    model:close()
    if on_fold then on_fold(fold, list[fold]) end
  end
  if schema and statistics then schema:restore(statistics)
  elseif schema then schema:fit { files = fit.train, bad_lines = fit.bad_lines } end
  local mean, deviation, undefined = summary(list)
  tell_undefined(list, { "auc", "gauc" }, notice)
  return { mean = mean, deviation = deviation, undefined = undefined, folds = list }
end

-- ---- search -----------------------------------------------------------------------------------

local Distribution = {}
Distribution.__index = Distribution

local function distribution(name, low, high, least)
  if type(low) ~= "number" or type(high) ~= "number" or not (low < high) or not (low > least) then
    err.raise("mr.%s: expected two numbers%s, the smaller first, got %s and %s", name,
      least == 0 and " above 0" or "", tostring(low), tostring(high))
  end
  return setmetatable({ low = low, high = high, log = least == 0 }, Distribution)
end

--- A setting of mr.search, drawn between two numbers.
---@param low number
---@param high number
function search.uniform(low, high) return distribution("uniform", low, high, -math.huge) end

--- The same, with a logarithm that is uniform.
function search.log_uniform(low, high) return distribution("log_uniform", low, high, 0) end

-- A number in [0, 1) that depends on (seed, trial, name) alone.
local function chance(seed, trial, name)
  local text = trial .. " " .. name
  return tonumber(C.mr_hash(text, #text, seed) / 2048ULL) * 2 ^ -53
end

local function draw(of, seed, trial, name)
  local u = chance(seed, trial, name)
  if getmetatable(of) ~= Distribution then return of[math.floor(u * #of) + 1] end
  if of.log then return of.low * (of.high / of.low) ^ u end
  return of.low + (of.high - of.low) * u
end

-- All combinations of lists, the last name varying first.
local function grid(space, names)
  local all = { {} }
  for _, name in ipairs(names) do
    if getmetatable(space[name]) == Distribution then
      err.raise("mr.search: %s is drawn from a range, so give the number of trials", name)
    end
    local more = {}
    for _, settings in ipairs(all) do
      for _, value in ipairs(space[name]) do
        local longer = copy(settings)
        longer[name] = value
        more[#more + 1] = longer
      end
    end
    all = more
  end
  return all
end

--- Sets an option by its path: "dim", or "linear.lr" of a table of options, which is copied; a name is
--- that of a rule, or of a loss ("loss.q").
---@param options table
---@param path string
---@param value any
function search.set(options, path, value)
  local first, rest = path:match "^([^.]+)%.(.+)$"
  if not first then
    options[path] = value
    return
  end
  local there = options[first]
  local inner = type(there) == "table" and there
    or type(there) == "string" and { [first == "loss" and "name" or "rule"] = there } or {}
  options[first] = setmetatable(copy(inner), nil)
  search.set(options[first], rest, value)
end

local function text(value)
  if type(value) == "table" then
    local words = {}
    for i, item in ipairs(value) do words[i] = text(item) end
    return table.concat(words, ",")
  end
  return type(value) == "number" and ("%.6g"):format(value) or tostring(value)
end

-- The trials as a table of text, the best first.
local function report(trials, names, monitor)
  local lines = { { "trial", "valid " .. monitor, "epoch" } }
  for _, name in ipairs(names) do table.insert(lines[1], name) end
  for _, t in ipairs(trials) do
    local line = { tostring(t.trial), t.problem and "diverged" or ("%.5f"):format(t.valid[monitor]),
      t.best and tostring(t.best.epoch) or "" }
    for _, name in ipairs(names) do line[#line + 1] = text(t.settings[name]) end
    lines[#lines + 1] = line
  end
  local widths = {}
  for _, line in ipairs(lines) do
    for i, word in ipairs(line) do widths[i] = math.max(widths[i] or 0, #word) end
  end
  for i, line in ipairs(lines) do
    for k, word in ipairs(line) do line[k] = word .. (" "):rep(widths[k] - #word) end
    lines[i] = table.concat(line, "  "):gsub("%s+$", "")
  end
  return table.concat(lines, "\n")
end

local OPTIONS = { model = true, options = true, space = true, trials = true, seed = true, monitor = true,
  fit = true, folds = true, store = true, print = true }

local function check(o)
  if type(o) ~= "table" then err.raise("mr.search: expected a table of options, got a %s", type(o)) end
  for name in pairs(o) do
    if not OPTIONS[name] then err.raise("mr.search has no option %q", tostring(name)) end
  end
  for _, name in ipairs { "model", "space", "fit" } do
    if not o[name] then err.raise("mr.search: %s is missing", name) end
  end
  if o.fit.test then
    err.raise "mr.search: fit.test: trials are compared on validation data; score the best one afterwards"
  end
  if not o.folds and not o.fit.valid then
    err.raise "mr.search: fit.valid is missing, or folds to compare the trials on"
  end
  local names = {}
  for name, of in pairs(o.space) do
    if type(of) ~= "table" or getmetatable(of) ~= Distribution and #of == 0 then
      err.raise("mr.search: %s is %s, expected a list, mr.uniform(...) or mr.log_uniform(...)",
        tostring(name), text(of))
    end
    names[#names + 1] = name
  end
  table.sort(names)
  return names
end

--- Trains one model for each setting, all from the same seed, and compares them on validation data:
--- every combination of the space's lists, or `trials` random ones, which depend on the seed and the
--- trial's number alone. A trial that diverges comes last.
---@param o table model: a definition, or a function of options that makes a model; options: of every
--- model; space: { lr = { 0.01, 0.1 }, dim = mr.uniform(4, 16), ["linear.lr"] =, ["fit.size"] = ... },
--- names of options of the model ("model." in front may be left out) or of fit; trials; seed (1);
--- monitor ("auc"); fit: options of mr.fit, with valid or split; folds: cross-validated instead; store: a
--- directory DIR, each trial is then kept in DIR.N, and a search that was broken off is resumed;
--- print (print, or false)
---@return { settings: table, options: table, fit: table, valid: table } best options and fit: what the
--- trial's model and mr.fit were given
---@return table[] trials the best first
function search.search(o)
  local names = check(o)
  local seed, say = o.seed or 1, o.print == nil and print or o.print or function() end
  local monitor = o.monitor or o.fit.monitor or "auc"
  local settings = not o.trials and grid(o.space, names) or {}
  for trial = 1, o.trials or 0 do
    settings[trial] = {}
    for _, name in ipairs(names) do settings[trial][name] = draw(o.space[name], seed, trial, name) end
  end
  say(("search: %d trials, seed %d, by %s of validation data"):format(#settings, seed, monitor))
  local trials = {}
  for number, chosen in ipairs(settings) do
    local given = { options = copy(o.options or {}), fit = copy(o.fit) }
    given.fit.monitor = monitor
    for _, name in ipairs(names) do
      local path = name:match "^fit%.(.+)"
      search.set(path and given.fit or given.options, path or name:match "^model%.(.+)" or name, chosen[name])
    end
    local t = { trial = number, settings = chosen, options = given.options, fit = given.fit }
    local model
    local function make(fold)
      local options = copy(given.options)
      if o.store then options.store = ("%s.%d%s"):format(o.store, number, fold and "." .. fold or "") end
      model = o.model(options)
      if model.objective.link ~= C.MR_LOGIT and monitor == "auc" then monitor = "rmse" end
      return model
    end
    local ok, problem = pcall(function()
      if o.folds then
        given.fit.folds = o.folds
        t.cross = search.cross_validate(make, given.fit)
        given.fit.folds, t.valid = nil, t.cross.mean
      else
        local result = trainer.fit(make(), given.fit)
        t.valid, t.best = scores_of(result, given.fit), result.best
      end
    end)
    if not ok then
      if not (model and model.broken) then error(problem, 0) end
      t.problem, t.valid = problem, { [monitor] = 0 / 0 }
    end
    model:close()
    trials[number] = t
  end
  table.sort(trials, function(a, b)
    local x, y = a.valid[monitor], b.valid[monitor]
    if x == y or x ~= x and y ~= y then return a.trial < b.trial end
    return trainer.better(monitor, x, y)
  end)
  say(report(trials, names, monitor))
  return trials[1], trials
end

return search

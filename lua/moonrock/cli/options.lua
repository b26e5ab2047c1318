-- What the commands share: their options, the values these take, and names that are nearly right.
local ffi = require "ffi"
local json = require "moonrock.json"
local err = require "moonrock.error"
local objective = require "moonrock.objective"
local optim = require "moonrock.optim"
local set = require("moonrock.search").set
local settings = require "moonrock.settings"
local size = require "moonrock.size"
local trainer = require "moonrock.trainer"

local options = {}

-- ---- wrong usage ---------------------------------------------------------------------------

--- Ends the command with a line and status 2.
function options.usage(format, ...)
  error({ usage = format:format(...) }, 0)
end

-- Levenshtein's distance between two words.
local function distance(a, b)
  local row = {}
  for j = 0, #b do row[j] = j end
  for i = 1, #a do
    local diagonal = row[0]
    row[0] = i
    for j = 1, #b do
      local cost = a:byte(i) == b:byte(j) and 0 or 1
      diagonal, row[j] = row[j], math.min(row[j] + 1, row[j - 1] + 1, diagonal + cost)
    end
  end
  return row[#b]
end

--- The word of a list that is nearest to a wrong one, unless all are far.
---@param wrong string
---@param list string[]
---@return string|nil
function options.nearest(wrong, list)
  local best, least = nil, math.max(2, math.floor(#wrong / 3)) + 1
  for _, word in ipairs(list) do
    local d = distance(wrong, word)
    if #word > #wrong and word:sub(1, #wrong) == wrong then d = 1 end
    if d < least then best, least = word, d end
  end
  return best
end

-- ---- values --------------------------------------------------------------------------------

local function count(text)
  local n = tonumber(text)
  if not n or n < 1 or n % 1 ~= 0 or n >= 2 ^ 53 then
    return nil, ("'%s' is no whole number from 1"):format(text)
  end
  return n
end

-- A count that has an end.
local function up_to(most)
  return function(text)
    local n = count(text)
    if not n or n > most then return nil, ("'%s' is no whole number from 1 to %d"):format(text, most) end
    return n
  end
end

local function natural(text)
  local n = tonumber(text)
  if not n or n < 0 or n % 1 ~= 0 or n >= 2 ^ 53 then
    return nil, ("'%s' is no whole number from 0"):format(text)
  end
  return n
end

local function positive(text)
  local n = tonumber(text)
  if not n or not (n > 0) or n == math.huge then
    return nil, ("'%s' is no number above 0"):format(text)
  end
  return n
end

-- "3" -> 3, "true" -> true, "64,32" and "64," -> lists; anything else is text.
local function value(text)
  if text == "true" then return true elseif text == "false" then return false end
  if tonumber(text) then return tonumber(text) end
  if text:find "^[%d.eE+-]+,[%d.eE+,-]*$" and not text:find ",," then
    local list = {}
    for item in text:gmatch "[^,]+" do
      if not tonumber(item) then return text end
      list[#list + 1] = tonumber(item)
    end
    return list
  end
  return text
end

local function setting(text)
  local name, given = text:match("^([%a_][%w_.]*)=(.*)$")
  if not name then return nil, ("'%s' is no NAME=VALUE"):format(text) end
  return { name, value(given), given }
end

local function lifetime(text)
  if not require("moonrock.table").seconds(text) then
    return nil, ("'%s' is no time such as 30d or 12h"):format(text)
  end
  return text
end

local function admit(text)
  local n = tonumber(text)
  if not n or not (n > 0 and n < 1 or n >= 1 and n <= 15 and n % 1 == 0) then
    return nil, ("'%s' is no whole number from 1 to 15, nor a chance below 1"):format(text)
  end
  return n
end

-- "a,b" -> { "a", "b" }, each of them known.
local function list_of(known)
  return function(text)
    local list, has = {}, {}
    for word in text:gmatch "[^,%s]+" do
      local found = false
      for _, name in ipairs(known) do found = found or name == word end
      if not found then
        local near = options.nearest(word, known)
        return nil, ("'%s' is none of %s%s"):format(word, table.concat(known, ", "),
          near and ("; did you mean %s?"):format(near) or "")
      end
      if not has[word] then list[#list + 1] = word end
      has[word] = true
    end
    if #list == 0 then return nil, ("'%s' names none of %s"):format(text, table.concat(known, ", ")) end
    return list
  end
end

-- A field by its name, or its number from 1; of a slice, with values: "country=US,DE".
local function field(text)
  local name, values = text:match "^([^=]*)=(.*)$"
  local list = values and {}
  for cell in (values or ""):gmatch "[^,]+" do list[#list + 1] = cell end
  name = name or text
  local number = tonumber(name)
  if name == "" or number and (number < 1 or number % 1 ~= 0) then
    return nil, ("'%s' is no field, by its name or its number from 1"):format(name)
  elseif list and #list == 0 then
    return nil, ("'%s' names no values, as country=US,DE does"):format(text)
  end
  return { number or name, values = list }
end

local function schedule(text)
  local ok, problem = pcall(require("moonrock.schedule").of, text)
  if not ok then return nil, (problem:gsub("^.-schedule ", "", 1)) end
  return text
end

local FORMATS = { "libsvm", "libffm", "libfm", "csv", "tsv", "bin" }

local function one_of(list)
  return function(text)
    for _, word in ipairs(list) do
      if word == text then return text end
    end
    local near = options.nearest(text, list)
    return nil, ("'%s' is none of %s%s"):format(text, table.concat(list, ", "),
      near and ("; did you mean %s?"):format(near) or "")
  end
end

-- ---- options that several commands have -----------------------------------------------------

local DECLARE
DECLARE = {
  store = function(p)
    p:option("--store", "Directory of the model and all its state."):argname "DIR":count(1)
  end,
  trust = function(p)
    p:flag("--trust", "Run the store's code, this once, though it is not known to be yours.")
  end,
  own_model = function(p)
    p:argument("model", "A model file of your own, or a shipped model's name, to use in place of the store's "
      .. "code."):argname "MODEL":args "?"
  end,
  data = function(p, text)
    p:option("--data", text):argname "FILE":count "*":default {}
  end,
  schema = function(p)
    p:option("--schema", "What the columns of the data are: a Lua file, or the name of a shipped "
      .. "schema (census)."):argname "SCHEMA"
  end,
  format = function(p)
    p:option("--format", "Format of the data: " .. table.concat(FORMATS, ", ")
      .. ". Found from the file where it can be."):argname "FORMAT":convert(one_of(FORMATS))
    p:option("--fields", "Fields of a sample, in the bin and libsvm formats; those of libffm are "
      .. "counted in files."):argname "N":convert(up_to(65535))
  end,
  normalize = function(p)
    p:option("--normalize", "Divide the values of libsvm, libffm and libfm data by the norm of their sample, "
      .. "or by the largest of their key so far; the store keeps it."):argname "sample|key"
      :convert(one_of(require("moonrock.normalize").ways))
  end,
  batch = function(p, default)
    p:option("--batch", "Samples in a batch (" .. default .. ")."):argname "N":convert(up_to(2 ^ 24))
  end,
  learning = function(p)
    p:option("--lr", "Learning rate, in place of the model's own."):argname "X":convert(positive)
    local rules = require("moonrock.optim").rules
    p:option("--optim", "Optimizer in place of the model's own: " .. table.concat(rules, ", ") .. ".")
      :argname "NAME":convert(one_of(rules))
    p:option("--schedule", "Factor of the learning rate by steps, such as \"cosine(1000)\" or "
      .. "\"warmup(100, step(500, 0.5))\".")
      :argname "SCHEDULE":convert(schedule)
    p:option("--set", "An option of the model, such as dim=8, hidden=64,32 or linear.lr=0.1; "
      .. "fit.NAME=VALUE: of the training loop. Repeatable.")
      :argname "NAME=VALUE":count "*":default {}:convert(setting)
    p:option("--seed", "Seed of all randomness (42)."):argname "N":convert(natural)
    p:option("--commit-every", "Commit every so many batches (by default every 30 seconds, and at "
      .. "the end)."):argname "BATCHES":convert(count)
  end,
  metrics = function(p)
    local names = require("moonrock.metrics").names
    p:option("--metrics", "Which to show, such as auc,gauc: " .. table.concat(names, ", ") .. ".")
      :argname "LIST":convert(list_of(names))
    p:option("--group", "Field (name, number from 1, or qid) within whose values samples are ranked: gauc, "
      .. "ndcg, precision, recall, hit_rate, map, mrr."):argname "FIELD":convert(field)
    p:option("--k", "Ranks that ndcg, precision, recall and hit_rate look at (10)."):argname "N"
      :convert(up_to(2 ^ 31 - 1))
    p:option("--slice", "Field for each of whose values there are metrics too; values named here, as in "
      .. "country=US,DE, are shown by name, others by key."):argname "FIELD":convert(field)
  end,
  loss = function(p)
    p:option("--loss", ("Loss in place of the model's own: %s."):format(table.concat(objective.names, ", ")))
      :argname "NAME":convert(one_of(objective.names))
  end,
  machine = function(p)
    p:option("--threads", "Threads; results do not depend on it (one a processor).")
      :argname "N":convert(up_to(256))
    DECLARE.memory(p)
  end,
  memory = function(p)
    p:option("--memory", "Memory that the process may use, such as 2GB (half of the machine's).")
      :argname "SIZE":convert(size)
  end,
  rows = function(p)
    p:option("--ttl", "Rows live so long after their last gradient, such as 30d."):argname "TIME"
      :convert(lifetime)
    p:option("--admit", "A key gets a row from its N-th sighting in training on; below 1: with that chance "
      .. "at each sighting."):argname "N|P":convert(admit)
    p:option("--max-rows", "Rows of a table at most, looked at every 10000 steps: those updated longest ago "
      .. "go then. Between two looks there may be more."):argname "N"
      :convert(count)
    p:option("--precision", "Rows take half the room in bf16: weights, and the optimizer's state where its "
      .. "rule allows it."):argname "float32|bf16":convert(one_of { "float32", "bf16" })
    p:option("--clip-norm", "Gradients of a step are scaled down to this norm, all together."):argname "X"
      :convert(positive)
    p:flag("--allow-drop", "Go on with a model that lacks tables, columns or weights of the store, and "
      .. "drop these.")
  end,
  from = function(p)
    p:option("--from", "start: read the data from its start, whatever the store has of it."):argname "start"
      :convert(one_of { "start" })
  end,
  bad_lines = function(p, more)
    p:option("--bad-lines", "At a malformed line: stop with an error (default), or skip and count "
      .. "it" .. (more or "") .. "."):argname "error|skip":convert(one_of { "error", "skip" })
  end,
  json = function(p)
    p:flag("--json", "Results as JSON, one object a line.")
  end,
}

local function every(text)
  if tonumber(text) and tonumber(text) > 0 then return tonumber(text) end
  if text:match "^%s*[%d.]+%s*%a+%s*$" then return text end
  return nil, ("'%s' is no time such as 10s, 5000 samples or 100 batches"):format(text)
end

options.every = every
options.count, options.natural, options.positive, options.one_of = count, natural, positive, one_of

--- Declares shared options: names, or { name, argument }.
function options.declare(parser, list)
  for _, item in ipairs(list) do
    if type(item) == "table" then DECLARE[item[1]](parser, item[2])
    else DECLARE[item](parser) end
  end
end

-- ---- models and schemas --------------------------------------------------------------------

--- Names of the shipped models, in order.
---@return string[]
function options.models() return require("moonrock.source").shipped end

local function is_path(name) return name:find("/", 1, true) or name:find("%.lua$") end

local function exists(module)
  return module:find("^[%w_.]+$") and (require("moonrock.embedded")[module]
    or package.searchpath(module, package.path)) ~= nil
end

-- A shipped name that does not exist is wrong usage; a file that does not, a failure.
local function check_name(kind, folder, name, known)
  if is_path(name) then
    local file, problem = io.open(name)
    if not file then error(("%s %s"):format(kind, problem), 0) end
    file:close()
  elseif not exists(folder .. "." .. name) then
    local near = options.nearest(name, known)
    options.usage("%s %q is unknown; %s", kind, name, near and ("did you mean %s?"):format(near)
      or ("expected one of %s, or a Lua file"):format(table.concat(known, ", ")))
  end
end

--- The definition behind a MODEL argument.
function options.model(name)
  check_name("model", "models", name, options.models())
  return require("moonrock").find(name)
end

-- The schema that a store keeps as data, or nil.
local function kept_schema(dir)
  local C, compiled = require "moonrock.ffi", require "moonrock.compiled"
  if C.mr_path_kind(dir .. "/COMMIT") < 0 then return nil end
  local store = require("moonrock.store").open(dir, "read")
  local text, files = store:get "model", store:get "files"
  store:close()
  local kept = text and json.decode(text)
  local s = type(kept) == "table" and kept.schema
  if not s or not s.compiled then return nil end
  local schema = compiled.schema(s.compiled)
  schema.source_text, schema.module = s.source, s.module
  if files then schema:found(json.decode(files)) end
  return schema
end

--- The schema behind a --schema argument; without one, that of the store, or nil.
---@param name string|nil
---@param dir string|nil
function options.schema(name, dir)
  if not name then
    local schema = dir and kept_schema(dir)
    if schema then
      io.stderr:write(("moonrock: without --schema, data is read by the store's own schema %q\n"):format(
        schema.name))
    end
    return schema
  end
  check_name("schema", "datasets", name, { "census" })
  return require("moonrock").schema_of(name)
end

-- Of a recipe: what is not an option of fit.
local RECIPE = { model = true, lr = true, optim = true, loss = true, batch = true }

-- "no" and "off" as false, "yes" and "on" as true; anything else as it is.
local function word(given)
  local truth
  if type(given) == "string" then truth = settings.boolean(given) end
  if truth == nil then return given end
  return truth
end

local function fit_name(name) return name:match "^fit%.(.+)" end

-- Adds `--set fit.NAME=VALUE`.
local function set_fit(fit, list, learning)
  for _, pair in ipairs(list) do
    local path = fit_name(pair[1])
    if path then
      set(fit, path, word(pair[2]))
      local name = path:match "^[^.]+"
      local ok, problem = pcall(trainer.check_option, name, fit[name], learning)
      if not ok then options.usage("--set %s: %s", pair[1], problem) end
    end
  end
  return fit
end

--- The options of mr.fit of a schema's recipe for a model, and of `--set fit.NAME=VALUE`.
---@param args table
---@param schema table|nil
---@param recipe table
---@param model string its name
---@return table
function options.of_fit(args, schema, recipe, model)
  local fit = { size = recipe.batch }
  for name, given in pairs(recipe) do
    if not RECIPE[name] then
      err.call(("schema %s: recipe of %s"):format(schema.name, model), trainer.check_option, name, given)
      fit[name] = given
    end
  end
  return set_fit(fit, args.set)
end

--- The same of what mr.learn takes.
---@param args table
---@param recipe table
---@return table
function options.of_learn(args, schema, recipe, model)
  local given = {}
  for name, x in pairs(recipe) do
    if not RECIPE[name] then
      err.call(("schema %s: recipe of %s"):format(schema.name, model), trainer.check_option, name, x)
      if pcall(trainer.check_option, name, x, true) and name ~= "window" then given[name] = x end
    end
  end
  return set_fit(given, args.set, true)
end

--- The model's options of a command line; those that it leaves open are the recipe's, which the
--- schema has for this model.
function options.of_model(args, schema, recipe)
  local o = { store = args.store, seed = args.seed, threads = args.threads, memory = args.memory,
    lr = args.lr or recipe.lr, optim = args.optim or recipe.optim, commit_every = args.commit_every,
    schema = schema, ttl = args.ttl, admit = args.admit, max_rows = args.max_rows,
    precision = args.precision,
    schedule = args.schedule, clip_norm = args.clip_norm, allow_drop = args.allow_drop,
    loss = args.loss or recipe.loss }
  for name, default in pairs(recipe.model or {}) do
    if o[name] == nil then o[name] = default end
  end
  for _, pair in ipairs(args.set) do
    if not fit_name(pair[1]) then set(o, (pair[1]:gsub("^model%.", "")), pair[2]) end
  end
  o.command = true
  o.on_notice = function(text) io.stderr:write("moonrock: ", text, "\n") end
  return o
end

--- The data of a command line without a schema, whose fields have scales of their own.
function options.of_data(args, schema)
  if not schema then
    return require("moonrock").data { files = args.data and #args.data > 0 and args.data or nil,
      format = args.format, fields = args.fields, normalize = args.normalize }
  end
  if args.normalize then
    options.usage("--normalize %s: is for libsvm, libffm and libfm data; numbers of a schema have a scale of "
      .. "their own", args.normalize)
  end
end

--- The options of mr.metrics of a command line.
function options.of_metrics(args)
  return { group = args.group and args.group[1], k = args.k, slice = args.slice and args.slice[1],
    values = args.slice and args.slice.values }
end

-- Options of every model, which the runtime asks for; some of them have words of their own.
local COMMON = { ttl = lifetime, admit = admit, schedule = schedule, loss = function(name)
  local ok, problem = pcall(objective.new, "--set", name)
  if not ok then return nil, problem:match "loss is .*" or problem end
  return name
end }
for name in pairs(settings.common) do COMMON[name] = true end

-- What only the program gives a model.
local OTHERS = { store = "--store", schema = "--schema", data = "--data", read_only = true, follow = true,
  on_notice = true, clock = true, cold = true, detached = true }

-- Options of the runtime, which --set takes as the command's own do.
local RUNTIME = { seed = natural, threads = up_to(256), memory = size, commit_every = count,
  commit_seconds = positive, allow_drop = function(text)
    local truth = settings.boolean(text)
    return truth, truth == nil and "expected true or false" or nil
  end }

-- What is wrong with one `--set`, or nil; in the options, what a value stands for takes its place. `alone`
-- are options with this one and those before it.
local function wrong_setting(definition, name, given, o, alone)
  local first, rest = name:match "^([^.]+)%.?(.*)$"
  if OTHERS[first] then
    return "is no option of a model" .. (OTHERS[first] ~= true and "; give " .. OTHERS[first] or "")
  end
  local kind = settings.of(definition, o)[first]
  if settings.is_optimizer(kind) then
    local base = type(kind) == "table" and kind or first ~= "optim" and definition:default_optim(o)
      or definition.settings.optim or "adam"
    local ok, problem = pcall(optim.over, alone[first], base)
    return not ok and problem or nil
  elseif kind and rest ~= "" then
    return ("%s is no table of settings"):format(first)
  elseif kind then
    local taken, expected = settings.take(o[first], kind)
    if taken == nil then return "expected " .. expected end
    o[first] = taken
  elseif type(COMMON[first]) == "function" then
    if first == "loss" and type(o.loss) == "table" and not o.loss.name then
      local own = definition.settings.loss or "bce"
      o.loss.name = type(own) == "table" and own.name or own
    end
    local taken, problem = COMMON[first](type(o[first]) == "number" and tostring(o[first]) or o[first])
    return taken == nil and problem or nil
  elseif RUNTIME[first] and rest == "" then
    local taken, problem = RUNTIME[first](tostring(given))
    if taken == nil then return problem end
    o[first] = taken
  elseif definition.settings.options and not COMMON[first] and not RUNTIME[first] then
    local names = settings.names(definition, o)
    local near = options.nearest(first, names)
    return near and ("model %s has no such option; did you mean %s?"):format(definition.name, near)
      or ("model %s has no such option; it has %s"):format(definition.name, table.concat(names, ", "))
  elseif rest == "" then
    o[first] = word(given)
  end
end

--- Makes a model's definition complain about an option that it never asks for while it is built: an
--- error where it asks for a name much like it, else a line on standard error.
---@param definition table
---@param list table[] `--set`: pairs of name and value
---@param recipe table|nil of the schema for this model
---@param schema table|nil
---@param o table the model's options; what a value stands for takes its place in them
function options.check_settings(definition, list, recipe, schema, o)
  local build, asked, names = definition.build, {}, {}
  local given_by, alone = {}, {}
  for name, given in pairs(recipe and recipe.model or {}) do alone[name] = given end
  if type(o.optim) == "table" then alone.optim = { rule = o.optim.rule } end
  for name in pairs(recipe and recipe.model or {}) do
    given_by[name] = ("schema %s: recipe of %s: %s"):format(schema.name, definition.name, name)
  end
  for _, pair in ipairs(list) do
    if not fit_name(pair[1]) then
      local name = pair[1]:gsub("^model%.", "")
      set(alone, name, pair[2])
      local problem = wrong_setting(definition, name, pair[2], o, alone)
      if problem then options.usage("--set %s=%s: %s", pair[1], pair[3], problem) end
      given_by[name:match "^[^.]+"] = "--set " .. pair[1]
    end
  end
  definition.build = function(m, opt)
    local visible, hidden = {}, {}
    for name, given in pairs(opt) do visible[name] = given end
    for name in pairs(given_by) do
      hidden[name], visible[name] = visible[name], nil
    end
    setmetatable(visible, { __index = function(_, name)
      if not asked[name] then
        asked[name] = true
        names[#names + 1] = name
      end
      return hidden[name]
    end })
    local forward, own_loss = build(m, visible)
    for name, by in pairs(given_by) do
      local common = COMMON[name] or RUNTIME[name]
      local near = not asked[name] and not common and options.nearest(name, names)
      if near then
        options.usage("%s: model %s has no such option; did you mean %s?", by, m.name, near)
      elseif not asked[name] and not common then
        io.stderr:write(("moonrock: %s: model %s did not ask for it\n"):format(by, m.name))
      end
    end
    return forward, own_loss
  end
end

--- Tells, on standard error, how many lines were bad.
function options.report_bad(bad, first)
  if bad > 0 then
    io.stderr:write(("moonrock: %d bad lines; the first: %s\n"):format(bad, first))
  end
end

--- Tells, on standard error, which values of --slice no sample had.
function options.report_slices(args, result)
  local found, lacking = {}, {}
  for _, s in ipairs(result.slices or {}) do found[s.value or ""] = true end
  for _, name in ipairs(args.slice and args.slice.values or {}) do
    if not found[name] then lacking[#lacking + 1] = name end
  end
  if #lacking > 0 then
    io.stderr:write(("moonrock: --slice %s: no samples of %s\n"):format(args.slice[1],
      table.concat(lacking, ", ")))
  end
end

--- Keeps the number of bad lines of an iterator that others close.
---@return table { n =, first = } filled in when it is closed
function options.count_bad(batches)
  local bad, close = { n = 0, first = "" }, batches.close
  function batches:close()
    if self.c then bad.n, bad.first = self:skipped() end
    close(self)
  end
  return bad
end

--- Fails if a file is not there, before anything is made. Files are not opened: a pipe can be opened once.
---@param files string[]
function options.check_files(files)
  local C = require "moonrock.ffi"
  for _, path in ipairs(files) do
    if C.mr_path_kind(path) < 0 then error("data " .. ffi.string(C.mr_error()), 0) end
  end
end

--- What data is called that can be read only once, as a pipe can; nil for files and directories, and for
--- what is not there.
---@param path string
---@return string|nil
function options.once(path)
  if path == "-" then return "standard input (-)" end
  local C = require "moonrock.ffi"
  return C.mr_path_kind(path) == C.MR_PATH_ONCE and ("%s (a pipe)"):format(path) or nil
end

--- One file as it is, several as a list, none as the schema's part.
function options.files(list, part)
  if #list == 0 then return part end
  return #list == 1 and list[1] or list
end

--- Ends the command if metrics are asked for that the model, or the command line, does not give.
---@param args table
---@param model table
function options.check_metrics(args, model)
  local metrics = require "moonrock.metrics"
  local ranked, known = {}, {}
  for _, name in ipairs(metrics.ranked) do ranked[name] = true end
  for _, name in ipairs(metrics.of(model.objective.link, true)) do known[name] = true end
  for _, name in ipairs(args.metrics or {}) do
    if ranked[name] and not args.group then options.usage("--metrics %s: needs --group FIELD", name) end
    if not known[name] then
      options.usage("--metrics %s: model %s has the loss %s; it has %s", name, model.name, model.loss_name,
        table.concat(metrics.of(model.objective.link, args.group), ", "))
    end
  end
  if args.k and not args.group then options.usage("--k %d: needs --group FIELD", args.k) end
end

return options

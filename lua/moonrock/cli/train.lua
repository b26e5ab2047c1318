-- moonrock train: epochs over files, with validation, early stopping and commits.
local needs = require "moonrock.cli.needs"
local options = require "moonrock.cli.options"
local output = require "moonrock.cli.output"

local train = {}

function train.declare(p)
  p:description("Trains a model on files. Its whole state is kept in the store: run again with the "
    .. "same options, it goes on from the last commit. Files may be .gz or .zst, directories, or - "
    .. "for standard input.")
  p:argument("model", "Name of a shipped model (" .. table.concat(options.models(), ", ")
    .. ") or a Lua file."):argname "MODEL"
  options.declare(p, { "store", { "data", "Training data. Repeatable. By default the schema's own." } })
  p:option("--valid", "Validation data: a file, or a fraction such as 0.1 of the training data.")
    :argname "FILE|X"
  p:option("--test", "Test data, scored at the end."):argname "FILE"
  p:flag("--no-test", "Leave the schema's test data alone.")
  options.declare(p, { "schema", "format", "normalize", { "batch", "64" } })
  p:option("--epochs", "Passes over the data, counted over the whole run (the schema's, or 1).")
    :argname "N":convert(options.count)
  p:option("--patience", "Stop after so many epochs without a better validation, and restore the "
    .. "best state."):argname "EPOCHS":convert(options.count)
  options.declare(p, { "from" })
  p:option("--shuffle", "Order of the training samples: window (default), full, or off.")
    :argname "HOW":convert(options.one_of { "window", "full", "off" })
  p:option("--window", "Samples in the shuffling window."):argname "N":convert(options.count)
  p:option("--folds", "Cross-validation instead: train K models, each on the training data but one of K "
    .. "parts, in DIR.1 to DIR.K, and give mean and deviation of their metrics. Test data is left alone.")
    :argname "K"
    :convert(options.count)
  p:flag("--profile", "At the end, a table of where the time of training went: reading, looking up, each "
    .. "operation forward and backward, updates, commits, waiting.")
  options.declare(p, { "learning", "loss", "rows", "machine", "bad_lines", "json" })
end

local SHUFFLE = { window = true, full = "full", off = false }

-- Standard input and other pipes can be read once, in their order.
local function check_once(args, files)
  local once
  for _, file in ipairs(files) do
    local name = options.once(file)
    if once and name == once then options.usage("%s can be read only once", name) end
    once = once or name
  end
  if not once then return end
  if (args.epochs or 1) > 1 then
    options.usage("--epochs %d: %s can be read only once", args.epochs, once)
  end
  if args.shuffle == "full" then
    options.usage("--shuffle full: %s can be read only once, use window or off", once)
  end
  if args.folds then
    options.usage("--folds %d: %s can be read only once, give a file", args.folds, once)
  end
  if tonumber(args.valid) then
    options.usage("--valid %s: %s can be read only once, give a file", args.valid, once)
  end
  for _, pair in ipairs(args.set) do
    if pair[1] == "fit.class_weight" and pair[2] == "balanced" then
      options.usage("--set fit.class_weight=balanced: %s can be read only once, give two weights", once)
    end
  end
  args.epochs = 1
end

function train.run(args)
  local files = { unpack(args.data) }
  local split = tonumber(args.valid)
  if split and not (split > 0 and split < 1) then
    options.usage("--valid %s: expected a file or a fraction between 0 and 1", args.valid)
  end
  if args.valid and not split then files[#files + 1] = args.valid end
  if args.test then files[#files + 1] = args.test end
  if args.folds and (args.valid or args.test) then
    options.usage("--folds %d: --%s is not used, parts of the training data are held out", args.folds,
      args.valid and "valid" or "test")
  end
  if args.folds == 1 then options.usage "--folds 1: expected 2 or more" end
  needs.check("train", args)
  check_once(args, files)
  options.check_files(files)

  local definition = options.model(args.model)
  local mr = require "moonrock"
  local schema = options.schema(args.schema, args.store)
  local recipe = schema and schema.recipe[definition.name] or {}
  local o = options.of_model(args, schema, recipe)
  if not schema and #args.data == 0 then
    options.usage("--data FILE is missing (or --schema, of one that names files)")
  end
  o.data = options.of_data(args, schema)
  options.check_settings(definition, args.set, recipe, schema, o)
  local fit = options.of_fit(args, schema, recipe, definition.name)

  local parts = schema and schema.parts or {}
  local source = options.files(args.data, "train")
  local valid, test = args.valid, args.test
  if split then valid = source end
  if #args.data == 0 then
    valid = valid or parts.valid and "valid" or nil
    test = test or not args.no_test and parts.test and "test" or nil
  else
    local unused = {}
    if parts.valid and not args.valid then unused[#unused + 1] = "--valid " .. parts.valid end
    if parts.test and not args.test and not args.no_test then
      unused[#unused + 1] = "--test " .. parts.test
    end
    if #unused > 0 and not args.folds then
      io.stderr:write(("moonrock: with --data, the schema's other files are left alone; %s takes them\n")
        :format(table.concat(unused, " ")))
    end
  end
  local show = output.printer(args.json)
  local Progress = require "moonrock.progress"
  local profile = require "moonrock.profile"
  local skip, bad = args.bad_lines == "skip", nil
  local given = { train = source, epochs = args.epochs, size = args.batch, patience = args.patience,
    shuffle = SHUFFLE[args.shuffle], window = args.window, bad_lines = args.bad_lines,
    from = args.from }
  for name, value in pairs(given) do fit[name] = value end
  local fold
  Progress.of_fit(fit, function() return fold and ("fold %d/%d"):format(fold, args.folds) or "train" end)
  local on_data = fit.on_data
  function fit.on_data(batches, part, loss)
    if skip and part == "train" then bad = options.count_bad(batches) end
    on_data(batches, part, loss)
  end
  function fit.on_event(event)
    if args.profile and event.event == "result" then show(profile.finish()) end
    if bad and event.event == "result" then event.bad_lines = bad.n end
    show(event)
  end
  if args.folds then
    fit.folds = args.folds
    local r = mr.cross_validate(function(number)
      fold = number
      o.store = ("%s.%d"):format(args.store, fold)
      return definition(o)
    end, fit)
    show { event = "folds", folds = args.folds, mean = r.mean, deviation = r.deviation,
      undefined = r.undefined }
    return
  end
  if not valid then needs.validation(args) end
  fit.valid, fit.test, fit.split = valid, test, split
  local model = definition(o)
  if args.profile then profile.start() end
  local ok, problem = pcall(mr.fit, model, fit)
  if not ok then
    model:close()
    error(problem, 0)
  end
  if bad then options.report_bad(bad.n, bad.first) end
  model:close()
end

return train

-- moonrock learn: the online loop. Every batch is scored, then learned from.
local needs = require "moonrock.cli.needs"
local options = require "moonrock.cli.options"
local metrics = require "moonrock.metrics"
local output = require "moonrock.cli.output"
local Progress = require "moonrock.progress"

local learn = {}

function learn.declare(p)
  p:description("Learns from a stream of samples: each batch is scored before it is learned from. "
    .. "Weights, metrics and the position in the stream are committed together, so after any end "
    .. "the same command goes on. From standard input (-) it expects the stream from sample "
    .. "position.samples of `moonrock info --json` on; files are sought.")
  p:argument("model", "Name of a shipped model (" .. table.concat(options.models(), ", ")
    .. ") or a Lua file."):argname "MODEL"
  options.declare(p, { "store" })
  p:option("--source", "The stream: a file, or - for standard input."):argname "SOURCE":count(1)
  p:flag("--follow", "At the end of the file wait for more, as tail -f does.")
  options.declare(p, { "schema", "format", "normalize", { "batch", "1; two_tower: 256" } })
  options.declare(p, { "from" })
  p:option("--max-wait", "Learn from a smaller batch after so many seconds."):argname "SECONDS"
    :convert(options.positive)
  p:option("--window", "Samples of the windowed metrics (10000)."):argname "N":convert(options.count)
  p:option("--every", "Time between lines: 10s, 5000 samples, 100 batches (10s)."):argname "TIME"
    :convert(options.every)
  options.declare(p, { "learning", "loss", "rows", "machine", "bad_lines", "json" })
end

function learn.run(args)
  if args.follow and args.source == "-" then
    options.usage("--follow is for files; standard input (-) ends when its writer closes it")
  end
  local definition = options.model(args.model)
  args.stream_size = definition.settings.stream_size or 1
  needs.check("learn", args)
  local mr = require "moonrock"
  local schema = options.schema(args.schema, args.store)
  local recipe = schema and schema.recipe[definition.name] or {}
  options.check_files { args.source }
  local o = options.of_model(args, schema, recipe)
  o.data = options.of_data(args, schema)
  options.check_settings(definition, args.set, nil, nil, o)
  o.optim = o.optim or require("moonrock.stream").optim(definition)
  local model = definition(o)

  local skip = args.bad_lines == "skip"
  local shown -- rows of the last line
  local function show(watch, kind)
    if args.json then
      local r = watch:result()
      r.event, r.steps = kind, model.step_number
      r.skipped, r.reason, r.learned = watch.skipped, watch.reason, watch.rows_learned
      if skip then r.bad_lines = watch.bad_lines end
      output.event(r)
    elseif watch.samples ~= shown then
      shown = watch.samples
      print(watch:line())
      io.stdout:flush()
    end
  end
  local first_step = model.step_number
  -- What was learned, however it ended.
  local function conclude(watch, how)
    show(watch, "result")
    if not args.json then
      Progress.clear()
      io.stdout:write(watch.reason or ("%s: %s rows learned in %s steps"):format(how,
        output.grouped(watch.rows_learned), output.grouped(model.step_number - first_step)), "\n")
    elseif watch.reason then
      io.stderr:write(watch.reason, "\n")
    end
    local total = watch:result().total
    local undefined = total.rows > 0 and total.auc and metrics.undefined(total, "auc")
    if undefined then io.stderr:write("moonrock: auc is not defined: ", undefined, "\n") end
    if watch.skipped > 0 then
      io.stderr:write(("moonrock: %d batches were not finite and were skipped; the first: %s\n"):format(
        watch.skipped, watch.first_skipped))
    end
    if skip then options.report_bad(watch.bad_lines, watch.first_bad) end
  end
  local progress = Progress.new "learn"
  local settings = options.of_learn(args, schema, recipe, definition.name)
  local given = { size = args.batch, max_wait = args.max_wait,
    follow = args.follow or nil, bad_lines = args.bad_lines, window = args.window, every = args.every,
    from = args.from, on_line = function(watch) show(watch, "window") end,
    on_batch = function(batch, loss, batches) progress:add(batch.n, loss, batches:progress()) end }
  for name, value in pairs(given) do settings[name] = value end
  local ok, watch = pcall(mr.learn, model, args.source, settings)
  local signal = not ok and type(watch) == "table" and watch.interrupted
  if ok then
    conclude(watch, "end of " .. (args.source == "-" and "standard input" or args.source))
  elseif signal and watch.watch then
    conclude(watch.watch, signal == 2 and "interrupted" or "terminated")
  end
  model:close()
  if not ok then error(watch, 0) end
end

return learn

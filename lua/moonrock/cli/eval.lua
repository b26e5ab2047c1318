-- moonrock eval: how good the model of a store is on labelled data. Writes nothing.
local inputs = require "moonrock.cli.inputs"
local options = require "moonrock.cli.options"
local output = require "moonrock.cli.output"
local Progress = require "moonrock.progress"

local eval = {}

function eval.declare(p)
  p:description "Scores labelled data with the model of a store. Nothing is written."
  options.declare(p, { "own_model", "store", { "data", "Labelled data; - is standard input. Repeatable. "
    .. "By default the schema's test files, or else standard input." },
    { "batch", "4096" }, "metrics", "machine", "trust", "bad_lines", "json" })
end

function eval.run(args)
  options.check_files(args.data)
  local mr = require "moonrock"
  local C = require "moonrock.ffi"
  local began = C.mr_clock()
  local model, files = inputs.reopen(args)
  options.check_metrics(args, model)
  local batches = model.data:batches(files, { size = args.batch or 4096, epochs = 1,
    shuffle = false, bad_lines = args.bad_lines })
  local bad = options.count_bad(batches)
  Progress.new("eval"):watch(batches)
  local test = mr.evaluate(model, batches, options.of_metrics(args))
  output.printer(args.json, args.metrics) { event = "result", seconds = C.mr_clock() - began, test = test,
    bad_lines = args.bad_lines == "skip" and bad.n or nil }
  options.report_bad(bad.n, bad.first)
  options.report_slices(args, test)
  model:close()
end

return eval

-- moonrock predict: one probability for each line of data, in its order. Writes nothing else.
local ffi = require "ffi"
local options = require "moonrock.cli.options"
local Progress = require "moonrock.progress"

local predict = {}

function predict.declare(p)
  p:description("Writes one probability for each line of data, in its order (a value, for a model of "
    .. "regression). The data may lack labels.")
  options.declare(p, { "store", { "data", "Data, with or without labels. Repeatable." } })
  p:option("--out", "File to write; by default standard output."):argname "FILE"
  options.declare(p, { { "batch", "4096" }, "machine", { "bad_lines", "; its line is nan" } })
end

local ROOM = 24 -- bytes that a number and its newline need at most

function predict.run(args)
  options.check_files(args.data)
  local mr = require "moonrock"
  local C = require "moonrock.ffi"
  local err = require "moonrock.error"
  local tape = require "moonrock.tape"
  local size = args.batch or 4096
  local model = mr.reopen(args.store, { threads = args.threads, memory = args.memory })
  local batches = model.data:batches(options.files(args.data, "test"),
    { size = size, epochs = 1, shuffle = false, labels = false, bad_lines = "keep" })
  if args.out or C.mr_terminal(1) == 0 then Progress.new("predict"):watch(batches) end
  local out = io.stdout
  if args.out then
    local file, problem = io.open(args.out, "w")
    if not file then error("--out " .. problem, 0) end
    out = file
  end
  local text = ffi.new("char[?]", size * ROOM)
  local link = model.objective.link
  local skip = args.bad_lines == "skip"
  local bad, first = 0, ""
  mr.predict(model, batches, function(logits, batch)
    bad, first = batches:skipped()
    if bad > 0 and not skip then error(first, 0) end
    local len = err.check(C.mr_text_scores((tape.floats(logits)), batch.c.bad, batch.n, link, text,
      size * ROOM))
    local ok, reason = out:write(ffi.string(text, len))
    if not ok then error(("%s: %s"):format(args.out or "standard output", reason), 0) end
  end)
  local ok, reason = (args.out and out.close or out.flush)(out)
  if not ok then error(("%s: %s"):format(args.out or "standard output", reason), 0) end
  if bad > 0 then options.report_bad(bad, first) end
  model:close()
end

return predict

-- moonrock predict: one probability for each sample of data, in its order. Writes nothing else.
local ffi = require "ffi"
local inputs = require "moonrock.cli.inputs"
local options = require "moonrock.cli.options"
local Output = require "moonrock.output"
local Progress = require "moonrock.progress"

local predict = {}

function predict.declare(p)
  p:description("Writes one probability for each sample of data, in its order (a value, for a model of "
    .. "regression). Blank lines and comments are no samples. The data may lack labels and sample weights. "
    .. "From a pipe each sample is answered as soon as it is there.")
  options.declare(p, { "own_model", "store", { "data", "Data, with or without labels; - is standard input. "
    .. "Repeatable. By default the schema's test files, or else standard input." } })
  p:option("--out", "File to write, once all is scored; by default standard output."):argname "FILE"
  options.declare(p, { { "batch", "4096" }, "machine", "trust",
    { "bad_lines", "; its line is nan, and so is that of a sample whose score is not a number" } })
end

local ROOM = 24 -- bytes that a number and its newline need at most

-- What a score that is not finite may come from: the largest value of its sample, if it is large.
local function culprit(model, batch, i)
  local c = batch.c
  if c.values == nil then return "" end
  local largest
  for e = c.offsets[i], c.offsets[i + 1] - 1 do
    if not largest or not (math.abs(c.values[e]) <= math.abs(c.values[largest])) then largest = e end
  end
  if not largest or math.abs(c.values[largest]) < 1e4 then return "" end
  local schema, C = model.schema, require "moonrock.ffi"
  local field = c.field ~= nil and c.field[largest] or largest - c.offsets[i]
  if schema and schema.c and field < C.mr_schema_fields(schema.c) then
    return (" (value of field %q: %.6g)"):format(ffi.string(C.mr_schema_field_name(schema.c, field)),
      c.values[largest])
  end
  return (" (value of key %s: %.6g)"):format(tostring(c.keys[largest]):gsub("ULL$", ""), c.values[largest])
end

-- Scores the batches and writes a line for each sample; the number of bad lines and of scores that are no
-- numbers, and the first of each.
local function write(model, batches, out, size, skip, at_once)
  local C = require "moonrock.ffi"
  local err = require "moonrock.error"
  local tape = require "moonrock.tape"
  local text, undefined = ffi.new("char[?]", size * ROOM), ffi.new "int32_t[2]"
  local link = model.objective.link
  local told = { bad = 0, first_bad = "", undefined = 0 }
  require("moonrock").predict(model, batches, function(logits, batch)
    told.bad, told.first_bad = batches:skipped()
    if told.bad > 0 and not skip then error(told.first_bad, 0) end
    local len = err.check(C.mr_text_scores((tape.floats(logits)), batch.c.bad, batch.n, link, text,
      size * ROOM, undefined))
    if undefined[0] > 0 then
      local first = ("%s: the score is not a number%s"):format(batches:where(undefined[1] + 1),
        culprit(model, batch, undefined[1]))
      if not skip then error(first, 0) end
      told.undefined, told.first_undefined = told.undefined + undefined[0], told.first_undefined or first
    end
    out:write(text, len)
    if at_once then out:flush() end
  end)
  local signal = C.mr_interrupted()
  if signal ~= 0 then error({ interrupted = signal, lost = "not all is scored" }, 0) end
  return told
end

function predict.run(args)
  options.check_files(args.data)
  local C = require "moonrock.ffi"
  local size = args.batch or 4096
  local model, files = inputs.reopen(args)
  local at_once = inputs.from_pipe(files)
  local target = args.out or "-"
  inputs.check_out("--out", target, inputs.of(args, model, files))
  C.mr_interrupt_catch()
  local batches = model.data:batches(files, { size = size, epochs = 1, shuffle = false, labels = false,
    bad_lines = "keep", stream = at_once or nil, max_wait = at_once and 0 or nil })
  if args.out or C.mr_terminal(1) == 0 then Progress.new("predict"):watch(batches) end
  local out = Output.open(target)
  local ok, told = pcall(write, model, batches, out, size, args.bad_lines == "skip", at_once)
  if not ok then
    if not args.out then pcall(out.flush, out) end -- what was scored before it
    out:abort()
    error(told, 0)
  end
  out:close()
  options.report_bad(told.bad, told.first_bad)
  if told.undefined > 0 then
    io.stderr:write(("moonrock: %d scores are not numbers and written as nan; the first: %s\n"):format(
      told.undefined, told.first_undefined))
  end
  model:close()
end

return predict

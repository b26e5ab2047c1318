-- moonrock export: the last commit of a store as a file.
local json = require "moonrock.json"
local inputs = require "moonrock.cli.inputs"
local options = require "moonrock.cli.options"
local output = require "moonrock.cli.output"

local export = {}

local FORMATS = require("moonrock.export").formats
local SECONDS = { s = 1, m = 60, h = 3600, d = 86400, w = 7 * 86400 }

local function age(text)
  local number, unit = text:match("^([%d.]+)([smhdw]?)$")
  number = tonumber(number)
  if not number or number <= 0 or unit == "" and number % 1 ~= 0 then
    return nil, ("'%s' is no number of steps, nor a time such as 90m, 12h or 30d"):format(text)
  end
  return { steps = unit == "" and number or nil, seconds = SECONDS[unit] and number * SECONDS[unit] }
end

function export.declare(p)
  p:description("Writes the last commit of a store as a file: rows as text (tsv), NumPy arrays (npy, a "
    .. "directory), or all of the store in a checked binary format (bin), from which import makes it "
    .. "again. Works while another process trains.")
  options.declare(p, { "store" })
  p:option("--out", "File to write (npy: a directory); - is standard output."):argname "FILE":count(1)
  p:option("--format", table.concat(FORMATS, ", ") .. "; found from the ending of FILE; bin if it has none.")
    :argname "FORMAT":convert(options.one_of(FORMATS))
  p:option("--since", "A delta: rows changed and keys dropped after a step."):argname "STEP"
    :convert(options.natural)
  p:option("--table", "Only this table. Repeatable."):argname "NAME":count "*":default {}
  p:option("--min-count", "Only rows that were updated so often."):argname "N":convert(options.count)
  p:option("--age", "Only rows updated in the last so many steps, or in a time before the last commit: "
    .. "90m, 12h, 30d."):argname "AGE":convert(age)
  options.declare(p, { "json" })
end

local ORDER = { "event", "file", "format", "commit", "step", "since", "rows", "drops" }

function export.run(args)
  local out = args.out
  local C = require "moonrock.ffi"
  if out == "-" then
    if args.format == "npy" then options.usage("--out -: npy writes a directory, give its name") end
    if args.format ~= "tsv" and C.mr_terminal(1) == 1 then
      options.usage("--out -: standard output is a terminal; give a file, or --format tsv")
    end
  end
  local exports = require "moonrock.export"
  local format, problem = exports.format(out, args.format)
  if not format then options.usage("--out %s (--format %s)", problem, table.concat(FORMATS, ", ")) end
  inputs.check_out("--out", out, { { "the store", args.store } })
  C.mr_interrupt_catch()
  local given = args.age or {}
  local ok, told = pcall(exports.export, args.store, out, { format = format, since = args.since,
    tables = args.table, min_count = args.min_count, age = given.steps, age_seconds = given.seconds })
  local signal = C.mr_interrupted()
  if signal ~= 0 and not ok then error({ interrupted = signal, lost = "nothing is exported" }, 0) end
  if not ok then error(told, 0) end
  local line
  if args.json then
    told.event = "export"
    line = json.encode(told, { keyorder = ORDER })
  else
    line = ("%s: commit %d, step %d%s: %s rows%s"):format(out, told.commit, told.step,
      args.since and args.since > 0 and (" since step %d"):format(args.since) or "",
      output.grouped(told.rows), told.drops > 0 and (", %s dropped keys"):format(
        output.grouped(told.drops)) or "")
  end
  ((out == "-" or out == "/dev/stdout") and io.stderr or io.stdout):write(line, "\n")
end

return export

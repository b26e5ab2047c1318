-- moonrock shrink: drops the rows of a store that are worth least.
local needs = require "moonrock.cli.needs"
local options = require "moonrock.cli.options"
local output = require "moonrock.cli.output"

local shrink = {}

local BY = { "step", "count", "norm", "score" }

function shrink.declare(p)
  p:description("Drops the rows of a store that are worth least, in one commit. A key that was dropped "
    .. "is a new one when it is seen again.")
  options.declare(p, { "store" })
  p:option("--table", "Only this table."):argname "NAME"
  p:option("--column", "Column that counts and norms are of. By default the one with most updates, and "
    .. "for norms the widest."):argname "NAME"
  p:option("--min-count", "Drop rows with fewer updates."):argname "N":convert(options.count)
  p:option("--min-norm", "Drop rows whose weights have a smaller L2 norm."):argname "X"
    :convert(options.positive)
  p:option("--min-score", "Drop rows with a smaller score: updates, halved for every half-life since the "
    .. "last one."):argname "X":convert(options.positive)
  p:option("--half-life", "Half-life of scores."):argname "STEPS":convert(options.positive)
  p:option("--max-rows", "Keep so many rows of each table, those worth most."):argname "N"
    :convert(options.natural)
  p:option("--by", "What --max-rows goes by: step (of the last update, the default), count, norm, score.")
    :argname "WHAT":convert(options.one_of(BY))
  p:option("--forget", "No delta since this step or one before it will be asked for: what was dropped "
    .. "until then need not be remembered."):argname "STEP":convert(options.natural)
  p:flag("--dry-run", "Only count; nothing is written.")
  options.declare(p, { "machine", "json" })
end

function shrink.run(args)
  if not (args.min_count or args.min_norm or args.min_score or args.max_rows or args.forget) then
    options.usage("shrink: one of --min-count, --min-norm, --min-score, --max-rows, --forget is missing")
  end
  if (args.min_score or args.by == "score") and not args.half_life then
    options.usage("shrink: a score needs --half-life STEPS")
  end
  needs.check("shrink", args)
  local model = require "moonrock.bare"(args.store, { write = not args.dry_run, threads = args.threads,
    memory = args.memory })
  local ok, dropped, tables = pcall(model.shrink, model, { table = args.table, column = args.column,
    min_count = args.min_count, min_norm = args.min_norm, min_score = args.min_score,
    half_life = args.half_life, max_rows = args.max_rows, by = args.by, forget = args.forget,
    dry_run = args.dry_run or false })
  model:close()
  if not ok then error(dropped, 0) end
  if args.json then
    output.event { event = "shrink", dropped = dropped, tables = tables, dry_run = args.dry_run or false }
    return
  end
  for _, t in ipairs(tables) do
    print(("%s  %s of %s rows %s"):format(t.name, output.grouped(t.dropped), output.grouped(t.rows),
      args.dry_run and "would be dropped" or "dropped"))
  end
end

return shrink

-- moonrock verify: reads all of a store and names what is wrong with it.
local json = require "moonrock.json"
local options = require "moonrock.cli.options"
local output = require "moonrock.cli.output"

local verify = {}

function verify.declare(p)
  p:description("Reads everything of a store and of the states kept in it: checksums, layouts, counts, "
    .. "the log of commits. Nothing is written. Ends with 0 if all is well, and with 1 after a line "
    .. "for each thing that is wrong.")
  options.declare(p, { "store", "json" })
end

local function summary(report, name)
  if not report.commit then return end
  print(("%s: commit %d, step %d; %s commits in the log, %s bytes"):format(name, report.commit.number,
    report.commit.step, output.grouped(report.commits or 0), output.grouped(math.max(0, report.bytes))))
  for _, t in ipairs(report.tables or {}) do
    print(("  %-16s %s rows"):format(t.name, output.grouped(t.rows)))
  end
end

function verify.run(args)
  local report = require "moonrock.verify"(args.store)
  local bad = #report.problems > 0
  if args.json then
    report.event, report.ok = "verify", not bad
    print(json.encode(report, { keyorder = { "event", "ok", "store", "commit", "commits", "bytes", "tables",
      "name", "rows", "kept", "problems" } }))
  else
    summary(report, args.store)
    for _, kept in ipairs(report.kept) do summary(kept, "kept as " .. kept.name) end
    for _, problem in ipairs(report.problems) do print((problem:gsub("%s*\n%s*", " "))) end
    print(bad and ("%d problems"):format(#report.problems) or "all is well")
  end
  return bad and 1 or 0
end

return verify

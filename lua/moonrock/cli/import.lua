-- moonrock import: files that export wrote, into a store.
local json = require "moonrock.json"
local options = require "moonrock.cli.options"
local output = require "moonrock.cli.output"

local import = {}

function import.declare(p)
  p:description("Makes a store of a full export in the binary format, and applies deltas to it, in "
    .. "order. Or adds rows (tsv, npy, a binary export of some rows) to the tables of a store.")
  options.declare(p, { "store" })
  p:argument("files", "Files that export wrote; - is standard input, as tsv."):argname "FILE":args "+"
  p:option("--format", "tsv or npy, where the ending of FILE does not tell."):argname "FORMAT"
    :convert(options.one_of { "tsv", "npy" })
  options.declare(p, { "trust", "json" })
end

function import.run(args)
  local told = require("moonrock.export").import(args.store, args.files, { format = args.format,
    trust = args.trust })
  local Store = require "moonrock.store"
  local store = Store.open(args.store, "read")
  local commit = store:info().commit
  store:close()
  if args.json then
    print(json.encode({ event = "import", files = told.files, rows = told.rows, commit = commit.number,
      step = commit.step }, { keyorder = { "event", "files", "rows", "commit", "step" } }))
  else
    print(("%s: commit %d, step %d%s"):format(args.store, commit.number, commit.step,
      told.rows and (": %s rows added"):format(output.grouped(told.rows)) or ""))
  end
end

return import

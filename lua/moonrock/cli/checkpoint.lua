-- moonrock checkpoint: a copy of a store, also while another process trains it.
local options = require "moonrock.cli.options"
local output = require "moonrock.cli.output"
local Store = require "moonrock.store"

local checkpoint = {}

function checkpoint.declare(p)
  p:description("Copies a store as its last commit left it, by hard links where it can: in a moment, and "
    .. "without room on the disk until the two differ. The copy is a store of its own. Works while "
    .. "another process trains.")
  options.declare(p, { "store" })
  p:option("--out", "Directory of the copy; it must not exist."):argname "DIR":count(1)
  options.declare(p, { "json" })
end

function checkpoint.run(args)
  local store = Store.open(args.store, "read")
  local ok, problem = pcall(store.copy, store, args.out)
  store:close()
  if not ok then error(problem, 0) end
  local copy = Store.open(args.out, "read")
  local commit = copy:info().commit
  copy:close()
  if args.json then
    output.event { event = "checkpoint", store = args.out, commit = commit.number, step = commit.step }
  else
    print(("%s  commit %s  step %s"):format(args.out, output.grouped(commit.number),
      output.grouped(commit.step)))
  end
end

return checkpoint

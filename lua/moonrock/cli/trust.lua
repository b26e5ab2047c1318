-- moonrock trust: the code of a store may run from now on.
local options = require "moonrock.cli.options"
local output = require "moonrock.cli.output"
local export = require "moonrock.export"
local Store = require "moonrock.store"
local trust = require "moonrock.trust"

local command = {}

function command.declare(p)
  p:description("Trusts the code of a store that was made by another user or on another machine, and of "
    .. "all its copies, from now on; see it first with `moonrock show --store DIR --source`. Nothing is "
    .. "written to the store: a hash of its code is noted in the configuration directory.")
  p:argument("store", "Directory of the store."):argname "DIR"
  options.declare(p, { "json" })
end

function command.run(args)
  local store = Store.open(args.store, "read")
  local ok, kept = pcall(export.description, store)
  store:close()
  if not ok then error(kept, 0) end
  local path = trust.remember(kept, args.store)
  if args.json then
    output.event { event = "trust", store = args.store, hash = trust.hash(kept), list = path }
  else
    print(("%s: its code, %s, is trusted from now on (%s)"):format(args.store, trust.hash(kept):sub(1, 16),
      path))
  end
end

return command

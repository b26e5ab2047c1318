-- moonrock show: the code that a store keeps, and whose it is. Runs none of it.
local options = require "moonrock.cli.options"
local output = require "moonrock.cli.output"
local export = require "moonrock.export"
local source = require "moonrock.source"
local Store = require "moonrock.store"
local trust = require "moonrock.trust"

local command = {}

function command.declare(p)
  p:description("Shows which code a store keeps and whose it is, and with --source the code itself. "
    .. "Runs none of it.")
  options.declare(p, { "store" })
  p:flag("--source", "The code, with characters that a terminal would hide or obey written as \\xNN.")
  options.declare(p, { "json" })
end

local function escaped(byte) return ("\\x%02x"):format(byte:byte()) end
local function escape_all(text) return (text:gsub(".", escaped)) end

-- Controls, and what turns the direction of text or has no width.
local function visible(text)
  text = text:gsub("[%z\1-\8\11-\31\127]", escaped):gsub("\194[\128-\159]", escape_all)
  return (text:gsub("\226\128[\139-\143\168-\174]", escape_all):gsub("\226\129[\160-\175]", escape_all)
    :gsub("\239\187\191", escape_all))
end

local function codes(kept)
  local list = {}
  local function add(what, name, text)
    if type(text) == "string" then list[#list + 1] = { what = what, name = tostring(name), text = text } end
  end
  add("model", kept.module or kept.name, kept.source)
  local names = {}
  for name in pairs(kept.modules or {}) do names[#names + 1] = name end
  table.sort(names)
  for _, name in ipairs(names) do add("module", name, kept.modules[name]) end
  local s = kept.schema
  local what = s and s.compiled and "schema (kept as data; this source is not run)" or "schema"
  if s then add(what, s.module or s.name, s.source) end
  return list
end

function command.run(args)
  local store = Store.open(args.store, "read")
  local ok, kept = pcall(export.description, store)
  local signature = ok and store:get "signature"
  store:close()
  if not ok then error(kept, 0) end
  local whose = source.shipped_text(kept.name) == kept.source and "shipped" or trust.known(kept, signature)
    or "unknown"
  local list = codes(kept)
  if args.json then
    local told = {}
    for i, c in ipairs(list) do
      told[i] = { what = c.what, name = c.name, bytes = #c.text, source = args.source and c.text or nil }
    end
    output.event { event = "show", store = args.store, model = kept.name, trust = whose,
      hash = trust.hash(kept), code = told }
    return
  end
  local SAY = { shipped = "the model ships with this program", own = "its code is signed as yours",
    trusted = "its code is trusted (moonrock trust)", unknown = "its code is not known to be yours" }
  print(visible(("%s: model %s; %s"):format(args.store, tostring(kept.name), SAY[whose])))
  for _, c in ipairs(list) do
    local _, lines = c.text:gsub("\n", "")
    print(visible(("  %s %s: %d lines, %d bytes"):format(c.what, c.name, lines, #c.text)))
  end
  if not args.source then return end
  for _, c in ipairs(list) do
    print(visible(("\n---- %s %s ----"):format(c.what, c.name)))
    print(visible(c.text))
  end
end

return command

-- moonrock info: what a store holds.
local json = require "dkjson"
local options = require "moonrock.cli.options"

local info = {}

function info.declare(p)
  p:description("Shows what a store holds: the model and its options, tables, position in the data, "
    .. "commits, and the digest of all state. Works while another process trains.")
  options.declare(p, { "store", "memory", "json" })
end

local ORDER = { "model", "schema", "seed", "options", "step", "epoch", "samples", "position", "commit",
  "table_rows", "tables", "params", "name", "rows", "columns", "shape", "digest" }

-- "name: value" lines; tables indent.
local function show(name, value, indent)
  if type(value) ~= "table" then
    print(("%s%-12s %s"):format(indent, name, type(value) == "number" and ("%.14g"):format(value)
      or tostring(value)))
  elseif #value > 0 and type(value[1]) ~= "table" then
    print(("%s%-12s %s"):format(indent, name, table.concat(value, " x ")))
  elseif next(value) == nil then
    print(("%s%-12s -"):format(indent, name))
  else
    print(indent .. name)
    local done = {}
    for i, item in ipairs(value) do
      done[i] = true
      if item.name then
        local words = {}
        for _, key in ipairs { "rows", "columns", "shape" } do
          local x = item[key]
          if type(x) == "table" then x = table.concat(x, "x") end
          if x then words[#words + 1] = key .. " " .. tostring(x) end
        end
        print(("%s  %-10s %s"):format(indent, item.name, table.concat(words, "  ")))
      else
        show(tostring(i), item, indent .. "  ")
      end
    end
    local names = {}
    for key in pairs(value) do
      if not done[key] then names[#names + 1] = key end
    end
    table.sort(names)
    for _, key in ipairs(names) do show(key, value[key], indent .. "  ") end
  end
end

function info.run(args)
  local model = require("moonrock").reopen(args.store, { cold = true, memory = args.memory })
  local told = model:info()
  model:close()
  if args.json then
    print(json.encode(told, { keyorder = ORDER }))
    return
  end
  local done = {}
  local function once(name)
    if told[name] ~= nil and not done[name] then
      done[name] = true
      show(name, told[name], "")
    end
  end
  for _, name in ipairs(ORDER) do once(name) end
  local rest = {}
  for name in pairs(told) do rest[#rest + 1] = name end
  table.sort(rest)
  for _, name in ipairs(rest) do once(name) end
end

return info

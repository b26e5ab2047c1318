-- moonrock info: what a store holds.
local ffi = require "ffi"
local json = require "moonrock.json"
local C = require "moonrock.ffi"
local options = require "moonrock.cli.options"
local output = require "moonrock.cli.output"
local Store = require "moonrock.store"

local info = {}

function info.declare(p)
  p:description("Shows what a store holds: the model and its options, tables, position in the data, "
    .. "commits, and the digest of all state. Works while another process trains.")
  options.declare(p, { "store", "memory", "json" })
end

local ORDER = { "model", "schema", "seed", "options", "step", "epoch", "samples", "position", "commit",
  "table_rows", "tables", "params", "name", "rows", "columns", "shape", "bytes", "files", "disk", "kept",
  "digest" }

local HIDDEN = { bytes = true, files = true, disk = true, database = true, memory = true } -- said otherwise
local WIDTH = 79

-- States kept by name, the latest of each: { name =, step =, time = }.
local function kept_states(dir)
  local latest, names = {}, {}
  for i = 0, math.huge do
    local path = C.mr_store_kept(dir, i)
    if path == nil then break end
    path = ffi.string(path)
    local name, number = path:match "([^/]+)%.(%d+)$"
    if name then
      if not latest[name] then names[#names + 1] = name end
      if not latest[name] or tonumber(number) > latest[name].number then
        latest[name] = { number = tonumber(number), path = path }
      end
    end
  end
  for i, name in ipairs(names) do
    local store = Store.open(latest[name].path, "read")
    local commit = store:info().commit
    store:close()
    names[i] = { name = name, step = commit.step, time = commit.time }
  end
  return names
end

local function date(seconds) return os.date("%Y-%m-%d %H:%M:%S", math.floor(seconds)) end

local function scalar(name, value)
  if type(value) ~= "number" then return tostring(value) end
  if name == "time" then return date(value) end
  return (value % 1 == 0 and math.abs(value) < 2 ^ 63 and "%.0f" or "%.14g"):format(value)
end

-- Prints a name and its text, whose further lines stand below the first.
local function line(indent, name, text)
  local head = ("%s%-12s "):format(indent, name)
  local at, words = head, 0
  for word in text:gmatch "%S+" do
    if words > 0 and #at + 1 + #word > WIDTH then
      print(at)
      at, words = (" "):rep(#head), 0
    end
    at, words = words > 0 and at .. " " .. word or at .. word, words + 1
  end
  print(at)
end

-- What lists of things with names hold, a line each.
local ITEM = {
  tables = function(t) return ("%s rows: %s"):format(output.grouped(t.rows), t.columns) end,
  params = function(p) return "shape " .. table.concat(p.shape, "x") end,
  kept = function(k) return ("step %.0f, %s"):format(k.step, date(k.time)) end,
}

-- "name value" lines; what tables hold is indented.
local function show(name, value, indent)
  if type(value) ~= "table" then return line(indent, name, scalar(name, value)) end
  if next(value) == nil then return line(indent, name, "-") end
  if #value > 0 and type(value[1]) ~= "table" then
    local words = {}
    for i, x in ipairs(value) do words[i] = scalar(nil, x) end
    return line(indent, name, table.concat(words, " x "))
  end
  print(indent .. name)
  for i, item in ipairs(value) do
    if item.name and ITEM[name] then line(indent .. "  ", item.name, ITEM[name](item))
    else show(tostring(i), item, indent .. "  ") end
  end
  local names = {}
  for key in pairs(value) do
    if type(key) == "string" then names[#names + 1] = key end
  end
  table.sort(names)
  for _, key in ipairs(names) do show(key, value[key], indent .. "  ") end
end

local function print_all(told)
  local done = {}
  local function once(name)
    if told[name] == nil or done[name] or HIDDEN[name] then return end
    done[name] = true
    show(name, told[name], "")
  end
  for _, name in ipairs(ORDER) do once(name) end
  line("", "size", ("%s bytes in %s files; the directory takes %s bytes on disk"):format(
    output.grouped(told.bytes), output.grouped(told.files), output.grouped(told.disk)))
  local rest = {}
  for name in pairs(told) do rest[#rest + 1] = name end
  table.sort(rest)
  for _, name in ipairs(rest) do once(name) end
end

function info.run(args)
  local model = require "moonrock.bare"(args.store, { cold = true, memory = args.memory })
  local told = model:info()
  model:close()
  told.kept = kept_states(args.store)
  if args.json then
    print(json.encode(told, { keyorder = ORDER }))
  else
    print_all(told)
  end
end

return info

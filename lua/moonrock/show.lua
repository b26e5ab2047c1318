--- Values as text for people: what `print` and the prompt show of tensors, tables, batches and models.
local show = {}

local ROWS, COLUMNS = 6, 7 -- of an array that are shown
local ENTRIES, DEPTH = 40, 3 -- of a Lua table

--- Numbers of a shape, its last axis along a line: the first of them, each line after "\n  ".
---@param at fun(i: integer): number in row-major order, from 0
---@param shape integer[]
---@return string
function show.array(at, shape)
  local width, rows = shape[#shape], 1
  for i = 1, #shape - 1 do rows = rows * shape[i] end
  local lines = { "" }
  for r = 0, math.min(rows, ROWS) - 1 do
    local words = {}
    for c = 0, math.min(width, COLUMNS) - 1 do words[c + 1] = ("%9.4g"):format(at(r * width + c)) end
    if width > COLUMNS then words[#words + 1] = "..." end
    lines[#lines + 1] = table.concat(words, " ")
  end
  if rows > ROWS then lines[#lines + 1] = ("... and %d lines more"):format(rows - ROWS) end
  return table.concat(lines, "\n  ")
end

--- "[2, 3]".
---@param shape integer[]
---@return string
function show.shape(shape) return "[" .. table.concat(shape, ", ") .. "]" end

local function scalar(value) return type(value) == "string" and ("%q"):format(value) or tostring(value) end

local function shown(value)
  local meta = type(value) == "table" and getmetatable(value)
  return type(value) ~= "table" or type(meta) == "table" and meta.__tostring
end

local function key_before(a, b)
  if type(a) == type(b) and (type(a) == "number" or type(a) == "string") then return a < b end
  return type(a) == "number" or type(a) ~= type(b) and tostring(a) < tostring(b)
end

local function contents(t, indent, depth)
  local keys = {}
  for key in pairs(t) do keys[#keys + 1] = key end
  if #keys == 0 then return "{}" end
  if depth == 0 then return ("{ %d entries }"):format(#keys) end
  table.sort(keys, key_before)
  local words, length, simple = {}, 0, true
  for i = 1, math.min(#keys, ENTRIES) do
    local key, value = keys[i], t[keys[i]]
    local text
    if shown(value) then
      text = type(value) == "table" and tostring(value):gsub("\n", "\n" .. indent .. "  ") or scalar(value)
    else
      text = contents(value, indent .. "  ", depth - 1)
    end
    local name = key ~= i and (type(key) == "string" and key or "[" .. tostring(key) .. "]")
    words[i] = (name and name .. " = " or "") .. text
    length = length + #words[i] + 2
    simple = simple and not text:find "\n"
  end
  if #keys > ENTRIES then words[#words + 1] = ("... and %d more"):format(#keys - ENTRIES) end
  if simple and #indent + length < 76 then return "{ " .. table.concat(words, ", ") .. " }" end
  local line = "\n" .. indent .. "  "
  return "{" .. line .. table.concat(words, "," .. line) .. "\n" .. indent .. "}"
end

--- Any value: text as it is, tables with what is in them.
---@param value any
---@return string
function show.value(value)
  if shown(value) then return tostring(value) end
  return contents(value, "", DEPTH)
end

return show

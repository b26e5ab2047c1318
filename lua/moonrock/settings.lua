--- Kinds of options, for models and layers: what a value must be, and what stands for it. In Lua 0 and every
--- text are true: an option that is asked for as true or false must be one of the two.
local err = require "moonrock.error"

local settings = {}

local BOOLEAN = { [0] = false, [1] = true, ["0"] = false, ["1"] = true }
for word in ("false no off"):gmatch "%a+" do BOOLEAN[word] = false end
for word in ("true yes on"):gmatch "%a+" do BOOLEAN[word] = true end

--- True and false by their words, also in capitals; nil for anything else.
---@param value any
---@return boolean|nil
function settings.boolean(value)
  if type(value) == "boolean" then return value end
  return BOOLEAN[type(value) == "string" and value:lower() or value]
end

local function count(value)
  return type(value) == "number" and value >= 1 and value < 2 ^ 53 and value % 1 == 0 and value or nil
end

-- Whole numbers from 1; a number stands for a list of one.
local function counts(value)
  if type(value) == "number" then value = { value } end
  if type(value) ~= "table" then return nil end
  local n = 0
  for key, item in pairs(value) do
    n = n + 1
    if not count(key) or not count(item) then return nil end
  end
  return n == #value and n > 0 and value or nil
end

local function number(low, high, open)
  return function(value)
    if value == false then return false end -- none
    local above = type(value) == "number" and (open and value > low or not open and value >= low)
    return above and value < high and value or nil
  end
end

-- By name: what takes a value, nil if it is none; and what is expected.
local KINDS = {
  boolean = { settings.boolean, "true or false" },
  count = { count, "a whole number from 1" },
  counts = { counts, "whole numbers from 1, as 64,32 or 64" },
  ["counts or none"] = { function(value)
    if settings.boolean(value) == false or type(value) == "table" and next(value) == nil then return {} end
    return counts(value)
  end, "whole numbers from 1, as 64,32 or 64, or none" },
  number = { number(-math.huge, math.huge, true), "a number" },
  positive = { number(0, math.huge, true), "a number above 0" },
  ["from 0"] = { number(0, math.huge), "a number from 0" },
  rate = { number(0, 1), "a number from 0 to below 1" },
  text = { function(value) return type(value) == "string" and value ~= "" and value or nil end, "a text" },
  optimizer = { function(value)
    return (type(value) == "table" or type(value) == "string") and value or nil
  end, "an optimizer, such as adam" },
}

--- Whether a kind is that of an optimizer, or an optimizer, the one that is used when none is given.
function settings.is_optimizer(kind)
  return kind == "optimizer" or type(kind) == "table" and kind.rule ~= nil
end

--- What a value of a kind stands for: itself in most cases.
---@param value any not nil
---@param kind string|table boolean, count, counts, "counts or none", number, positive, "from 0", rate, text,
--- optimizer; a list of words; or an optimizer, the one that is used when none is given
---@return any nil: it is none
---@return string|nil expected
function settings.take(value, kind)
  if settings.is_optimizer(kind) then kind = "optimizer" end
  if type(kind) == "table" then
    for _, word in ipairs(kind) do
      if value == word then return value end
    end
    return nil, table.concat(kind, ", ", 1, #kind - 1) .. " or " .. kind[#kind]
  end
  local known = KINDS[kind] or err.raise("options: kind %s is unknown", err.show(kind))
  local taken = known[1](value)
  if taken == nil then return nil, known[2] end
  return taken
end

--- A value in a message: lists as they are written.
function settings.show(value)
  if type(value) ~= "table" then return err.show(value) end
  if #value == 0 then return next(value) == nil and "{}" or "a table" end
  local words = {}
  for i, item in ipairs(value) do words[i] = err.show(item) end
  return "{ " .. table.concat(words, ", ") .. " }"
end

--- The same, or an error that names the subject and the option.
---@param subject string
---@param name string
function settings.check(subject, name, value, kind)
  local taken, expected = settings.take(value, kind)
  if taken == nil then
    err.raise("%s: %s is %s, expected %s", subject, name, settings.show(value), expected)
  end
  return taken
end

--- Names of a model's own options, in order.
---@param definition table
---@param opt table
---@return string[]
function settings.names(definition, opt)
  local names = {}
  for name in pairs(settings.of(definition, opt)) do
    if not settings.common[name] then names[#names + 1] = name end
  end
  table.sort(names)
  return names
end

-- Options of every model, which the runtime asks for.
settings.common = { lr = "positive", optim = "optimizer", dense_optim = "optimizer", max_rows = "count",
  precision = { "float32", "bf16" }, clip_norm = "positive", clip_each = "positive", clip_value = "positive" }

--- The kinds of a model's options, those that all models have among them.
---@param definition table
---@param opt table what it was given
---@return table<string, any>
function settings.of(definition, opt)
  local own, kinds = definition.settings.options or {}, {}
  if type(own) == "function" then own = own(opt) end
  for name, kind in pairs(settings.common) do kinds[name] = kind end
  for name, kind in pairs(own) do kinds[name] = kind end
  return kinds
end

return settings

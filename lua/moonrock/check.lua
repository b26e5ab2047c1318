--- What layers ask of their options and inputs: errors that name the layer, what it expected and what it
-- got.
local ffi = require "ffi"
local C = require "moonrock.ffi"
local err = require "moonrock.error"
local settings = require "moonrock.settings"
local tape = require "moonrock.tape"

local check = {}

--- How errors call a layer: `linear "deep.1"`.
---@param kind string
---@param m table the model
---@param name string
---@return string
function check.layer(kind, m, name)
  if type(m) ~= "table" or type(m.param) ~= "function" or type(name) ~= "string" then
    err.raise("%s: expected the model and a name, got a %s and %s", kind, type(m), err.show(name))
  end
  return ("%s %q"):format(kind, name)
end

--- Refuses options that are not among the names, and values that are not of their kind.
---@param subject string the layer, as `mlp "deep"`
---@param options table
---@param names table<string, boolean|string> true, or a kind; see moonrock.settings
function check.options(subject, options, names)
  for name, value in pairs(options) do
    local kind = names[name]
    if not kind then err.raise("%s has no option %q", subject, tostring(name)) end
    if kind ~= true and settings.check(subject, name, value, kind) ~= value then
      err.raise("%s: %s is %s, expected %s", subject, name, settings.show(value),
        kind == "boolean" and "true or false" or kind)
    end
  end
end

--- Widths of layers; a number stands for one.
---@param widths integer|integer[]
function check.widths(widths) return type(widths) == "number" and { widths } or widths end

--- A whole number from 1.
---@param subject string
---@param what string
---@param n any
function check.width(subject, what, n)
  if type(n) ~= "number" or n < 1 or n % 1 ~= 0 then
    err.raise("%s: %s is %s, expected a whole number from 1", subject, what, err.show(n))
  end
end

--- A key: cdata as it is; a number, if it is a whole one from 0 below 2^53.
---@param subject string
---@param key any
function check.key(subject, key)
  if type(key) == "cdata" then
    local number = tonumber(key)
    if not number or ffi.istype("int64_t", key) and key < 0 then
      err.raise("%s: %s is no key; expected a whole number from 0, or one of 64 bits with ULL",
        subject, tostring(key))
    end
  elseif type(key) ~= "number" then
    err.raise("%s: %s is no key; expected a whole number from 0", subject, err.show(key))
  elseif not (key >= 0 and key < 2 ^ 53 and key % 1 == 0) then
    err.raise("%s: %s is no exact key; write %s", subject, tostring(key),
      key >= 2 ^ 53 and "9999999999999999ULL" or "a whole number from 0, or one of 64 bits with ULL")
  end
end

local function text(t, id)
  local dims = {}
  for axis = 1, C.mr_tape_rank(t.c, id) do dims[axis] = C.mr_tape_dim(t.c, id, axis - 1) end
  return "[" .. table.concat(dims, ", ") .. "]"
end

--- A tensor of so many dimensions; the last one, and the one before it, are known or nil.
---@param subject string
---@param expected string the shape, as "[n, fields, 16]"
---@param x Tensor
---@param rank integer
---@param last? integer
---@param before? integer
function check.shape(subject, expected, x, rank, last, before)
  local t = tape.of(x)
  local id = tape.node(t, x, subject)
  if C.mr_tape_rank(t.c, id) ~= rank or last and C.mr_tape_dim(t.c, id, rank - 1) ~= last
    or before and C.mr_tape_dim(t.c, id, rank - 2) ~= before then
    err.raise("%s: expected %s, got %s", subject, expected, text(t, id))
  end
end

return check

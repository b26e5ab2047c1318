--- Clipping of gradients (runtime/optim/clip.c), before the optimizers see them: of the loss's gradients,
-- summed by row; what an optimizer's l2 adds comes after. With admission, only columns that are trained
-- count.
--
--     clip_value = c    every coordinate: g = max(-c, min(c, g))
--     clip_each  = c    every table and every param by itself: g *= min(1, c / (||g|| + 1e-6))
--     clip_norm  = c    all of them together, by the same formula, which is PyTorch's clip_grad_norm_
--
-- in this order. ||g|| is over all rows that the step updates, each once, and the dense weights; it is summed
-- in double in an order that depends on the data alone. `clip_each` of a table's or a param's own options
-- goes before the model's.
local C = require "moonrock.ffi"
local err = require "moonrock.error"

local clip = {}

clip.names = { "clip_value", "clip_each", "clip_norm" }

--- A bound that may be nil.
---@param subject string
---@param name string
---@param value any
function clip.check(subject, name, value)
  if value ~= nil and not (type(value) == "number" and value > 0) then
    err.raise("%s: %s is %s, expected a number above 0", subject, name, tostring(value))
  end
  return value
end

--- The bounds among options, as a table, or nil if there are none.
---@param subject string
---@param options table
---@return table|nil
function clip.of(subject, options)
  local bounds
  for _, name in ipairs(clip.names) do
    if clip.check(subject, name, options[name]) then
      bounds = bounds or {}
      bounds[name] = options[name]
    end
  end
  return bounds
end

local function factor(bound, squares) return math.min(1, bound / (math.sqrt(squares) + 1e-6)) end

-- Of one table or param: the sum of squares after its own clipping; squares_of and scale are C's.
local function part(c, own, bounds, squares_of, scale)
  local squares = squares_of(c, bounds and bounds.clip_value or 0)
  if squares < 0 then return squares end
  local bound = own or bounds and bounds.clip_each
  if not bound then return squares end
  local by = factor(bound, squares)
  if by < 1 then scale(c, by) end
  return squares * by * by
end

local function table_squares(c, value) return C.mr_table_squares(c, value) end
local function table_scale(c, by) C.mr_table_scale(c, by) end
local function param_squares(c, value) return C.mr_param_squares(c, value) end
local function param_scale(c, by) C.mr_param_scale(c, by) end

--- Clips what the model's backward passes left for its next step.
---@param model table
---@return boolean ok false after an error in C: a gradient is not finite
function clip.apply(model)
  local bounds, total = model.clip, 0
  for i = 1, #model.tables do
    local t = model.tables[i]
    if bounds or t.clip_each then
      local squares = part(t.c, t.clip_each, bounds, table_squares, table_scale)
      if squares < 0 then return false end
      total = total + squares
    end
  end
  for i = 1, #model.params do
    local p = model.params[i]
    if bounds or p.clip_each then
      local squares = part(p.c, p.clip_each, bounds, param_squares, param_scale)
      if squares < 0 then return false end
      total = total + squares
    end
  end
  if not bounds or not bounds.clip_norm then return true end
  local by = factor(bounds.clip_norm, total)
  if by >= 1 then return true end
  for i = 1, #model.tables do C.mr_table_scale(model.tables[i].c, by) end
  for i = 1, #model.params do C.mr_param_scale(model.params[i].c, by) end
  return true
end

return clip

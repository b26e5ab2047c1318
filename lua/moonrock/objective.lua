--- The loss of a model by its name: what `mr.fit` and `mr.learn` go down, and how its scores are read.
local C = require "moonrock.ffi"
local err = require "moonrock.error"
local losses = require "moonrock.losses"

local objective = {}

-- Losses of one score and one label a sample, and what a score is: the logit of a probability, a
-- value, or the logarithm of one.
local LINK = { bce = C.MR_LOGIT, hinge = C.MR_LOGIT, mse = C.MR_IDENTITY, mae = C.MR_IDENTITY,
  huber = C.MR_IDENTITY, quantile = C.MR_IDENTITY, poisson = C.MR_LOG }

--- Their names.
objective.names = { "bce", "hinge", "mse", "mae", "huber", "quantile", "poisson" }

local NAMES = table.concat(objective.names, ", "):gsub(", (%w+)$", " or %1")

--- How scores under a loss are read (mr_link).
---@param subject string
---@param loss string
---@return integer
function objective.link(subject, loss)
  return LINK[loss] or err.raise("%s: loss is %q, expected %s", subject, tostring(loss), NAMES)
end

---@class Objective
---@field name string
---@field link integer mr_link
---@field options? table of the loss
---@field of fun(score: Tensor, label: table): Tensor

--- From a name, or a name and options: "huber", or { name = "huber", delta = 2 }.
---@param subject string
---@param loss string|table
---@return Objective
function objective.new(subject, loss)
  local name, options = loss, nil
  if type(loss) == "table" then
    name, options = loss.name, {}
    for key, value in pairs(loss) do
      if key ~= "name" then options[key] = value end
    end
  end
  local link, of = objective.link(subject, name), losses[name]
  return { name = name, link = link, options = options,
    of = function(score, label) return of(score, label, options) end }
end

return objective

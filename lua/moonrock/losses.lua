--- Losses: a mean over the n samples of a batch, [1] (runtime/op_loss.c).
local C = require "moonrock.ffi"
local err = require "moonrock.error"
local tape = require "moonrock.tape"

local losses = {}

---@class LossOptions
---@field weight? Tensor|table|false sample weights [n]; by default the batch's, if it has any

local function weight_of(subject, label, options)
  if options then
    for name in pairs(options) do
      if name ~= "weight" then err.raise("%s has no option %q", subject, tostring(name)) end
    end
    if options.weight == false then return nil end
    if options.weight then return options.weight end
  end
  if type(label) == "table" and label.batch and label.batch.c.weight ~= nil then
    return label.batch.weight
  end
end

local function loss(name, record, score, label, options)
  local t = tape.of(score, label)
  local weight = weight_of(name, label, options)
  return tape.handle(t, record(t.c, tape.node(t, score, name), tape.node(t, label, name),
    weight and tape.node(t, weight, name) or -1))
end

local function bce(c, score, label, weight) return C.mr_tape_bce(c, score, label, weight) end
local function mse(c, score, label, weight) return C.mr_tape_mse(c, score, label, weight) end

--- Binary cross-entropy of logits: the mean over n of w_s (max(z, 0) - z y + ln(1 + exp(-|z|))),
--- for labels y from 0 to 1.
---@param logits Tensor [n, 1] or [n]
---@param label table|Tensor batch.label, or [n]
---@param options? LossOptions
---@return Tensor
function losses.bce(logits, label, options) return loss("bce", bce, logits, label, options) end

--- Squared error: the mean over n of w_s (a - y)^2.
---@param score Tensor [n, 1] or [n]
---@param label table|Tensor batch.label, or [n]
---@param options? LossOptions
---@return Tensor
function losses.mse(score, label, options) return loss("mse", mse, score, label, options) end

return losses

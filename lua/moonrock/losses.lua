--- Losses: a mean over the n samples of a batch, [1] (runtime/tensor/op_loss.c, op_cross_entropy.c,
-- op_ranking.c, op_in_batch.c). They are tensors: `mr.bce(a, y) + 0.3 * mr.mse(b, y)` is one, too.
--
-- Sample weights w multiply the loss of a sample, and the mean divides by n, not by their sum.
-- Labels are batch.label, or a tensor.
local C = require "moonrock.ffi"
local check = require "moonrock.check"
local err = require "moonrock.error"
local tape = require "moonrock.tape"

local losses = {}

---@class LossOptions
---@field weight? Tensor|table|false sample weights [n]; by default the batch's, if it has any

-- The option `name`, a number within [low, high] (above low, if it is open), or its default.
local function number(subject, options, name, default, low, high, open)
  local x = options and options[name]
  if x == nil then return default end
  if type(x) ~= "number" or not (open and x > low or not open and x >= low) or x > high then
    local bound = high < math.huge and (" and at most %g"):format(high) or ""
    err.raise("%s: %s is %s, expected a number %s %g%s", subject, name, tostring(x),
      open and "above" or "of at least", low, bound)
  end
  return x
end

local checked = setmetatable({}, { __mode = "k" }) -- tables of options that are used again each step

local function known(subject, options, names)
  if options == nil or checked[options] == names then return end
  if type(options) ~= "table" then
    err.raise("%s: expected a table of options, got a %s", subject, type(options))
  end
  for name in pairs(options) do
    if name ~= "weight" and not names[name] then
      err.raise("%s has no option %q", subject, tostring(name))
    end
  end
  checked[options] = names
end

-- The weights as a node; those of the batch that `label` belongs to, if there are no others.
local function weight_of(t, subject, label, options)
  local weight = options and options.weight
  if weight == nil and type(label) == "table" and label.batch and label.batch.c.weight ~= nil then
    weight = label.batch.weight
  end
  return weight and tape.node(t, weight, subject) or -1
end

local function optional(t, x, subject) return x and tape.node(t, x, subject) or -1 end

local function loss(name, kind, score, label, options, a, b)
  local t = tape.of(score, label)
  return tape.handle(t, C.mr_tape_loss(t.c, kind, tape.node(t, score, name),
    tape.node(t, label, name), weight_of(t, name, label, options), a or 0, b or 0))
end

local NONE = {}
local BCE = { pos_weight = true, label_smoothing = true }
local HUBER, QUANTILE = { delta = true }, { q = true }

--- Binary cross-entropy of logits: the mean over n of w_s (p y softplus(-z) + (1 - y) softplus(z)),
--- softplus(x) = max(x, 0) + ln(1 + exp(-|x|)), for labels y from 0 to 1. Options: pos_weight p (1);
--- label_smoothing e (0), which first moves y to (1 - e) y + e / 2 (Szegedy et al., CVPR 2016).
---@param logits Tensor [n, 1] or [n]
---@param label table|Tensor batch.label, or [n]
---@param options? LossOptions
---@return Tensor
function losses.bce(logits, label, options)
  known("bce", options, BCE)
  return loss("bce", C.MR_BCE, logits, label, options,
    number("bce", options, "pos_weight", 1, 0, math.huge, true),
    number("bce", options, "label_smoothing", 0, 0, 1))
end

--- Squared error: the mean over n of w_s (a - y)^2.
---@param score Tensor [n, 1] or [n]
---@param label table|Tensor batch.label, or [n]
---@param options? LossOptions
---@return Tensor
function losses.mse(score, label, options)
  known("mse", options, NONE)
  return loss("mse", C.MR_MSE, score, label, options)
end

--- Absolute error: the mean over n of w_s |a - y|. At a = y its gradient is 0.
---@param score Tensor [n, 1] or [n]
---@param label table|Tensor batch.label, or [n]
---@param options? LossOptions
---@return Tensor
function losses.mae(score, label, options)
  known("mae", options, NONE)
  return loss("mae", C.MR_MAE, score, label, options)
end

--- Squared near the label and linear beyond `delta` (1): with r = a - y the mean over n of w_s r^2 / 2
--- where |r| <= delta, else w_s delta (|r| - delta / 2). Huber, 1964.
---@param score Tensor [n, 1] or [n]
---@param label table|Tensor batch.label, or [n]
---@param options? LossOptions
---@return Tensor
function losses.huber(score, label, options)
  known("huber", options, HUBER)
  return loss("huber", C.MR_HUBER, score, label, options,
    number("huber", options, "delta", 1, 0, math.huge, true))
end

--- The hinge of a margin: the mean over n of w_s max(0, 1 - t a), t = 1 for a positive and -1 for a
--- negative. Labels are 0 or 1, or -1 or 1. Cortes and Vapnik, 1995.
---@param score Tensor [n, 1] or [n]
---@param label table|Tensor batch.label, or [n]
---@param options? LossOptions
---@return Tensor
function losses.hinge(score, label, options)
  known("hinge", options, NONE)
  return loss("hinge", C.MR_HINGE, score, label, options)
end

--- Counts y >= 0 of mean exp(a): the mean over n of w_s (exp(a) - y a), which is -ln P(y) but for the
--- ln y! that no weight changes.
---@param score Tensor [n, 1] or [n], the logarithm of the mean
---@param label table|Tensor batch.label, or [n]
---@param options? LossOptions
---@return Tensor
function losses.poisson(score, label, options)
  known("poisson", options, NONE)
  return loss("poisson", C.MR_POISSON, score, label, options)
end

--- The quantile q (0.5) of y: the mean over n of w_s q (y - a) where a is below the label, else
--- w_s (1 - q) (a - y). Koenker and Bassett, Econometrica 1978.
---@param score Tensor [n, 1] or [n]
---@param label table|Tensor batch.label, or [n]
---@param options? LossOptions
---@return Tensor
function losses.quantile(score, label, options)
  known("quantile", options, QUANTILE)
  local q = number("quantile", options, "q", 0.5, 0, 1, true)
  if q == 1 then err.raise("quantile: q is 1, expected a number between 0 and 1") end
  return loss("quantile", C.MR_QUANTILE, score, label, options, q)
end

--- Bayesian personalized ranking: the mean over n of w_s softplus(-(p - q)), of the scores of a
--- positive and a negative each. Rendle et al., UAI 2009, without its regularisation. The scores are
--- of no batch's samples: weights are those that `weight` gives.
---@param positive Tensor [n, 1] or [n]
---@param negative Tensor [n, 1] or [n]
---@param options? LossOptions
---@return Tensor
function losses.bpr(positive, negative, options)
  known("bpr", options, NONE)
  return loss("bpr", C.MR_BPR, positive, negative, options)
end

local CROSS_ENTROPY = { label_smoothing = true }

--- Softmax cross-entropy: the mean over n of -w_s sum_j y_j ln softmax(z)_j. Labels are classes from
--- 0 to c - 1, or probabilities of each class; label_smoothing e (0) moves them to (1 - e) y + e / c.
---@param logits Tensor [n, c]
---@param label table|Tensor batch.label or [n]; or [n, c]
---@param options? LossOptions
---@return Tensor
function losses.cross_entropy(logits, label, options)
  known("cross_entropy", options, CROSS_ENTROPY)
  local t = tape.of(logits, label)
  return tape.handle(t, C.mr_tape_cross_entropy(t.c, tape.node(t, logits, "cross_entropy"),
    tape.node(t, label, "cross_entropy"), weight_of(t, "cross_entropy", label, options),
    number("cross_entropy", options, "label_smoothing", 0, 0, 1)))
end

---@class GroupOptions: LossOptions
---@field group? table|Tensor batch:keys(field), or numbers [n]; by default all are one group

local GROUP = { group = true }

local function ranking(name, record, score, label, options)
  known(name, options, GROUP)
  local t = tape.of(score, label)
  return tape.handle(t, record(t.c, tape.node(t, score, name), tape.node(t, label, name),
    optional(t, options and options.group, name), weight_of(t, name, label, options)))
end

local function pairwise(c, a, y, group, w) return C.mr_tape_pairwise(c, a, y, group, w) end
local function listwise(c, a, y, group, w) return C.mr_tape_listwise(c, a, y, group, w) end

--- Pairwise logistic loss: the mean of w_i w_j softplus(-(a_i - a_j)) over all pairs of a group with
--- y_i > y_j; 0 if there is none. RankNet: Burges et al., ICML 2005.
---@param score Tensor [n, 1] or [n]
---@param label table|Tensor batch.label, or [n]
---@param options? GroupOptions
---@return Tensor
function losses.pairwise(score, label, options)
  return ranking("pairwise", pairwise, score, label, options)
end

--- Listwise softmax: the mean over the groups with a label above 0 of -sum_i w_i y_i ln softmax(a)_i
--- / sum_i y_i, for labels from 0; 0 if there is none. ListNet: Cao et al., ICML 2007, whose labels
--- enter by exp(y) instead.
---@param score Tensor [n, 1] or [n]
---@param label table|Tensor batch.label, or [n]
---@param options? GroupOptions
---@return Tensor
function losses.listwise(score, label, options)
  return ranking("listwise", listwise, score, label, options)
end

---@class InBatchOptions: LossOptions
---@field label? table|Tensor [n], 0 to 1, a factor of each user's loss: samples of 0 are negatives
--- of the others only; by default all are 1
---@field log_q? Tensor [n], the logarithm of how likely a batch is to hold the item: mr.frequency
---@field id? table|Tensor batch:keys(field) or numbers [n]: where another sample has the same item
--- it is no negative. The batch's weights count if it or the label is of a batch
---@field temperature? number 1

local IN_BATCH = { label = true, log_q = true, id = true, temperature = true }

--- Softmax over the items of the batch, each user's own being the right one: with s_ij = <u_i, v_j> /
--- temperature - log_q_j, the mean over n of w_i y_i (ln sum_j exp(s_ij) - s_ii), over j = i and those
--- with another id. Yi et al., "Sampling-Bias-Corrected Neural Modeling for Large Corpus Item
--- Recommendations", RecSys 2019.
---@param user Tensor [n, d]
---@param item Tensor [n, d]
---@param options? InBatchOptions
---@return Tensor
function losses.in_batch_softmax(user, item, options)
  local name, o = "in_batch_softmax", options or NONE
  known(name, options, IN_BATCH)
  local t = tape.of(user, item)
  return tape.handle(t, C.mr_tape_in_batch(t.c, tape.node(t, user, name), tape.node(t, item, name),
    optional(t, o.label, name), weight_of(t, name, o.label or o.id, options),
    optional(t, o.log_q, name), optional(t, o.id, name),
    number(name, options, "temperature", 1, 0, math.huge, true)))
end

--- Each row of the last axis divided by its length: x / |x|; rows of 0 stay 0. With it the product of
--- two vectors is their cosine.
---@param x Tensor [..., d]
---@return Tensor
function losses.l2_normalize(x)
  local t = tape.of(x)
  return tape.handle(t, C.mr_tape_l2_normalize(t.c, tape.node(t, x, "l2_normalize")))
end

local FREQUENCY = { buckets = true, rate = true }

--- How often the key of a field occurs in training, as ln q, [n]: 1 / q is the mean number of batches
--- from one with the key to the next, by a moving mean of `rate` (0.05) a sighting. Keys share
--- `buckets` (65536) by their hash; the param NAME [2, buckets] holds them. Yi et al., RecSys 2019,
--- algorithm 2. Evaluation looks without learning.
---@param m table the model
---@param name string
---@param options? { buckets?: integer, rate?: number }
---@return fun(keys: table): Tensor of batch:keys(field)
function losses.frequency(m, name, options)
  local subject = check.layer("frequency", m, name)
  known(subject, options, FREQUENCY)
  local rate = number(subject, options, "rate", 0.05, 0, 1, true)
  local buckets = number(subject, options, "buckets", 65536, 1, 2 ^ 28)
  local seen = m:param(name, { 2, buckets }, { trainable = false })
  return function(keys)
    if type(keys) ~= "table" or keys.name ~= "keys" then
      err.raise("%s: expected batch:keys(field), got a %s", subject, type(keys))
    end
    local t = tape.of()
    return tape.handle(t, C.mr_tape_frequency(t.c, keys.batch.c, keys.field, seen.c, rate))
  end
end

return losses

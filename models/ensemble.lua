-- Deep ensemble: Lakshminarayanan, Pritzel and Blundell, "Simple and Scalable Predictive Uncertainty
-- Estimation using Deep Ensembles", NeurIPS 2017, section 2.4: models of one kind, each with rows, weights
-- and a loss of its own, so that they learn independently; the score is the mean of their logits.
-- Options: of, the kind ("deepfm"); members (3); all other options are the members'.
local mr = require "moonrock"

return mr.model("ensemble", function(m, opt)
  local kind, count = opt.of or "deepfm", opt.members or 3
  local definition, member, own_loss = mr.find(kind), {}, {}
  for i = 1, count do
    -- the model, with names of this member's own
    local own = setmetatable({
      table = function(_, name, ...) return m:table(("%s.%d"):format(name, i), ...) end,
      param = function(_, name, ...) return m:param(("%d.%s"):format(i, name), ...) end,
    }, { __index = m, __newindex = m })
    member[i], own_loss[i] = definition.build(own, opt)
  end
  local logits = {}

  return function(x)
    local sum
    for i = 1, count do
      logits[i] = member[i](x)
      sum = sum and sum + logits[i] or logits[i]
    end
    return sum / count
  end, function(_, x) -- the loss of the same batch
    local loss
    for i = 1, count do
      local of = own_loss[i] and own_loss[i](logits[i], x) or m.objective.of(logits[i], x.label)
      loss = loss and loss + of or of
    end
    return loss
  end
end, { optim = mr.optim.adagrad { lr = 0.03, init = 2e-4 }, options = function(opt)
  local kinds = { of = "text", members = "count" }
  local of = type(opt.of) == "string" and opt.of or "deepfm"
  for name, kind in pairs(mr.find(of).settings.options or {}) do kinds[name] = kind end
  return kinds
end })

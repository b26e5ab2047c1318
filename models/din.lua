-- Deep Interest Network: Zhou et al., "Deep Interest Network for Click-Through Rate Prediction", KDD 2018:
-- the field `history` (many entries, oldest first) is pooled by how its entries go with the one of the
-- field `target`, the others by their mean, in front of an MLP with Dice. Where an item has the same key in
-- both fields, as in libffm data, it has one vector.
-- Options: target and history, numbers of fields from 1 (1, and the last); length, of the history (50);
-- weights, "linear", "sigmoid" or "softmax" ("linear"); attention, widths of its layers ({ 36 }); dim, of the
-- vectors (16); hidden, widths of the layers ({ 200, 80 }); activation ("dice"); dropout, its rate; init,
-- deviation of the vectors (0.01); factors, dense: optimizers of the vectors and of all else.
local mr = require "moonrock"

local DENSE = mr.optim.adam { lr = 1e-3 }

return mr.model("din", function(m, opt)
  local dim, fields = opt.dim or 16, m:fields()
  local target, history, length = opt.target or 1, opt.history or fields, opt.length or 50
  local dense = opt.dense or DENSE
  local row = m:table("features", {
    v = { dim = dim, init = mr.init.normal(opt.init or 0.01), optim = opt.factors },
  })
  local interest = mr.attention_pool(m, "interest", dim, { hidden = opt.attention, weights = opt.weights,
    optim = dense })
  local widths = { unpack(opt.hidden or { 200, 80 }) }
  widths[#widths + 1] = 1
  local deep = mr.mlp(m, "deep", fields * dim, widths, { activation = opt.activation or "dice",
    dropout = opt.dropout, bias_init = "label", optim = dense })

  return function(x)
    local v = row(x).v
    local all = v:fields "mean"                            -- [n, fields, dim]
    local keys, mask = v:sequence(history, length)         -- [n, length, dim], [n, length]
    local pooled = interest(all:slice(2, target, target):flatten(), keys, mask)
    local others = {}
    for field = 1, fields do
      others[field] = field == history and pooled or all:slice(2, field, field):flatten()
    end
    return deep(mr.concat(others))
  end
end, { optim = mr.optim.adagrad { lr = 0.05 },
  options = { target = "count", history = "count", length = "count",
    weights = { "linear", "sigmoid", "softmax" }, attention = "counts", dim = "count", hidden = "counts",
    activation = { "none", "relu", "leaky_relu", "sigmoid", "tanh", "gelu", "silu", "prelu", "dice" },
    dropout = "rate", init = "from 0", factors = "optimizer", dense = DENSE } })

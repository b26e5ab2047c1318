-- Attentional FM: Xiao et al., "Attentional Factorization Machines: Learning the Weight of Feature
-- Interactions via Attention Networks", IJCAI 2017, equations (2) to (6): the products of all pairs of
-- fields, weighted by attention.
-- Options: dim, of the vectors (16); attention, width of its layer (16); dropout, its rate, of the pooled
-- pairs; init, deviation of the vectors (0.01); linear, factors, dense: optimizers of w, of the vectors and
-- of all else.
local mr = require "moonrock"

local DENSE = mr.optim.adam { lr = 1e-3 }

return mr.model("afm", function(m, opt)
  local dim, width = opt.dim or 16, opt.attention or 16
  local dense = opt.dense or DENSE
  local row = m:table("features", {
    w = { dim = 1, init = "zeros", optim = opt.linear },
    v = { dim = dim, init = mr.init.normal(opt.init or 0.01), optim = opt.factors },
  })
  local bias = m:param("bias", { 1 }, { init = "label" })
  local fields = m:fields()
  local pairs_n = fields * (fields - 1) / 2
  local attend = mr.mlp(m, "attention", dim, { width, 1 }, { optim = dense })
  local last = mr.linear(m, "last", dim, 1, { bias = false, optim = dense })

  return function(x)
    local r = row(x)
    local pairs = mr.pairs(r.v:fields())                                    -- [n, pairs, dim]
    local share = attend(pairs:reshape(-1, dim)):reshape(-1, 1, pairs_n):softmax()
    local pooled = share:matmul(pairs):reshape(-1, dim)
    return bias + r.w:sum() + last(mr.dropout(pooled, opt.dropout or 0))
  end
end, { optim = mr.optim.adagrad { lr = 0.05 },
  options = { dim = "count", attention = "count", dropout = "rate", init = "from 0", linear = "optimizer",
    factors = "optimizer", dense = DENSE } })

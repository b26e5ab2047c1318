-- Wide & Deep: Cheng et al., "Wide & Deep Learning for Recommender Systems", DLRS 2016: a linear
-- model over all keys (crosses included) plus an MLP over the fields' embeddings, trained jointly.
local mr = require "moonrock"

local DENSE = mr.optim.adam { lr = 1e-3 }

return mr.model("wide_deep", function(m, opt)
  local dim = opt.dim or 16
  local row = m:table("features", {
    w = { dim = 1, init = "zeros", optim = opt.linear },
    v = { dim = dim, init = mr.init.normal(opt.init or 0.01), optim = opt.factors },
  })
  local bias = m:param("bias", { 1 }, { init = "label" })
  local widths = {}
  for _, width in ipairs(opt.hidden or { 256, 128 }) do widths[#widths + 1] = width end
  widths[#widths + 1] = 1
  local deep = mr.mlp(m, "deep", m:fields() * dim, widths, {
    dropout = opt.dropout, batch_norm = opt.batch_norm,
    optim = opt.dense or DENSE,
  })

  return function(x)
    local r = row(x)
    return bias + r.w:sum() + deep(r.v:fields())
  end
end, { optim = mr.optim.adagrad { lr = 0.05 },
  options = { dim = "count", hidden = "counts", dropout = "rate", batch_norm = "boolean", init = "from 0",
    linear = "optimizer", factors = "optimizer", dense = DENSE } })

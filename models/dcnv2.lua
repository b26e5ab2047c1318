-- DCN v2: Wang et al., "DCN V2: Improved Deep & Cross Network and Practical Lessons for Web-scale Learning to
-- Rank Systems", WWW 2021: cross layers with a matrix, full (equation 1) or of low rank (equation 2),
-- and an MLP, side by side or one on the other (section 3.3). Its mixture of low-rank experts is left out.
-- Options: dim, of the vectors (16); cross, number of cross layers (3); rank, of their matrices (full);
-- structure, "parallel" or "stacked" ("parallel"); hidden, widths of the layers ({ 256, 128 }); dropout,
-- its rate; batch_norm; init, deviation of the vectors (0.01); factors, dense: optimizers of the vectors and
-- of all else.
local mr = require "moonrock"

local DENSE = mr.optim.adam { lr = 1e-3 }

return mr.model("dcnv2", function(m, opt)
  local dim = opt.dim or 16
  local d = m:fields() * dim
  local dense = opt.dense or DENSE
  local structure = opt.structure or "parallel"
  if structure ~= "parallel" and structure ~= "stacked" then
    error(("model dcnv2: structure is %q, expected parallel or stacked"):format(structure), 0)
  end
  local row = m:table("features", {
    v = { dim = dim, init = mr.init.normal(opt.init or 0.01), optim = opt.factors },
  })
  local cross = mr.cross_network(m, "cross", d, opt.cross or 3, { rank = opt.rank, optim = dense })
  local widths = { unpack(opt.hidden or { 256, 128 }) }
  widths[#widths + 1] = 1
  local deep = mr.mlp(m, "deep", d, widths, { dropout = opt.dropout, batch_norm = opt.batch_norm,
    bias_init = "label", optim = dense })
  if structure == "stacked" then
    return function(x) return deep(cross(row(x).v:fields())) end
  end
  local out = mr.linear(m, "out", d, 1, { bias = false, optim = dense })

  return function(x)
    local v = row(x).v:fields()
    return out(cross(v)) + deep(v)
  end
end, { optim = mr.optim.adagrad { lr = 0.05 },
  options = { dim = "count", cross = "count", rank = "count", structure = { "parallel", "stacked" },
    hidden = "counts", dropout = "rate", batch_norm = "boolean", init = "from 0", factors = "optimizer",
    dense = DENSE } })

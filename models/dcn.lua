-- Deep & Cross Network: Wang et al., "Deep & Cross Network for Ad Click Predictions", ADKDD 2017: cross
-- layers and an MLP side by side over the fields' vectors; the last layer, over what both give, is cut in
-- two, equation (6): y = <w_cross, cross(x)> + <w_deep, deep(x)> + b.
-- Options: dim, of the vectors (16); cross, number of cross layers (3); hidden, widths of the layers
-- ({ 256, 128 }); dropout, its rate; batch_norm; init, deviation of the vectors (0.01); factors, dense:
-- optimizers of the vectors and of all else.
local mr = require "moonrock"

local DENSE = mr.optim.adam { lr = 1e-3 }

return mr.model("dcn", function(m, opt)
  local dim = opt.dim or 16
  local d = m:fields() * dim
  local dense = opt.dense or DENSE
  local row = m:table("features", {
    v = { dim = dim, init = mr.init.normal(opt.init or 0.01), optim = opt.factors },
  })
  local cross = mr.cross_network(m, "cross", d, opt.cross or 3, { kind = "vector", optim = dense })
  local out = mr.linear(m, "out", d, 1, { bias = false, optim = dense })
  local widths = { unpack(opt.hidden or { 256, 128 }) }
  widths[#widths + 1] = 1
  local deep = mr.mlp(m, "deep", d, widths, { dropout = opt.dropout, batch_norm = opt.batch_norm,
    bias_init = "label", optim = dense })

  return function(x)
    local v = row(x).v:fields()
    return out(cross(v)) + deep(v)
  end
end, { optim = mr.optim.adagrad { lr = 0.05 },
  options = { dim = "count", cross = "count", hidden = "counts", dropout = "rate", batch_norm = "boolean",
    init = "from 0", factors = "optimizer", dense = DENSE } })

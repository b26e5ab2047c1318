-- DeepFM: Guo et al., "DeepFM: A Factorization-Machine based Neural Network for CTR Prediction", IJCAI
-- 2017, equation (1): an FM and an MLP over the fields' vectors, which are the FM's too.
-- Options: dim, of the vectors (16); hidden, widths of the layers ({ 256, 128 }); dropout, its rate;
-- batch_norm; init, deviation of the vectors (0.01); linear, factors, dense: optimizers of w, of the
-- vectors and of the layers.
local mr = require "moonrock"

local DENSE = mr.optim.adam { lr = 1e-3 }

return mr.model("deepfm", function(m, opt)
  local dim = opt.dim or 16
  local row = m:table("features", {
    w = { dim = 1, init = "zeros", optim = opt.linear },
    v = { dim = dim, init = mr.init.normal(opt.init or 0.01), optim = opt.factors },
  })
  local bias = m:param("bias", { 1 }, { init = "label" })
  local widths = { unpack(opt.hidden or { 256, 128 }) }
  widths[#widths + 1] = 1
  local deep = mr.mlp(m, "deep", m:fields() * dim, widths, { dropout = opt.dropout,
    batch_norm = opt.batch_norm, optim = opt.dense or DENSE })

  return function(x)
    local r = row(x)
    return bias + r.w:sum() + mr.fm(r.v) + deep(r.v:fields())
  end
end, { optim = mr.optim.adagrad { lr = 0.03, init = 2e-4 },
  options = { dim = "count", hidden = "counts", dropout = "rate", batch_norm = "boolean", init = "from 0",
    linear = "optimizer", factors = "optimizer", dense = DENSE } })

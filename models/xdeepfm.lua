-- xDeepFM: Lian et al., "xDeepFM: Combining Explicit and Implicit Feature Interactions for Recommender
-- Systems", KDD 2018, equation (15): a linear part, a compressed interaction network and an MLP over the
-- fields' vectors.
-- Options: dim, of the vectors (16); cin, sizes of the interaction layers ({ 64 }); hidden, widths of the
-- others ({ 256, 128 }); dropout, its rate; batch_norm; init, deviation of the vectors (0.01); linear,
-- factors, dense: optimizers of w, of the vectors and of all layers.
local mr = require "moonrock"

local DENSE = mr.optim.adam { lr = 1e-3 }

return mr.model("xdeepfm", function(m, opt)
  local fields, dim = m:fields(), opt.dim or 16
  local dense = opt.dense or DENSE
  local row = m:table("features", {
    w = { dim = 1, init = "zeros", optim = opt.linear },
    v = { dim = dim, init = mr.init.normal(opt.init or 0.01), optim = opt.factors },
  })
  local bias = m:param("bias", { 1 }, { init = "label" })
  local sizes, total = opt.cin or { 64 }, 0
  for _, size in ipairs(sizes) do total = total + size end
  local cin = mr.cin(m, "cin", fields, sizes, { optim = dense })
  local out = mr.linear(m, "out", total, 1, { bias = false, optim = dense })
  local widths = { unpack(opt.hidden or { 256, 128 }) }
  widths[#widths + 1] = 1
  local deep = mr.mlp(m, "deep", fields * dim, widths, { dropout = opt.dropout,
    batch_norm = opt.batch_norm, optim = dense })

  return function(x)
    local r = row(x)
    local v = r.v:fields()
    return bias + r.w:sum() + out(cin(v)) + deep(v)
  end
end, { optim = mr.optim.adagrad { lr = 0.05 },
  options = { dim = "count", cin = "counts", hidden = "counts", dropout = "rate", batch_norm = "boolean",
    init = "from 0", linear = "optimizer", factors = "optimizer", dense = DENSE } })

-- FiBiNET: Huang et al., "FiBiNET: Combining Feature Importance and Bilinear Feature Interaction for
-- Click-Through Rate Prediction", RecSys 2019: pairs of fields (v_i W) * v_j, of the embeddings and of
-- those weighted by importance, in front of an MLP.
-- Options: dim, of the vectors (16); bilinear, whether W is a field's own or one for all, "each" or "all"
-- ("each"); ratio, of fields to the squeezed layer (3); hidden, widths of the layers ({ 256, 128 });
-- dropout, its rate; batch_norm; init, deviation of the vectors (0.01); linear, factors, dense: optimizers of
-- w, of the vectors and of all else.
local mr = require "moonrock"

local DENSE = mr.optim.adam { lr = 1e-3 }

return mr.model("fibinet", function(m, opt)
  local dim, fields = opt.dim or 16, m:fields()
  local dense = opt.dense or DENSE
  local row = m:table("features", {
    w = { dim = 1, init = "zeros", optim = opt.linear },
    v = { dim = dim, init = mr.init.normal(opt.init or 0.01), optim = opt.factors },
  })
  local bias = m:param("bias", { 1 }, { init = "label" })
  local shape = opt.bilinear == "all" and { dim, dim } or { fields, dim, dim }
  local init = mr.init.xavier_uniform(dim, dim)
  local plain = m:param("bilinear.plain", shape, { init = init, optim = dense })
  local squeezed = m:param("bilinear.squeezed", shape, { init = init, optim = dense })
  local squeeze = mr.squeeze_excitation(m, "squeeze", fields, { ratio = opt.ratio, optim = dense })
  local widths = { unpack(opt.hidden or { 256, 128 }) }
  widths[#widths + 1] = 1
  local deep = mr.mlp(m, "deep", fields * (fields - 1) * dim, widths, { dropout = opt.dropout,
    batch_norm = opt.batch_norm, optim = dense })

  local function bilinear(v, w)                            -- [n, fields, dim] -> [n, pairs, dim]
    if #shape == 2 then return mr.pairs(v:matmul(w), v) end
    return mr.pairs(v:transpose(1, 2):matmul(w):transpose(1, 2), v)
  end

  return function(x)
    local r = row(x)
    local v = r.v:fields()
    local pairs = mr.concat({ bilinear(v, plain), bilinear(squeeze(v), squeezed) }, 2)
    return bias + r.w:sum() + deep(pairs)
  end
end, { optim = mr.optim.adagrad { lr = 0.05 },
  options = { dim = "count", bilinear = { "each", "all" }, ratio = "count", hidden = "counts",
    dropout = "rate", batch_norm = "boolean", init = "from 0", linear = "optimizer", factors = "optimizer",
    dense = DENSE } })

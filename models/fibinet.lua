-- FiBiNET: Huang et al., "FiBiNET: Combining Feature Importance and Bilinear Feature Interaction for
-- Click-Through Rate Prediction", RecSys 2019: pairs of fields (v_i W) * v_j, of the embeddings and of
-- those weighted by importance, in front of an MLP. W is a field's own (`each`) or one for all (`all`).
local mr = require "moonrock"

return mr.model("fibinet", function(m, opt)
  local dim, fields = opt.dim or 16, m:fields()
  local dense = opt.dense or mr.optim.adam { lr = 1e-3 }
  local row = m:table("features", {
    w = { dim = 1, init = "zeros", optim = opt.linear },
    v = { dim = dim, init = mr.init.normal(0.01), optim = opt.factors },
  })
  local bias = m:param("bias", { 1 })
  local shape = opt.bilinear == "all" and { dim, dim } or { fields, dim, dim }
  local init = mr.init.xavier_uniform(dim, dim)
  local plain = m:param("bilinear.plain", shape, { init = init, optim = dense })
  local squeezed = m:param("bilinear.squeezed", shape, { init = init, optim = dense })
  local squeeze = mr.squeeze_excitation(m, "squeeze", fields, { ratio = opt.ratio, optim = dense })
  local widths = {}
  for _, width in ipairs(opt.hidden or { 256, 128 }) do widths[#widths + 1] = width end
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
end, { optim = mr.optim.adagrad { lr = 0.05 } })

-- AutoInt: Song et al., "AutoInt: Automatic Feature Interaction Learning via Self-Attentive Neural
-- Networks", CIKM 2019: blocks of attention of the fields to one another, equations (5) to (9).
-- Options: dim, of the vectors (16); blocks (3); heads, of a block (2); attention, width of a head (32);
-- hidden, widths of an MLP beside it, as in the paper's AutoInt+ (none); dropout, its rate; layer_norm, of
-- the blocks; batch_norm, of the MLP; init, deviation of the vectors (0.01); factors, dense: optimizers of
-- the vectors and of all else.
local mr = require "moonrock"

local DENSE = mr.optim.adam { lr = 1e-3 }

return mr.model("autoint", function(m, opt)
  local dim, fields = opt.dim or 16, m:fields()
  local heads, width = opt.heads or 2, opt.attention or 32
  local dense = opt.dense or DENSE
  local row = m:table("features", {
    v = { dim = dim, init = mr.init.normal(opt.init or 0.01), optim = opt.factors },
  })
  local block, from = {}, dim
  for i = 1, opt.blocks or 3 do
    block[i] = mr.multi_head_attention(m, "attention." .. i, from, { heads = heads, dim = width,
      dropout = opt.dropout, layer_norm = opt.layer_norm, optim = dense })
    from = heads * width
  end
  local last = mr.linear(m, "last", fields * from, 1, { bias_init = "label", optim = dense })
  local deep
  if opt.hidden and #opt.hidden > 0 then
    local widths = { unpack(opt.hidden) }
    widths[#widths + 1] = 1
    deep = mr.mlp(m, "deep", fields * dim, widths, { dropout = opt.dropout, batch_norm = opt.batch_norm,
      optim = dense })
  end

  return function(x)
    local v = row(x).v:fields()                            -- [n, fields, dim]
    local y = v
    for i = 1, #block do y = block[i](y) end               -- [n, fields, heads width]
    return deep and last(y) + deep(v) or last(y)
  end
end, { optim = mr.optim.adagrad { lr = 0.05 },
  options = { dim = "count", blocks = "count", heads = "count", attention = "count",
    hidden = "counts or none", dropout = "rate", layer_norm = "boolean", batch_norm = "boolean",
    init = "from 0", factors = "optimizer", dense = DENSE } })

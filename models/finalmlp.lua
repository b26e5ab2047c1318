-- FinalMLP: Mao et al., "FinalMLP: An Enhanced Two-Stream MLP Model for CTR Prediction", AAAI 2023: two MLPs
-- on the fields' vectors, each of which sees them through a gate of its own (section 3.2), fused by a
-- bilinear form of heads (equation 8).
-- Options: dim, of the vectors (16); hidden and other, widths of the two streams ({ 256, 128 } both); heads
-- (1), which divide their last widths; gates, widths of the gates' hidden layers, or {} for none ({});
-- dropout, other_dropout, batch_norm; init, deviation of the vectors (0.01); factors, dense: optimizers of
-- the vectors and of all else.
local mr = require "moonrock"

local DENSE = mr.optim.adam { lr = 1e-3 }

return mr.model("finalmlp", function(m, opt)
  local dim = opt.dim or 16
  local d = m:fields() * dim
  local dense = opt.dense or DENSE
  local row = m:table("features", {
    v = { dim = dim, init = mr.init.normal(opt.init or 0.01), optim = opt.factors },
  })
  local heads = opt.heads or 1

  -- A stream: its gate 2 sigmoid(MLP(c)) of a learned context c, and its layers.
  local function stream(name, widths, dropout)
    local layers = mr.mlp(m, name, d, widths, { last = "relu", dropout = dropout,
      batch_norm = opt.batch_norm, optim = dense })
    local gates = opt.gates or {}
    if #gates == 0 then return layers, widths[#widths] end
    local context = m:param(name .. ".context", { 1, dim }, { init = mr.init.normal(0.1), optim = dense })
    local sizes = { unpack(gates) }
    sizes[#sizes + 1] = d
    local gate = mr.mlp(m, name .. ".gate", dim, sizes, { last = "sigmoid", optim = dense })
    return function(x) return layers(x * (gate(context + 0) * 2)) end, widths[#widths]
  end
  local one, width = stream("one", opt.hidden or { 256, 128 }, opt.dropout)
  local two, other = stream("two", opt.other or opt.hidden or { 256, 128 }, opt.other_dropout or opt.dropout)
  local left = mr.linear(m, "left", width, 1, { bias_init = "label", optim = dense })
  local right = mr.linear(m, "right", other, 1, { bias = false, optim = dense })
  local weights = m:param("fusion", { heads, width / heads, other / heads },
    { init = mr.init.xavier_normal(width / heads, other / heads), optim = dense })

  return function(x)
    local flat = row(x).v:fields():flatten()
    local a, b = one(flat), two(flat)
    local n = a:dim(1)
    local bilinear = a:reshape(n, heads, width / heads):transpose(1, 2):matmul(weights)
      * b:reshape(n, heads, other / heads):transpose(1, 2)
    return left(a) + right(b) + bilinear:sum(3):sum(1):reshape(n, 1)
  end
end, { optim = mr.optim.adagrad { lr = 0.05 },
  options = { dim = "count", hidden = "counts", other = "counts", heads = "count", gates = "counts or none",
    dropout = "rate", other_dropout = "rate", batch_norm = "boolean", init = "from 0", factors = "optimizer",
    dense = DENSE } })

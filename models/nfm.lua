-- Neural factorization machine: He and Chua, "Neural Factorization Machines for Sparse Predictive
-- Analytics", SIGIR 2017, equation (7): y = b + sum_i w_i x_i + MLP(the bi-interaction of all x_i v_i), with
-- dropout and batch norm behind the bi-interaction as in the hidden layers.
-- Options: dim, of the vectors (16); hidden, widths of the layers ({ 256, 128 }); dropout, its rate;
-- batch_norm; init, deviation of the vectors (0.01); linear, factors, dense: optimizers of w, of the
-- vectors and of the layers.
local mr = require "moonrock"

local DENSE = mr.optim.adam { lr = 1e-3 }

return mr.model("nfm", function(m, opt)
  local dim = opt.dim or 16
  local dense = opt.dense or DENSE
  local row = m:table("features", {
    w = { dim = 1, init = "zeros", optim = opt.linear },
    v = { dim = dim, init = mr.init.normal(opt.init or 0.01), optim = opt.factors },
  })
  local bias = m:param("bias", { 1 }, { init = "label" })
  local norm = opt.batch_norm and mr.batch_norm(m, "norm", dim, { optim = dense })
  local widths = { unpack(opt.hidden or { 256, 128 }) }
  widths[#widths + 1] = 1
  local deep = mr.mlp(m, "deep", dim, widths, { dropout = opt.dropout, batch_norm = opt.batch_norm,
    optim = dense })

  return function(x)
    local r = row(x)
    local pairs_of_all = mr.bi_interaction(r.v)
    if norm then pairs_of_all = norm(pairs_of_all) end
    if opt.dropout then pairs_of_all = mr.dropout(pairs_of_all, opt.dropout) end
    return bias + r.w:sum() + deep(pairs_of_all)
  end
end, { optim = mr.optim.adagrad { lr = 0.05 },
  options = { dim = "count", hidden = "counts", dropout = "rate", batch_norm = "boolean", init = "from 0",
    linear = "optimizer", factors = "optimizer", dense = DENSE } })

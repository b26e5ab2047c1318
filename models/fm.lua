-- Factorization machine: Rendle, "Factorization Machines", ICDM 2010, equation (1):
-- y = b + sum_i w_i x_i + sum_{i<j} <v_i, v_j> x_i x_j, in O(k n) by its lemma 3.1.
local mr = require "moonrock"

return mr.model("fm", function(m, opt)
  local row = m:table("features", {
    w = { dim = 1, init = "zeros", optim = opt.linear },
    v = { dim = opt.dim or 16, init = mr.init.normal(opt.init or 0.01), optim = opt.factors },
  })
  local bias = m:param("bias", { 1 }, { init = "label" })

  return function(x)               -- x: a batch; returns logits [n, 1]
    local r = row(x)               -- one pull per distinct key
    return bias + r.w:sum() + mr.fm(r.v)
  end
end, { optim = mr.optim.adagrad { lr = 0.03, init = 2e-4 },
  options = { dim = "count", init = "from 0", linear = "optimizer", factors = "optimizer" } })

-- Field-aware factorization machine: Juan et al., "Field-aware Factorization Machines for CTR
-- Prediction", RecSys 2016, equation (4): y = b + sum_i w_i x_i + sum_{i<j} <v_i,fj, v_j,fi> x_i x_j,
-- where f_i is the field of entry i: a key has a vector for each field that it meets.
-- Options: dim, of a vector (4); init, deviation of the vectors; linear, factors: optimizers of w and v.
local mr = require "moonrock"

return mr.model("ffm", function(m, opt)
  local fields, dim = m:fields(), opt.dim or 4
  local row = m:table("features", {
    w = { dim = 1, init = "zeros", optim = opt.linear },
    v = { dim = fields * dim, init = mr.init.normal(opt.init or 0.01), optim = opt.factors },
  })
  local bias = m:param("bias", { 1 }, { init = "label" })

  return function(x)
    local r = row(x)
    return bias + r.w:sum() + mr.ffm(r.v, fields)
  end
end, { optim = mr.optim.adagrad { lr = 0.05, init = 2e-4 },
  options = { dim = "count", init = "from 0", linear = "optimizer", factors = "optimizer" } })

-- Field-weighted factorization machine: Pan et al., "Field-weighted Factorization Machines for
-- Click-Through Rate Prediction in Display Advertising", WWW 2018, equation (7) with the linear part
-- of section 4.2 (FiLV): y = b + sum_i <v_i, w_fi> x_i + sum_{i<j} r_fi,fj <v_i, v_j> x_i x_j, where f_i is
-- the field of entry i. It begins as an FM: r is 1.
-- Options: dim, of the vectors (16); init, their deviation (0.01); factors, dense: optimizers of the
-- vectors, and of w and r.
local mr = require "moonrock"

local DENSE = mr.optim.adam { lr = 1e-3 }

return mr.model("fwfm", function(m, opt)
  local fields, dim = m:fields(), opt.dim or 16
  local dense = opt.dense or DENSE
  local row = m:table("features", {
    v = { dim = dim, init = mr.init.normal(opt.init or 0.01), optim = opt.factors },
  })
  local bias = m:param("bias", { 1 }, { init = "label" })
  local linear = mr.linear(m, "linear", fields * dim, 1, { bias = false, optim = dense })
  local r = m:param("r", { fields * (fields - 1) / 2 }, { init = "ones", optim = dense })

  return function(x)
    local v = row(x).v:fields()
    return bias + linear(v) + mr.fwfm(v, r)
  end
end, { optim = mr.optim.adagrad { lr = 0.01 },
  options = { dim = "count", init = "from 0", factors = "optimizer", dense = DENSE } })

-- Biased matrix factorization: Koren, Bell and Volinsky, "Matrix Factorization Techniques for
-- Recommender Systems", Computer 2009, equation (4): y = mu + b_u + b_i + <p_u, q_i>. Of the two fields
-- of a sample, the user and the item, the FM interaction is just that product.
local mr = require "moonrock"

return mr.model("mf", function(m, opt)
  if m:fields() ~= 2 then
    error(("model mf: samples have %d fields, expected 2: a user and an item"):format(m:fields()), 0)
  end
  local row = m:table("features", {
    b = { dim = 1, init = "zeros", optim = opt.linear },
    p = { dim = opt.dim or 16, init = mr.init.normal(opt.init or 0.05), optim = opt.factors },
  })
  local mu = m:param("mu", { 1 }, { init = "label" })

  return function(x)
    local r = row(x)
    return mu + r.b:sum() + mr.fm(r.p)
  end
end, { loss = "mse", optim = mr.optim.adagrad { lr = 0.05 },
  options = { dim = "count", init = "from 0", linear = "optimizer", factors = "optimizer" } })

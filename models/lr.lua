-- Logistic regression: one weight a key, pooled over the sample, and a bias.
-- FTRL-Proximal as in McMahan et al., "Ad Click Prediction: a View from the Trenches", KDD 2013,
-- with `--optim ftrl`.
local mr = require "moonrock"

return mr.model("lr", function(m, opt)
  local row = m:table("features", { w = { dim = 1, init = "zeros", optim = opt.linear } })
  local bias = m:param("bias", { 1 }, { init = "label" })

  return function(x)
    return bias + row(x).w:sum()
  end
end, { optim = mr.optim.adagrad { lr = 0.05 },
  options = { linear = "optimizer" } })

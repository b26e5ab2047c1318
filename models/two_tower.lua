-- Two towers, for retrieval: Yi et al., "Sampling-Bias-Corrected Neural Modeling for Large Corpus Item
-- Recommendations", RecSys 2019. The first `users` fields are the user's, the others the item's, of
-- which the first is its id. Training is a softmax over the items of the batch, corrected for how often
-- each item is in one; the score of a sample is the product of its two vectors over the temperature.
local mr = require "moonrock"

local DENSE = mr.optim.adam { lr = 1e-3 }

return mr.model("two_tower", function(m, opt)
  local dim, users, cosine = opt.dim or 16, opt.users or 1, opt.cosine ~= false
  local temperature = opt.temperature or (cosine and 0.1 or 1)
  local row = m:table("features", {
    v = { dim = dim, init = mr.init.normal(opt.init or 0.05), optim = opt.factors },
  })
  local function tower(name, first, last)
    local deep = mr.mlp(m, name, (last - first + 1) * dim, opt.hidden or { 64, 32 },
      { optim = opt.dense or DENSE })
    return function(v)
      local y = deep(v:slice(2, first, last):flatten())
      return cosine and mr.l2_normalize(y) or y
    end
  end
  local user, item = tower("user", 1, users), tower("item", users + 1, m:fields())
  local frequency, how = mr.frequency(m, "frequency"), { temperature = temperature }
  local u, v

  return function(x)
    local fields = row(x).v:fields()
    u, v = user(fields), item(fields)
    return (u * v):sum(2, true) / temperature
  end, function(_, x) -- the loss of the same batch
    how.label, how.id = x.label, x:keys(users + 1)
    how.log_q = frequency(how.id)
    return mr.in_batch_softmax(u, v, how)
  end
end, { stream_size = 256, optim = mr.optim.adagrad { lr = 0.05 },
  options = { users = "count", dim = "count", hidden = "counts", cosine = "boolean", temperature = "positive",
    init = "from 0", factors = "optimizer", dense = DENSE } })

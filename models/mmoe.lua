-- Multi-gate mixture of experts: Ma et al., "Modeling Task Relationships in Multi-task Learning with
-- Multi-gate Mixture-of-Experts", KDD 2018: experts over the fields' embeddings that all tasks share, and a
-- gate and a tower for each task. Returns logits [n, tasks]: of one task, they are those of the batch's
-- label; of more, the losses of y:slice(2, 1, 1), y:slice(2, 2, 2) and so on are added.
-- Options: tasks (1); experts (4); dim, of the vectors (16); hidden, widths of an expert's layers
-- ({ 128, 64 }); tower, width of a task's hidden layer (32); dropout, its rate; init, deviation of the
-- vectors (0.01); factors, dense: optimizers of the vectors and of all else.
local mr = require "moonrock"

local DENSE = mr.optim.adam { lr = 1e-3 }

return mr.model("mmoe", function(m, opt)
  local dim, fields, tasks = opt.dim or 16, m:fields(), opt.tasks or 1
  local dense = opt.dense or DENSE
  local row = m:table("features", {
    v = { dim = dim, init = mr.init.normal(opt.init or 0.01), optim = opt.factors },
  })
  local hidden = opt.hidden or { 128, 64 }
  local experts = mr.mmoe(m, "experts", fields * dim, { experts = opt.experts or 4, tasks = tasks,
    hidden = hidden, dropout = opt.dropout, optim = dense })
  local tower, logits = {}, {}
  for i = 1, tasks do
    tower[i] = mr.mlp(m, "tower." .. i, hidden[#hidden], { opt.tower or 32, 1 },
      { bias_init = tasks == 1 and "label" or nil, optim = dense })
  end

  return function(x)
    local mixed = experts(row(x).v:fields():flatten())     -- [n, tasks, hidden]
    for i = 1, tasks do logits[i] = tower[i](mixed:slice(2, i, i):flatten()) end
    return mr.concat(logits)
  end
end, { optim = mr.optim.adagrad { lr = 0.05 },
  options = { tasks = "count", experts = "count", dim = "count", hidden = "counts", tower = "count",
    dropout = "rate", init = "from 0", factors = "optimizer", dense = DENSE } })

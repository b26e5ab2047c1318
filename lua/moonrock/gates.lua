--- Layers of gates: of fields by what they squeeze to, of experts by task.
local check = require "moonrock.check"
local layers = require "moonrock.layers"

local gates = {}

local SQUEEZE = { ratio = true, activation = true, optim = true }

---@class SqueezeOptions
---@field ratio? integer 3: hidden width fields / ratio, at least 1
---@field activation? Activation of both layers: relu
---@field optim? table

--- Fields weighted by their importance: v_f a_f with a = act(act(z W_1) W_2) and z_f the mean of field
--- f's vector: [n, fields, k] -> the same. Params NAME.1.w, .2.w. Huang et al., "FiBiNET", RecSys 2019,
--- equations (1) to (3), after Hu et al., "Squeeze-and-Excitation Networks", CVPR 2018.
---@param m table the model
---@param name string
---@param fields integer
---@param options? SqueezeOptions
---@return fun(x: Tensor): Tensor
function gates.squeeze_excitation(m, name, fields, options)
  local o = options or {}
  local subject = check.layer("squeeze_excitation", m, name)
  check.options(subject, o, SQUEEZE)
  check.width(subject, "fields", fields)
  local ratio, act = o.ratio or 3, o.activation or "relu"
  check.width(subject, "ratio", ratio)
  local excite = layers.mlp(m, name, fields, { math.max(1, math.floor(fields / ratio)), fields },
    { activation = act, last = act, bias = false, optim = o.optim })
  local expected = ("[n, %d, k]"):format(fields)
  return function(x)
    check.shape(subject, expected, x, 3, nil, fields)
    return x * excite(x:mean(3)):reshape(-1, fields, 1)
  end
end

local MMOE = { experts = true, hidden = true, tasks = true, activation = true, dropout = "rate",
  optim = true }

---@class MmoeOptions
---@field experts? integer 4
---@field hidden? integer[] widths of an expert's layers: { 64 }
---@field tasks? integer 2
---@field activation? Activation of the experts: relu
---@field dropout? number rate, between an expert's layers
---@field optim? table

--- A mixture of experts for each task: sum_e g_e(x) f_e(x), where g = softmax(x W_t) is the task's gate
--- and f_e are MLPs that all tasks share: [n, inputs] -> [n, tasks, width of the last layer]. One task is
--- y:slice(2, i, i):flatten(). Params NAME.1.1.w and the like of experts 1, 2, ..., NAME.gate.w. Ma et al.,
--- "Modeling Task Relationships in Multi-task Learning with Multi-gate Mixture-of-Experts", KDD 2018.
---@param m table the model
---@param name string
---@param inputs integer
---@param options? MmoeOptions
---@return fun(x: Tensor): Tensor
function gates.mmoe(m, name, inputs, options)
  local o = options or {}
  local subject = check.layer("mmoe", m, name)
  check.options(subject, o, MMOE)
  check.width(subject, "inputs", inputs)
  local experts, tasks = o.experts or 4, o.tasks or 2
  check.width(subject, "experts", experts)
  check.width(subject, "tasks", tasks)
  local expert, results, act = {}, {}, o.activation or "relu"
  for e = 1, experts do
    expert[e] = layers.mlp(m, name .. "." .. e, inputs, o.hidden or { 64 },
      { activation = act, last = act, dropout = o.dropout, optim = o.optim })
  end
  local gate = layers.linear(m, name .. ".gate", inputs, tasks * experts, { bias = false, optim = o.optim })
  return function(x)
    for e = 1, experts do results[e] = expert[e](x) end
    return gate(x):reshape(-1, tasks, experts):softmax():matmul(layers.stack(results, 2))
  end
end

return gates

--- Where a bias starts. Params with `init = "label"` begin as the best score for all samples alike, by the
-- labels of the first thousand that a model sees: the logarithm of their odds for `bce`, the mean for `mse`,
-- the logarithm of the mean for `poisson`, the mean of -1 and 1 for `hinge`, the median for `mae` and
-- `huber`, the quantile for `quantile`. Samples count by their weights.
--
-- While these samples come, such a param is not trained but set: before a batch is trained, with its labels;
-- in a stream after it was scored and trained, so that no score knows its own label. After them it is a
-- param like any other. What was counted so far is part of each commit.
local C = require "moonrock.ffi"

local Start = {}
Start.__index = Start

local SAMPLES = 1000 -- that are counted; batches as a whole

-- What is summed of a label.
local function same(y) return y end
local function sign(y) return y > 0 and 1 or -1 end
local SUM = { bce = same, hinge = sign, mse = same, poisson = same }

--- Of a model with such params that has not counted all its first samples.
---@param model table
---@param state table|nil of the last commit
function Start.new(model, state)
  local params = {}
  for _, p in ipairs(model.params) do
    if p.from_label then params[#params + 1] = p end
  end
  if #params == 0 then return nil end
  local sums = state or { n = 0, weight = 0, label = 0 }
  if not SUM[model.objective.name] then sums.list = sums.list or {} end
  return setmetatable({ model = model, params = params, sums = sums }, Start)
end

-- Adds the labels of a batch to what came before it.
local function add(sums, batch, of)
  local n, label, weight, total, list = batch.n, batch.c.label, sums.weight, sums.label, nil
  local weights = batch.c.weight
  if sums.list then
    list = {}
    for i, value in ipairs(sums.list) do list[i] = value end
  end
  for i = 0, n - 1 do
    local w = weights ~= nil and weights[i] or 1
    weight = weight + w
    if list then
      list[#list + 1] = label[i]
      list[#list + 1] = w
    else
      total = total + w * of(label[i])
    end
  end
  return { n = sums.n + n, weight = weight, label = total, list = list }
end

-- The label below which a part q of the weights is.
local function quantile(list, q)
  local samples, total = {}, 0
  for i = 1, #list, 2 do
    samples[#samples + 1] = { list[i], list[i + 1] }
    total = total + list[i + 1]
  end
  table.sort(samples, function(a, b) return a[1] < b[1] end)
  local below = 0
  for i, sample in ipairs(samples) do
    below = below + sample[2]
    if below > q * total then return sample[1] end
    if below == q * total then return (sample[1] + samples[math.min(i + 1, #samples)][1]) / 2 end
  end
end

-- The best score for all samples alike. Where all labels are one, it is as if half a sample had the other.
local function value_of(objective, sums, shift)
  local options, half = objective.options or {}, 0.5 / sums.n
  if not (sums.weight > 0) then return 0 end
  if sums.list then return quantile(sums.list, objective.name == "quantile" and options.q or 0.5) end
  local mean = sums.label / sums.weight
  if objective.name == "bce" then
    local smoothing, positive_weight = options.label_smoothing or 0, options.pos_weight or 1
    local p = math.min(math.max(mean, half), 1 - half) * (1 - smoothing) + smoothing / 2
    return math.log(positive_weight * p / (1 - p)) + shift
  elseif objective.name == "poisson" then
    return math.log(mean > 0 and mean or half)
  end
  return mean
end

local function set(self, sums)
  local value = sums.n > 0 and value_of(self.model.objective, sums, self.model.label_shift or 0) or 0
  for _, p in ipairs(self.params) do C.mr_param_start(p.c, value) end
end

--- A batch is about to be scored in training.
function Start:see(batch)
  if batch.c.label == nil then return end
  self.pending = add(self.pending or self.sums, batch, SUM[self.model.objective.name])
  if not self.model.streaming then set(self, self.pending) end
end

--- The step of what was seen is done.
---@return boolean last no more samples are needed
function Start:step()
  self.sums, self.pending = self.pending or self.sums, nil
  set(self, self.sums)
  return self.sums.n >= SAMPLES
end

--- What was seen since the last step is dropped.
function Start:drop() self.pending = nil end

--- Lets a commit write the params as the last step left them.
---@param write fun()
function Start:save(write)
  if self.pending then set(self, self.sums) end
  write()
  if self.pending and not self.model.streaming then set(self, self.pending) end
end

return Start

--- Optimizers by definition, in float64, and the runtime's, fed with the same gradients.
local C = require "moonrock.ffi"
local err = require "moonrock.error"
local layers = require "moonrock.layers"
local Param = require "moonrock.param"
local Table = require "moonrock.table"
local tape = require "moonrock.tape"
local batches = require "tests.support.batches"

local optimizers = {}

-- ---- by definition ---------------------------------------------------------------------------

local function sign(x) return x > 0 and 1 or x < 0 and -1 or 0 end
local function soft(x, by) return math.abs(x) > by and x - sign(x) * by or 0 end
local function norm(x)
  local sum = 0
  for i = 1, #x do sum = sum + x[i] * x[i] end
  return math.sqrt(sum)
end

-- The w of least sum (h/2) w^2 - x w + l1 |w| + group ||w||, and how far x is from a threshold.
local function least(x, h, l1, group)
  local a, margin = {}, math.huge
  for i = 1, #x do
    a[i] = soft(x[i], l1)
    if l1 > 0 then margin = math.min(margin, math.abs(math.abs(x[i]) - l1)) end
  end
  if group > 0 then margin = math.min(margin, math.abs(norm(a) - group)) end
  local w = {}
  if group == 0 then
    for i = 1, #a do w[i] = a[i] / h[i] end
  elseif norm(a) <= group then
    for i = 1, #a do w[i] = 0 end
  else -- w (h + group / ||w||) = a, of which the norm is found by halving
    local low, high = 0, norm(a) / math.min(unpack(h))
    for _ = 1, 200 do
      local r = (low + high) / 2
      for i = 1, #a do w[i] = a[i] * r / (h[i] * r + group) end
      if norm(w) > r then low = r else high = r end
    end
  end
  return w, margin
end

local function fade(o, t, G)
  if o.fade_every == 0 or t % o.fade_every ~= 0 then return end
  for i = 1, #G do G[i] = math.max(o.init, o.fade * G[i]) end
end

local function adagrad(o, t, row, g, G, of)
  fade(o, t, G)
  local x, h, gi, mean = {}, {}, {}, 0
  for i = 1, #g do
    gi[i] = g[i] + o.l2 * row.w[i]
    mean = mean + gi[i] ^ 2 / #g
  end
  for i = 1, #G do G[i] = G[i] + (#G == #g and gi[i] ^ 2 or mean) end
  for i = 1, #g do
    local rate = o.lr / (math.sqrt(G[of(i)]) + o.eps)
    h[i], x[i] = 1 / rate, (row.w[i] - rate * gi[i]) / rate
  end
  local margin
  row.w, margin = least(x, h, o.l1, o.group)
  return margin
end

local function adam(o, t, row, g)
  row.m, row.v, row.peak = row.m or {}, row.v or {}, row.peak or {}
  for i = 1, #g do
    local gi = g[i] + o.l2 * row.w[i]
    local m = o.beta1 * (row.m[i] or 0) + (1 - o.beta1) * gi
    local v = o.beta2 * (row.v[i] or 0) + (1 - o.beta2) * gi * gi
    local peak = math.max(row.peak[i] or 0, v)
    row.m[i], row.v[i], row.peak[i] = m, v, peak
    row.w[i] = row.w[i] - o.lr * (o.decay or 0) * row.w[i]
    row.w[i] = row.w[i] - o.lr * (m / (1 - o.beta1 ^ t))
      / (math.sqrt((o.rule == "amsgrad" and peak or v) / (1 - o.beta2 ^ t)) + o.eps)
  end
end

local function rmsprop(o, _, row, g)
  row.v, row.m, row.u = row.v or {}, row.m or {}, row.u or {}
  for i = 1, #g do
    local gi = g[i] + o.l2 * row.w[i]
    row.v[i] = o.beta2 * (row.v[i] or 0) + (1 - o.beta2) * gi * gi
    row.m[i] = o.beta2 * (row.m[i] or 0) + (1 - o.beta2) * gi
    local square = row.v[i] - (o.rule == "centered_rmsprop" and row.m[i] ^ 2 or 0)
    row.u[i] = o.momentum * (row.u[i] or 0) + gi / (math.sqrt(square) + o.eps)
    row.w[i] = row.w[i] - o.lr * row.u[i]
  end
end

-- One update of a row { w = } by g, as update number t. Returns how far it was from where a sign or a
-- zero would have been another; nil: there is nothing of the kind.
local rules = {
  sgd = function(o, _, row, g)
    row.u = row.u or {}
    local margin = math.huge
    for i = 1, #g do
      local gi = g[i] + o.l2 * row.w[i]
      row.u[i] = o.momentum * (row.u[i] or 0) + gi
      local w = row.w[i] - o.lr * (o.nesterov and gi + o.momentum * row.u[i] or row.u[i])
      if o.l1 > 0 then margin = math.min(margin, math.abs(math.abs(w) - o.lr * o.l1)) end
      row.w[i] = soft(w, o.lr * o.l1)
    end
    return margin
  end,
  adagrad = function(o, t, row, g)
    if not row.G then
      row.G = {}
      for i = 1, #g do row.G[i] = o.init end
    end
    return adagrad(o, t, row, g, row.G, function(i) return i end)
  end,
  row_adagrad = function(o, t, row, g)
    row.G = row.G or { o.init }
    return adagrad(o, t, row, g, row.G, function() return 1 end)
  end,
  adam = adam, adamw = adam, amsgrad = adam,
  lion = function(o, _, row, g)
    row.m = row.m or {}
    local margin = math.huge
    for i = 1, #g do
      local m = row.m[i] or 0
      local ahead = o.beta1 * m + (1 - o.beta1) * g[i]
      if m ~= 0 or g[i] ~= 0 then margin = math.min(margin, math.abs(ahead)) end
      row.w[i] = row.w[i] - o.lr * (sign(ahead) + o.decay * row.w[i])
      row.m[i] = o.beta2 * m + (1 - o.beta2) * g[i]
    end
    return margin
  end,
  rmsprop = rmsprop, centered_rmsprop = rmsprop,
  ftrl = function(o, _, row, g)
    if not row.z then
      row.z, row.n = {}, {}
      local length = norm(row.w)
      for i = 1, #g do
        local w = row.w[i]
        row.n[i] = 0
        row.z[i] = w == 0 and 0
          or -w * (o.beta / o.lr + o.l2 + o.group / length) - sign(w) * o.l1
      end
    end
    local x, h = {}, {}
    for i = 1, #g do
      local s = (math.sqrt(row.n[i] + g[i] ^ 2) - math.sqrt(row.n[i])) / o.lr
      row.z[i] = row.z[i] + g[i] - s * row.w[i]
      row.n[i] = row.n[i] + g[i] ^ 2
      x[i], h[i] = -row.z[i], (o.beta + math.sqrt(row.n[i])) / o.lr + o.l2
    end
    local margin
    row.w, margin = least(x, h, o.l1, o.group)
    return margin
  end,
}

local function copy(t)
  if type(t) ~= "table" then return t end
  local c = {}
  for k, v in pairs(t) do c[k] = copy(v) end
  return c
end

--- A copy of the row { w =, count = } after an update by g in step `step`, dense or of a table's, and
--- how far it was from where a sign or a zero would have been another.
function optimizers.updated(o, step, dense, row, g)
  row = copy(row)
  row.count = (row.count or 0) + 1
  local t = (dense or o.bias_correction == "global") and step or row.count
  return row, rules[o.rule](o, t, row, g) or math.huge
end

-- ---- the runtime's ---------------------------------------------------------------------------

--- `rows` rows of `dim` weights behind keys from 1. step(n, g): g[r] is the gradient of row r, or nil.
function optimizers.table(o, rows, dim, init)
  local row = Table.new("t", 0, 3, { w = { dim = dim, init = init, optim = o } }, o)
  local tp = tape.new()
  return {
    step = function(n, g)
      local samples, flat = {}, {}
      for r = 1, rows do
        if g[r] then
          samples[#samples + 1] = { { r } }
          for i = 1, dim do flat[#flat + 1] = g[r][i] end
        end
      end
      if #samples == 0 then return end
      tp:begin(true, n)
      tape.current = tp
      local w = row(batches.build(samples, {})).w:sum();
      (w * layers.tensor({ #samples, dim }, flat)):sum():backward()
      err.check(C.mr_table_push(row.c, n))
    end,
    weights = function(r) return (row:peek(r, "w")) end,
    scale_lr = function(factor) row:scale_lr(factor) end,
    free = function() tp:free() end,
  }
end

--- The same as a param [rows, dim]; no gradient is one of zeros.
function optimizers.param(o, rows, dim, init)
  local p = Param.new("p", 3, { rows, dim }, { init = init, optim = o })
  local tp = tape.new()
  return {
    step = function(n, g)
      local flat = {}
      for r = 1, rows do
        for i = 1, dim do flat[#flat + 1] = g[r] and g[r][i] or 0 end
      end
      tp:begin(true, n)
      tape.current = tp;
      (p * layers.tensor({ rows, dim }, flat)):sum():backward()
      err.check(C.mr_param_step(p.c, n))
    end,
    weights = function(r)
      local list = {}
      for i = 1, dim do list[i] = p:weight((r - 1) * dim + i) end
      return list
    end,
    scale_lr = function(factor) p:scale_lr(factor) end,
    free = function() tp:free() end,
  }
end

return optimizers

-- Logistic regression and a factorization machine against a plain float64 program: dense
-- arrays, one sample after another, the formulas by definition.
local mr = require "moonrock"

local BATCHES, SIZE, KEYS, ENTRIES, DIM, LR = 200, 32, 60, 6, 4, 0.05

-- Samples of ENTRIES keys with values, some keys twice in a sample.
local function make_data(seed)
  local state = seed
  local function random()
    state = (state * 16807) % 2147483647
    return state / 2147483647
  end
  local samples = {}
  for i = 1, BATCHES * SIZE do
    local s = { y = random() < 0.4 and 1 or 0 }
    for e = 1, ENTRIES do
      local key = math.floor(random() * random() * KEYS) + (e == 1 and 0 or 1)
      s[e] = { key = key, x = math.floor(random() * 8 + 1) / 8 }
    end
    samples[i] = s
  end
  return samples
end

local function write_libsvm(samples)
  local path = os.tmpname() .. ".svm"
  local f = assert(io.open(path, "w"))
  for _, s in ipairs(samples) do
    f:write(s.y)
    for _, e in ipairs(s) do f:write((" %d:%g"):format(e.key, e.x)) end
    f:write("\n")
  end
  f:close()
  return path
end

-- One weight with its optimizer, in float64.
local rules = {
  sgd = function(w, g) w.w = w.w - LR * g end,
  adagrad = function(w, g)
    w.G = (w.G or 0.1) + g * g
    w.w = w.w - LR * g / (math.sqrt(w.G) + 1e-10)
  end,
}

-- `fresh(key)` gives the initial weights: row.w, row.v[1..DIM].
local function train_by_definition(samples, rule, fresh, with_factors)
  local rows, bias, positive = {}, { w = 0 }, 0
  local function row(key)
    if not rows[key] then
      local v = {}
      local w0, v0 = fresh(key)
      for k = 1, with_factors and DIM or 0 do v[k] = { w = v0[k] } end
      rows[key] = { w = { w = w0 }, v = v }
    end
    return rows[key]
  end
  for b = 0, BATCHES - 1 do
    local gradient = {} -- by weight
    if b * SIZE < 1000 then -- the bias is that of the labels so far
      for i = b * SIZE + 1, (b + 1) * SIZE do positive = positive + samples[i].y end
      bias.w = math.log(positive / ((b + 1) * SIZE - positive))
    end
    local function add(weight, g) gradient[weight] = (gradient[weight] or 0) + g end
    for i = b * SIZE + 1, (b + 1) * SIZE do
      local s = samples[i]
      local z, sum = bias.w, {}
      for k = 1, DIM do sum[k] = 0 end
      for _, e in ipairs(s) do
        local r = row(e.key)
        z = z + r.w.w * e.x
        for k = 1, with_factors and DIM or 0 do sum[k] = sum[k] + r.v[k].w * e.x end
      end
      if with_factors then
        for i1 = 1, #s do
          for i2 = i1 + 1, #s do
            for k = 1, DIM do
              z = z + row(s[i1].key).v[k].w * row(s[i2].key).v[k].w * s[i1].x * s[i2].x
            end
          end
        end
      end
      local g = (1 / (1 + math.exp(-z)) - s.y) / SIZE
      if b * SIZE >= 1000 then add(bias, g) end
      for _, e in ipairs(s) do
        local r = row(e.key)
        add(r.w, g * e.x)
        for k = 1, with_factors and DIM or 0 do
          add(r.v[k], g * e.x * (sum[k] - r.v[k].w * e.x))
        end
      end
    end
    for weight, g in pairs(gradient) do rules[rule](weight, g) end
  end
  return rows, bias
end

local function compare(ours, theirs, what)
  local square = 0
  for i = 1, #theirs do square = square + theirs[i] ^ 2 end
  local rms = math.sqrt(square / #theirs)
  for i = 1, #theirs do
    -- 1e-4: float32 rounding over 200 steps, the bound that the project states
    local bound = 1e-4 * math.max(math.abs(theirs[i]), rms)
    assert(math.abs(ours[i] - theirs[i]) <= bound,
      ("%s %d: %.9g, by definition %.9g"):format(what, i, ours[i], theirs[i]))
  end
end

describe("a model trained by the runtime", function()
  for _, rule in ipairs { "sgd", "adagrad" } do
    for _, name in ipairs { "lr", "fm" } do
      it(("agrees with float64 by definition: %s with %s"):format(name, rule), function()
        local seed = 20261124
        local samples = make_data(seed)
        local path = write_libsvm(samples)
        local optimizer = rule == "sgd" and mr.optim.sgd { lr = LR }
          or mr.optim.adagrad { lr = LR, init = 0.1 }
        local model = mr.find(name) {
          data = mr.data { files = path, format = "libsvm" }, optim = optimizer, dim = DIM, seed = seed,
        }
        local features = model.tables[1]
        local rows, bias = train_by_definition(samples, rule, function(key)
          local w = features:peek(key, "w")
          local v = name == "fm" and features:peek(key, "v") or {}
          return w[1], v
        end, name == "fm")
        local batches = 0
        for batch in model:batches(path, { size = SIZE, epochs = 1, shuffle = false }) do
          mr.bce(model(batch), batch.label):backward()
          model:step()
          batches = batches + 1
        end
        assert.equal(BATCHES, batches)
        local ours, theirs, our_v, their_v = {}, {}, {}, {}
        for key, r in pairs(rows) do
          ours[#ours + 1] = features:peek(key, "w")[1]
          theirs[#theirs + 1] = r.w.w
          if name == "fm" then
            local v = features:peek(key, "v")
            for k = 1, DIM do
              our_v[#our_v + 1] = v[k]
              their_v[#their_v + 1] = r.v[k].w
            end
          end
        end
        compare(ours, theirs, "w")
        if name == "fm" then compare(our_v, their_v, "v") end
        local ffi = require "ffi"
        local C = require "moonrock.ffi"
        compare({ C.mr_param_data(model.params[1].c)[0] }, { bias.w }, "bias")
        assert.equal(#theirs, tonumber(ffi.new("double", features:rows())))
        model:close()
        os.remove(path)
      end)
    end
  end
end)

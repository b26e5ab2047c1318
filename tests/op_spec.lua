-- Every operation and layer: results against their definition computed in Lua's doubles. What is said of
-- wrong ones is in op_errors_spec.lua.
local ffi = require "ffi"
local mr = require "moonrock"
local C = require "moonrock.ffi"
local layers = require "moonrock.layers"
local pool = require "moonrock.pool"
local tape = require "moonrock.tape"
local batches = require "tests.support.batches"
local model = require "tests.support.params"
local shell = require "tests.support.shell"

local function close(expected, actual, tolerance, what)
  local scale = math.max(1, math.abs(expected))
  if not (math.abs(expected - actual) <= tolerance * scale) then
    error(("%s: expected %.9g, got %.9g"):format(what or "", expected, actual), 2)
  end
  assert(true) -- it was compared
end

describe("results of", function()
  local t
  before_each(function()
    t = tape.new { seed = 3 }
    t:begin(true, 1)
  end)
  after_each(function() t:free() end)

  -- Rows of a batch as a function of (unique, k), in order of the keys.
  local function value(u, k) return math.sin(u * 13.7 + k * 1.3) end

  local function bound(batch, unique, dim, on)
    local data = ffi.new("double[?]", unique * dim)
    for u = 0, unique - 1 do
      for k = 0, dim - 1 do data[u * dim + k] = value(u, k) end
    end
    local lookup = C.mr_tape_lookup(on.c, batch.c, ffi.new("int32_t[1]", dim), 1, data, unique)
    assert(lookup >= 0, ffi.string(C.mr_error()))
    local column = pool.column("given", "v", 0, dim)
    pool.bind(column, on, lookup)
    return column
  end

  -- So many different numbers.
  local function list(n, phase)
    local values = {}
    for i = 1, n do values[i] = math.sin(i * 1.7 + phase) end
    return values
  end

  -- f(s, x, u, field) for every entry.
  local function entries(batch, f)
    local order, keys = {}, {}
    local c = batch.c
    for e = 0, c.entries - 1 do
      local key = tonumber(c.keys[e])
      if not order[key] then
        order[key] = true
        keys[#keys + 1] = key
      end
    end
    table.sort(keys)
    for u, key in ipairs(keys) do order[key] = u - 1 end
    for s = 0, c.n - 1 do
      for e = c.offsets[s], c.offsets[s + 1] - 1 do
        local field = c.field ~= nil and c.field[e] or e - c.offsets[s]
        f(s, c.values ~= nil and c.values[e] or 1, order[tonumber(c.keys[e])], field)
      end
    end
  end

  it("pooling agree with their definition", function()
    for _, make in ipairs { batches.sets, batches.fielded, batches.valued, batches.large } do
      local batch, unique = make()
      local n = batch.c.n
      for _, dim in ipairs { 1, 3, 16, 33 } do
        t:begin(true, 1)
        local column = bound(batch, unique, dim, t)
        local sum, square, count, by_field = {}, {}, {}, {}
        for i = 0, n * dim - 1 do sum[i], square[i] = 0, 0 end
        for s = 0, n - 1 do count[s] = 0 end
        entries(batch, function(s, x, u, field)
          count[s] = count[s] + 1
          for k = 0, dim - 1 do
            local xv = x * value(u, k)
            sum[s * dim + k] = sum[s * dim + k] + xv
            square[s * dim + k] = square[s * dim + k] + xv * xv
            local at = (s * math.max(1, batch.c.fields) + field) * dim + k
            by_field[at] = (by_field[at] or 0) + xv
          end
        end)
        local pooled, mean, fm = column:sum(), column:mean(), mr.fm(column)
        local bi = mr.bi_interaction(column)
        for s = 0, n - 1 do
          local pair = 0
          for k = 0, dim - 1 do
            local at = s * dim + k
            pair = pair + 0.5 * (sum[at] ^ 2 - square[at])
            close(sum[at], pooled:get(s + 1, k + 1), 1e-5, "sum")
            close(count[s] > 0 and sum[at] / count[s] or 0, mean:get(s + 1, k + 1), 1e-5, "mean")
          end
          close(pair, fm:get(s + 1, 1), 1e-4, "fm") -- a difference of two sums of floats
          for k = 0, dim - 1 do
            local at = s * dim + k
            close(0.5 * (sum[at] ^ 2 - square[at]), bi:get(s + 1, k + 1), 1e-5, "bi_interaction")
          end
        end
        if batch.c.fields > 0 then
          local fields = column:fields()
          for s = 0, n - 1 do
            for f = 0, batch.c.fields - 1 do
              for k = 0, dim - 1 do
                close(by_field[(s * batch.c.fields + f) * dim + k] or 0,
                  fields:get(s + 1, f + 1, k + 1), 1e-5, "fields")
              end
            end
          end
        end
      end
    end
  end)

  it("the field-aware interaction agree with its definition", function()
    for _, make in ipairs { batches.fielded, batches.valued, batches.crowded, batches.large } do
      local batch, unique = make()
      local fields = batch.c.fields
      for _, k in ipairs { 1, 3, 4, 16 } do
        t:begin(true, 1)
        local samples = {}
        for s = 0, batch.c.n - 1 do samples[s] = {} end
        entries(batch, function(s, x, u, field)
          table.insert(samples[s], { x = x, u = u, field = field })
        end)
        local out = mr.ffm(bound(batch, unique, fields * k, t), fields)
        for s = 0, batch.c.n - 1 do
          local sum = 0
          for i, one in ipairs(samples[s]) do
            for j = i + 1, #samples[s] do
              local other = samples[s][j]
              for q = 0, k - 1 do
                sum = sum + one.x * other.x * value(one.u, other.field * k + q)
                  * value(other.u, one.field * k + q)
              end
            end
          end
          close(sum, out:get(s + 1, 1), 1e-5, "ffm")
        end
      end
    end
  end)

  -- Numbers and the tensor of them, and its elements by place from 0.
  local function made(shape, phase)
    local count = 1
    for _, d in ipairs(shape) do count = count * d end
    local values = {}
    for i = 1, count do values[i] = math.sin(i * 1.7 + phase) end
    return layers.tensor(shape, values), function(a, b, c)
      return values[((a or 0) * shape[2] + (b or 0)) * (shape[3] or 1) + (c or 0) + 1]
    end
  end

  it("products of pairs agree with their definition", function()
    local n, fields, others, dim = 70, 21, 18, 5
    local x, at = made({ n, fields, dim }, 0)
    local y, yat = made({ n, others, dim }, 1)
    local r, weight = made({ fields * (fields - 1) / 2, 1 }, 2)
    local own, both, weighted = mr.inner_products(x), mr.inner_products(x, y), mr.fwfm(x, r)
    local function dot(s, i, other, j)
      local sum = 0
      for k = 0, dim - 1 do sum = sum + at(s, i, k) * other(s, j, k) end
      return sum
    end
    for s = 0, n - 1 do
      local pair, sum = 0, 0
      for i = 0, fields - 1 do
        for j = i + 1, fields - 1 do
          sum = sum + weight(pair) * dot(s, i, at, j)
          pair = pair + 1
          close(dot(s, i, at, j), own:get(s + 1, pair), 1e-5)
        end
        for j = 0, others - 1 do
          close(dot(s, i, yat, j), both:get(s + 1, i * others + j + 1), 1e-5)
        end
      end
      close(sum, weighted:get(s + 1, 1), 1e-5)
    end
    local s, sat = made({ n, dim }, 0)
    local outer = mr.outer_products(s)
    close(sat(3, 1) * sat(3, 4), outer:get(4, 2, 5), 1e-6)
  end)

  it("cross networks and compressed interactions agree with their definition", function()
    local n, fields, dim = 33, 3, 4
    local d = fields * dim
    local x, at = made({ n, fields, dim }, 0)
    local m = model()
    local vector, matrix = mr.cross_network(m, "v", d, 2, { kind = "vector" }), mr.cross_network(m, "m", d, 2)
    local low, cin = mr.cross_network(m, "l", d, 1, { rank = 2 }), mr.cin(m, "c", fields, { 5, 2 })
    for _, p in pairs(m.params) do -- biases that are not 0
      for i = 0, p:size() - 1 do C.mr_param_data(p.c)[i] = math.cos(i * 2.3 + #p.name) end
    end
    local function weight(name, i, j)
      local p = m.params[name]
      return p:weight(i * (p.shape[2] or 1) + (j or 0) + 1)
    end
    local v, f, l, c = vector(x), matrix(x), low(x), cin(x)
    for s = 0, n - 1 do
      local x0, xv, xm = {}, {}, {}
      for i = 0, d - 1 do
        x0[i] = at(s, math.floor(i / dim), i % dim)
        xv[i], xm[i] = x0[i], x0[i]
      end
      for layer = 1, 2 do
        local dot, next_m = 0, {}
        for i = 0, d - 1 do dot = dot + xv[i] * weight(("v.%d.w"):format(layer), i) end
        for i = 0, d - 1 do
          xv[i] = x0[i] * dot + weight(("v.%d.b"):format(layer), i) + xv[i]
          local z = weight(("m.%d.b"):format(layer), i)
          for j = 0, d - 1 do z = z + xm[j] * weight(("m.%d.w"):format(layer), j, i) end
          next_m[i] = x0[i] * z + xm[i]
        end
        xm = next_m
      end
      for i = 0, d - 1 do
        local z = weight("l.1.b", i)
        for j = 0, d - 1 do
          for q = 0, 1 do z = z + x0[j] * weight("l.1.v", j, q) * weight("l.1.u", q, i) end
        end
        close(xv[i], v:get(s + 1, i + 1), 1e-4, "vector")
        close(xm[i], f:get(s + 1, i + 1), 1e-4, "matrix")
        close(x0[i] * z + x0[i], l:get(s + 1, i + 1), 1e-4, "low rank")
      end
      local rows, sizes, place = { [0] = {} }, { [0] = fields, 5, 2 }, 0
      for i = 0, fields - 1 do
        for k = 0, dim - 1 do rows[0][i * dim + k] = at(s, i, k) end
      end
      for layer = 1, 2 do
        rows[layer] = {}
        for o = 0, sizes[layer] - 1 do
          local sum = 0
          for k = 0, dim - 1 do
            local one = 0
            for i = 0, sizes[layer - 1] - 1 do
              for j = 0, fields - 1 do
                one = one + weight(("c.%d.w"):format(layer), i * fields + j, o)
                  * rows[layer - 1][i * dim + k] * at(s, j, k)
              end
            end
            rows[layer][o * dim + k] = one
            sum = sum + one
          end
          place = place + 1
          close(sum, c:get(s + 1, place), 1e-4, "cin")
        end
      end
    end
  end)

  it("every other way to pool agree with their definition", function()
    for _, make in ipairs { batches.sets, batches.fielded, batches.valued, batches.large } do
      local batch, unique = make()
      for _, dim in ipairs { 1, 17 } do
        t:begin(true, 1)
        local column = bound(batch, unique, dim, t)
        for _, by_field in ipairs(batch.c.fields > 0 and { false, true } or { false }) do
          local rows, width = {}, by_field and batch.c.fields or 1
          for r = 0, batch.c.n * width - 1 do rows[r] = { n = 0, x = 0, xx = 0, sum = {}, max = {} } end
          entries(batch, function(s, x, u, field)
            local row = rows[s * width + (by_field and field or 0)]
            row.n, row.x, row.xx = row.n + 1, row.x + x, row.xx + x * x
            for k = 0, dim - 1 do
              local xv = x * value(u, k)
              row.sum[k], row.max[k] = (row.sum[k] or 0) + xv, math.max(row.max[k] or -math.huge, xv)
            end
          end)
          for how, of in pairs {
            sum = function(row, k) return row.sum[k] end, mean = function(row, k) return row.sum[k] / row.n end,
            sqrtn = function(row, k) return row.sum[k] / math.sqrt(row.xx) end,
            weighted_mean = function(row, k) return row.x == 0 and 0 or row.sum[k] / row.x end,
            max = function(row, k) return row.max[k] end,
          } do
            local y = by_field and column:fields(how) or column[how](column)
            y = y:reshape(batch.c.n * width, dim)
            for r, row in pairs(rows) do
              for k = 0, dim - 1, 4 do
                close(row.n == 0 and 0 or of(row, k), y:get(r + 1, k + 1), 2e-5, how)
              end
            end
          end
        end
      end
    end
  end)

  it("max the first of equal entries, whose gradient it gets alone", function()
    for _, keys in ipairs { { 1, 2 }, { 2, 1 } } do
      local batch = batches.build({ { { keys[1] }, { keys[2] } } }, {})
      t:begin(true, 1)
      local rows = ffi.new("double[4]", { 3, 5, 3, 5 })
      local lookup = C.mr_tape_lookup(t.c, batch.c, ffi.new("int32_t[1]", 2), 1, rows, 2)
      local column = pool.column("given", "v", 0, 2)
      pool.bind(column, t, lookup)
      column:max():sum():backward()
      for key = 1, 2 do
        for k = 0, 1 do
          assert.equal(key == keys[1] and 1 or 0, C.mr_tape_lookup_gradient(t.c, lookup, 2 * (key - 1) + k))
        end
      end
    end
  end)

  it("the sequence of a field, and its mask", function()
    local batch, unique = batches.valued() -- field 2 of sample 1 has keys 11 and 12, of sample 3 key 11
    t:begin(true, 1)
    local keys, mask = bound(batch, unique, 2, t):sequence(2, 3, true)
    local u11, u12 = 2, 3 -- of 1, 2, 11, 12
    close(-2 * value(u11, 1), keys:get(1, 1, 2), 1e-6)
    close(1.5 * value(u12, 0), keys:get(1, 2, 1), 1e-6)
    close(0.25 * value(u11, 0), keys:get(3, 1, 1), 1e-6)
    local seen = {}
    for s = 1, 3 do
      for i = 1, 3 do
        seen[#seen + 1] = mask:get(s, i)
        if mask:get(s, i) == 0 then assert.equal(0, keys:get(s, i, 1)) end
      end
    end
    assert.same({ 1, 1, 0, 0, 0, 0, 1, 0, 0 }, seen)
    local first = bound(batch, unique, 2, t):sequence(2, 1)
    close(-2 * value(u11, 1), first:get(1, 1, 2), 1e-6)
  end)

  it("attention agree with its definition", function()
    local m = model()
    local n, f, d, heads = 2, 3, 4, 2
    local attend = mr.multi_head_attention(m, "a", d, { heads = heads })
    local xs = list(n * f * d, 0)
    local y = attend(layers.tensor({ n, f, d }, xs), layers.tensor({ n, f }, { 1, 1, 1, 1, 1, 0 }))
    local function project(s, i, part, column)
      local sum = 0
      for k = 1, d do
        sum = sum + xs[((s - 1) * f + i - 1) * d + k] * m.params["a." .. part]:weight((k - 1) * d + column)
      end
      return sum
    end
    for s = 1, n do
      for i = 1, f do
        for column = 1, d do
          local head = math.floor((column - 1) / 2)
          local total, mixed = 0, 0
          for j = 1, s == 2 and 2 or f do
            local dot = 0
            for k = head * 2 + 1, head * 2 + 2 do dot = dot + project(s, i, "query", k) * project(s, j, "key", k) end
            local e = math.exp(dot / math.sqrt(2))
            total, mixed = total + e, mixed + e * project(s, j, "value", column)
          end
          close(math.max(0, mixed / total + project(s, i, "residual", column)), y:get(s, i, column), 1e-5)
        end
      end
    end
  end)

  it("attention on a sequence is nothing without keys, and does not see what is masked", function()
    local m = model()
    local pooled = mr.attention_pool(m, "a", 2, { activation = "relu", weights = "softmax" })
    local target, mask = layers.tensor({ 2, 2 }, { 1, 2, 3, 4 }), layers.tensor({ 2, 2 }, { 1, 0, 0, 0 })
    local y = pooled(target, layers.tensor({ 2, 2, 2 }, { 5, 6, 100, 100, 1, 1, 1, 1 }), mask)
    assert.same({ 5, 6, 0, 0 }, { y:get(1, 1), y:get(1, 2), y:get(2, 1), y:get(2, 2) })
  end)

  it("layer norm, prelu and dice agree with their definition", function()
    local m = model()
    local x = { 1, 2, 6, -3, 0, 9 }
    local y = mr.layer_norm(m, "norm", 3)(layers.tensor({ 2, 3 }, x))
    close((6 - 3) / math.sqrt((4 + 1 + 9) / 3 + 1e-5), y:get(1, 3), 1e-5)
    close((-3 - 2) / math.sqrt((25 + 4 + 49) / 3 + 1e-5), y:get(2, 1), 1e-5)
    y = mr.prelu(m, "p", 3)(layers.tensor({ 2, 3 }, x))
    assert.same({ 1, -0.75, 9 }, { y:get(1, 1), y:get(2, 1), y:get(2, 3) })
    y = mr.dice(m, "dice", 3)(layers.tensor({ 2, 3 }, x)) -- alpha 0: p a; columns of two are at -1 and 1
    close(1 / (1 + math.exp(-1)), y:get(1, 1), 1e-5)
    close(-3 / (1 + math.exp(1)), y:get(2, 1), 1e-5)
  end)

  it("a linear layer agree with their definition", function()
    local n, inputs = 300, 40
    for _, outputs in ipairs { 1, 24 } do
      local xs, ws, bs = list(n * inputs, 0), list(inputs * outputs, 1), list(outputs, 2)
      local x = layers.tensor({ n, inputs }, xs)
      local w, b = layers.tensor({ inputs, outputs }, ws), layers.tensor({ outputs }, bs)
      local y = layers.affine(x, w, b, "relu")
      for s = 1, n do
        for j = 1, outputs do
          local z = bs[j]
          for i = 1, inputs do z = z + xs[(s - 1) * inputs + i] * ws[(i - 1) * outputs + j] end
          close(math.max(z, 0), y:get(s, j), 1e-5)
        end
      end
    end
  end)

  -- Samples are cut into pieces of several sizes, by their number.
  it("a linear layer and its gradients agree with their definition for any number of samples", function()
    local inputs, outputs = 3, 2
    local ws, bs = list(inputs * outputs, 1), list(outputs, 2)
    for _, n in ipairs { 1, 127, 128, 129, 1023, 1024, 1025, 1100, 1281, 1409, 1473, 2047, 2048 } do
      local what = n .. " samples"
      local xs, gs = list(n * inputs, n), list(n * outputs, n + 1)
      local x, w = layers.tensor({ n, inputs }, xs, true), layers.tensor({ inputs, outputs }, ws, true)
      local b = layers.tensor({ outputs }, bs, true)
      local y = layers.affine(x, w, b, "relu")
      local dw, db = {}, {}
      for i = 1, inputs * outputs do dw[i] = 0 end
      for j = 1, outputs do db[j] = 0 end
      local zs = {}
      for s = 1, n do
        for j = 1, outputs do
          local z = bs[j]
          for i = 1, inputs do z = z + xs[(s - 1) * inputs + i] * ws[(i - 1) * outputs + j] end
          close(math.max(z, 0), y:get(s, j), 1e-5, what)
          local dz = z > 0 and gs[(s - 1) * outputs + j] or 0
          zs[(s - 1) * outputs + j] = dz
          db[j] = db[j] + dz
          for i = 1, inputs do
            local at = (i - 1) * outputs + j
            dw[at] = dw[at] + xs[(s - 1) * inputs + i] * dz
          end
        end
      end
      (y * layers.tensor({ n, outputs }, gs)):sum():backward()
      for s = 1, n do
        for i = 1, inputs do
          local dx = 0
          for j = 1, outputs do dx = dx + zs[(s - 1) * outputs + j] * ws[(i - 1) * outputs + j] end
          close(dx, x:gradient((s - 1) * inputs + i), 1e-5, what)
        end
      end
      for i = 1, inputs * outputs do close(dw[i], w:gradient(i), 1e-4, what) end
      for j = 1, outputs do close(db[j], b:gradient(j), 1e-4, what) end
      t:reset()
      t:begin(true, 1)
    end
  end)

  it("exp, tanh, the sigmoid and gelu are good to a float", function()
    local xs = { 0, 1e-7, -1e-7, 1e-3, -1e-3, 20, -20, 88.7, -87, -100, 200, -200 }
    for x = -12, 12, 0.0371 do xs[#xs + 1] = x end
    for i, x in ipairs(xs) do xs[i] = tonumber(ffi.cast("float", x)) end
    local x = layers.tensor({ #xs }, xs)
    local e, th, s, g = x:exp(), x:tanh(), x:sigmoid(), x:gelu()
    for i, v in ipairs(xs) do
      local expected = math.exp(v)
      if v > 89 then assert.equal(math.huge, e:get(i))
      elseif v >= -87 then assert.is_true(math.abs(e:get(i) / expected - 1) < 2e-7, "exp of " .. v)
      else assert.is_true(math.abs(e:get(i) - expected) < 2e-45, "exp of " .. v) end
      assert.is_true(math.abs(th:get(i) - math.tanh(v)) <= 3e-7 * math.abs(math.tanh(v)), "tanh of " .. v)
      close(1 / (1 + math.exp(-v)), s:get(i), 2e-7, "sigmoid of " .. v)
      -- by the other definition, P(a) = 1/2 + int_0^a exp(-t^2 / 2) / sqrt(2 pi), in Simpson's sum
      local sum, steps = 0, 400
      for k = 0, steps do
        local at = v * k / steps
        sum = sum + math.exp(-at * at / 2) * ((k == 0 or k == steps) and 1 or k % 2 == 1 and 4 or 2)
      end
      if math.abs(v) < 12 then
        close(v * (0.5 + sum * v / steps / 3 / math.sqrt(2 * math.pi)), g:get(i), 4e-7, "gelu of " .. v)
      end
    end
    local bad = layers.tensor({ 1 }, { 0 / 0 })
    for _, name in ipairs { "exp", "tanh", "sigmoid", "gelu", "silu" } do
      local y = bad[name](bad):get(1)
      assert.is_true(y ~= y, name .. " loses a NaN")
    end
  end)

  it("softmax neither overflow nor divide by nothing", function()
    local y = layers.tensor({ 2, 3 }, { 1000, 1001, -1000, 5, 5, 5 })
    close(1 / (1 + math.exp(1)), y:softmax():get(1, 1), 1e-6)
    assert.equal(0, y:softmax():get(1, 3))
    local masked = y:softmax(layers.tensor({ 2, 3 }, { 0, 0, 1, 0, 0, 0 }))
    assert.same({ 0, 0, 1, 0, 0, 0 }, { masked:get(1, 1), masked:get(1, 2), masked:get(1, 3),
      masked:get(2, 1), masked:get(2, 2), masked:get(2, 3) })
    local bad = layers.tensor({ 2, 2 }, { 1, 0 / 0, 1, 1 }):softmax()
    assert.is_true(bad:get(1, 1) ~= bad:get(1, 1))
    assert.equal(0.5, bad:get(2, 1))
  end)

  it("what moves or adds up elements along an axis", function()
    local dims = { 2, 3, 4 }
    local values = list(24, 0)
    local function at(i, j, k) return values[((i - 1) * 3 + j - 1) * 4 + k] end
    local a = layers.tensor(dims, values)
    local turned, cut = a:transpose(1, 3), a:slice(2, 2, 3)
    local long, stacked = mr.concat({ a, cut }, 2), mr.stack({ a, a * 2 }, 3)
    local sum, mean, most = a:sum(2), a:mean(2, true), a:max(2)
    for i = 1, 2 do
      for k = 1, 4 do
        local expected = at(i, 1, k) + at(i, 2, k) + at(i, 3, k)
        close(expected, sum:get(i, k), 1e-6)
        close(expected / 3, mean:get(i, 1, k), 1e-6)
        close(math.max(at(i, 1, k), at(i, 2, k), at(i, 3, k)), most:get(i, k), 1e-6)
        for j = 1, 3 do
          close(at(i, j, k), turned:get(k, j, i), 1e-6)
          close(at(i, j, k), long:get(i, j, k), 1e-6)
          close(2 * at(i, j, k), stacked:get(i, j, 2, k), 1e-6)
          if j > 1 then
            close(at(i, j, k), cut:get(i, j - 1, k), 1e-6)
            close(at(i, j, k), long:get(i, j + 2, k), 1e-6)
          end
        end
      end
    end
    local p = mr.pairs(a)
    close(at(2, 1, 3) * at(2, 2, 3), p:get(2, 1, 3), 1e-6)
    close(at(2, 1, 3) * at(2, 3, 3), p:get(2, 2, 3), 1e-6)
    close(at(2, 2, 3) * at(2, 3, 3), p:get(2, 3, 3), 1e-6)
  end)

  it("max the first of the largest, and its gradient there alone", function()
    local a = layers.tensor({ 2, 3 }, { 1, 4, 4, 7, 2, 7 }, true)
    a:max(2):sum():backward()
    assert.same({ 0, 1, 0, 1, 0, 0 }, { a:gradient(1), a:gradient(2), a:gradient(3), a:gradient(4),
      a:gradient(5), a:gradient(6) })
    local bad = layers.tensor({ 3 }, { 0 / 0, 2, 1 }):max(1):value()
    assert.is_true(bad ~= bad)
  end)

  it("products of matrices agree with their definition, small and large", function()
    for _, s in ipairs { { 3, 20, 7, 39 }, { 2, 97, 101, 99 } } do
      local n, a, b, c = unpack(s)
      local xs, ys = list(n * a * b, 0), list(n * b * c, 1)
      local x, y = layers.tensor({ n, a, b }, xs, true), layers.tensor({ n, b, c }, ys, true)
      local z, across = x:matmul(y), x:matmul(y:transpose(2, 3), true)
      for i = 1, n, n - 1 do
        for j = 1, a, 3 do
          for l = 1, c, 5 do
            local sum = 0
            for k = 1, b do sum = sum + xs[((i - 1) * a + j - 1) * b + k] * ys[((i - 1) * b + k - 1) * c + l] end
            close(sum, z:get(i, j, l), 1e-5)
            close(sum, across:get(i, j, l), 1e-5)
          end
        end
      end
      z:sum():backward()
      local sum = 0
      for l = 1, c do sum = sum + ys[c + l] end
      close(sum, x:gradient(2), 1e-5)
      sum = 0
      for j = 1, a do sum = sum + xs[(j - 1) * b + 2] end
      close(sum, y:gradient(c + 5), 1e-5)
    end
  end)

  it("BCE neither overflow nor lose what is small", function()
    local z = layers.tensor({ 4 }, { 1000, -1000, 1000, -30 })
    local y = layers.tensor({ 4 }, { 1, 0, 0, 0 })
    close((0 + 0 + 1000 + math.exp(-30)) / 4, mr.bce(z, y):value(), 1e-6)
    local tiny = layers.tensor({ 1 }, { -30 })
    close(1, mr.bce(tiny, layers.tensor({ 1 }, { 0 })):value() / math.exp(-30), 1e-6)
  end)

  -- Numbers of a sequence, in float.
  local function numbers(n, f)
    local values = {}
    for i = 1, n do values[i] = tonumber(ffi.cast("float", f(i))) end
    return values
  end

  local function softplus(x) return math.max(x, 0) + math.log(1 + math.exp(-math.abs(x))) end

  it("losses agree with their definition", function()
    local n = 1500
    local a = numbers(n, function(i) return 4 * math.sin(i * 1.7) end)
    local w = numbers(n, function(i) return i % 4 end)
    local y = numbers(n, function(i) return math.floor(3 + 3 * math.cos(i * 2.3)) end)
    local b = numbers(n, function(i) return y[i] > 3 and 1 or 0 end)
    local p = numbers(n, function(i) return i % 8 / 8 end)
    local function mean(f)
      local sum = 0
      for i = 1, n do sum = sum + w[i] * f(i) end
      return sum / n
    end
    local function of(loss, labels, o)
      o.weight = layers.tensor({ n }, w)
      return loss(layers.tensor({ n, 1 }, a), layers.tensor({ n }, labels), o):value()
    end
    close(mean(function(i)
      local y_s = 0.9 * p[i] + 0.05
      return 3 * y_s * softplus(-a[i]) + (1 - y_s) * softplus(a[i])
    end), of(mr.bce, p, { label_smoothing = 0.1, pos_weight = 3 }), 1e-6)
    close(mean(function(i) return math.abs(a[i] - y[i]) end), of(mr.mae, y, {}), 1e-6)
    close(mean(function(i)
      local r = math.abs(a[i] - y[i])
      return r <= 1.5 and r * r / 2 or 1.5 * (r - 0.75)
    end), of(mr.huber, y, { delta = 1.5 }), 1e-6)
    close(mean(function(i) return math.max(0, 1 - (b[i] > 0 and a[i] or -a[i])) end),
      of(mr.hinge, b, {}), 1e-6)
    close(mean(function(i) return math.exp(a[i]) - y[i] * a[i] end), of(mr.poisson, y, {}), 1e-6)
    close(mean(function(i) return math.max(0.9 * (y[i] - a[i]), 0.1 * (a[i] - y[i])) end),
      of(mr.quantile, y, { q = 0.9 }), 1e-6)
    close(mean(function(i) return softplus(y[i] - a[i]) end), of(mr.bpr, y, {}), 1e-6)
  end)

  it("cross-entropy agree with its definition, far from 0 too", function()
    local n, c = 200, 7
    local z = numbers(n * c, function(i) return 300 * math.sin(i * 1.1) end)
    local y = numbers(n, function(i) return i % c end)
    local expected = 0
    for s = 1, n do
      local top, sum = -math.huge, 0
      for j = 1, c do top = math.max(top, z[(s - 1) * c + j]) end
      for j = 1, c do sum = sum + math.exp(z[(s - 1) * c + j] - top) end
      for j = 1, c do
        local y_sj = 0.7 * (y[s] == j - 1 and 1 or 0) + 0.3 / c
        expected = expected + y_sj * (top + math.log(sum) - z[(s - 1) * c + j]) / n
      end
    end
    close(expected, mr.cross_entropy(layers.tensor({ n, c }, z), layers.tensor({ n }, y),
      { label_smoothing = 0.3 }):value(), 1e-6)
  end)

  it("pairwise and listwise losses agree with their definition", function()
    local n, groups = 300, 23
    local a = numbers(n, function(i) return 3 * math.sin(i * 1.7) end)
    local w = numbers(n, function(i) return 1 + i % 3 end)
    local y = numbers(n, function(i) return math.max(0, math.floor(3 * math.cos(i * 2.3))) end)
    local g = numbers(n, function(i) return i * i % groups end)
    local sum, pairs_count = 0, 0
    for i = 1, n do
      for j = 1, n do
        if g[i] == g[j] and y[i] > y[j] then
          sum, pairs_count = sum + w[i] * w[j] * softplus(a[j] - a[i]), pairs_count + 1
        end
      end
    end
    local lists, counted = 0, 0
    for k = 0, groups - 1 do
      local labels, total, loss = 0, 0, 0
      for i = 1, n do
        if g[i] == k then labels, total = labels + y[i], total + math.exp(a[i]) end
      end
      for i = 1, n do
        if g[i] == k then loss = loss + w[i] * y[i] * (math.log(total) - a[i]) end
      end
      if labels > 0 then lists, counted = lists + loss / labels, counted + 1 end
    end
    local o = { group = layers.tensor({ n }, g), weight = layers.tensor({ n }, w) }
    local score, label = layers.tensor({ n }, a), layers.tensor({ n }, y)
    close(sum / pairs_count, mr.pairwise(score, label, o):value(), 1e-6)
    close(lists / counted, mr.listwise(score, label, o):value(), 1e-6)
    assert.equal(0, mr.pairwise(score, score * 0):value())
    assert.equal(0, mr.listwise(score, score * 0):value())
  end)

  it("lists without a label count for nothing", function()
    local function loss(scores, labels, groups)
      t:begin(true, 1)
      return mr.listwise(layers.tensor({ #scores, 1 }, scores), layers.tensor({ #scores }, labels),
        { group = layers.tensor({ #scores }, groups) }):value()
    end
    close(loss({ 1, 2 }, { 1, 0 }, { 1, 1 }), loss({ 1, 2, 0.5, 3 }, { 1, 0, 0, 0 }, { 1, 1, 2, 2 }), 1e-6)
    assert.equal(0, loss({ 1, 2 }, { 0, 0 }, { 1, 1 }))
  end)

  it("the softmax over a batch's items agree with its definition", function()
    local n, d = 333, 5 -- more than two tiles each way
    local u = numbers(n * d, function(i) return math.sin(i * 1.7) end)
    local v = numbers(n * d, function(i) return math.cos(i * 2.9) end)
    local id = numbers(n, function(i) return i * i % 41 end)
    local q = numbers(n, function(i) return -(i % 5) end)
    local y = numbers(n, function(i) return i % 3 == 0 and 0 or 1 end)
    local expected = 0
    for i = 1, n do
      local sum, own = 0, nil
      for j = 1, n do
        local s = 0
        for k = 1, d do s = s + u[(i - 1) * d + k] * v[(j - 1) * d + k] end
        s = s / 0.2 - q[j]
        if i == j then own = s end
        if i == j or id[i] ~= id[j] then sum = sum + math.exp(s) end
      end
      expected = expected + y[i] * (math.log(sum) - own) / n
    end
    close(expected, mr.in_batch_softmax(layers.tensor({ n, d }, u), layers.tensor({ n, d }, v), {
      id = layers.tensor({ n }, id), log_q = layers.tensor({ n }, q), label = layers.tensor({ n }, y),
      temperature = 0.2 }):value(), 1e-5)
  end)

  it("keys of a field are equal where the keys are", function()
    local batch = batches.fielded()
    local keys = batch:keys(1)
    local number = layers.tensor({ 3 }, { 0, 0, 0 }) + keys
    assert.equal(number:get(1), number:get(3))
    assert.not_equal(number:get(1), number:get(2))
    assert.equal(keys, batch:keys(1))
  end)

  it("frequencies follow the steps between sightings", function()
    local m = model()
    local frequency = mr.frequency(m, "seen", { buckets = 1009, rate = 0.25 })
    local function one(key) return batches.build({ { { key } } }, { fields = 1 }):keys(1) end
    local function at(step, key, training)
      t:begin(training ~= false, step)
      return math.exp(-frequency(one(key)):value())
    end
    close(4, at(4, 7), 1e-6)                       -- first seen in step 4
    close(4, at(4, 7), 1e-6)                       -- once a step
    close(4 + 0.25 * (10 - 4), at(14, 7), 1e-6)
    close(5.5, at(20, 7, false), 1e-6)             -- evaluation only looks
    close(5.5 + 0.25 * (6 - 5.5), at(20, 7), 1e-6)
    close(1, at(1, 8, false), 1e-6)                -- never seen
    local last = 2 ^ 24 - 2 -- steps beyond the whole numbers of a float
    close(last, at(last, 9), 1e-6)
    close(last + 0.25 * (8 - last), at(last + 8, 9), 1e-6)
    local twice = batches.build({ { { 5 } }, { { 5 } } }, { fields = 1 }):keys(1)
    t:begin(true, 4)
    frequency(twice)
    t:begin(true, 10)
    close(4 + 0.25 * (6 - 4), math.exp(-frequency(twice):get(2)), 1e-6) -- two samples, one step
  end)

  it("dropout keep the expectation, repeat for a step, and change with it", function()
    local n = 100000
    local function drawn(step)
      t:begin(true, step)
      local ones = {}
      for i = 1, n do ones[i] = 1 end
      local out = mr.dropout(layers.tensor({ n }, ones), 0.3)
      local kept = {}
      for i = 1, n do kept[i] = out:get(i) end
      return kept
    end
    local a, b, c = drawn(1), drawn(1), drawn(2)
    local sum, same = 0, 0
    for i = 1, n do
      sum = sum + a[i]
      assert.equal(a[i], b[i])
      if a[i] == c[i] then same = same + 1 end
    end
    -- five standard deviations of a mean of n draws, each of deviation sqrt(0.3 / 0.7)
    close(1, sum / n, 5 * math.sqrt(0.3 / 0.7 / n))
    close(0.7 ^ 2 + 0.3 ^ 2, same / n, 5 * math.sqrt(0.25 / n))
    t:begin(true, 1)
    local ones, both = {}, 0
    for i = 1, 10000 do ones[i] = 1 end
    local tensor = layers.tensor({ 10000 }, ones)
    local first, second = mr.dropout(tensor, 0.3), mr.dropout(tensor, 0.3)
    for i = 1, 10000 do both = both + (first:get(i) == second:get(i) and 1 or 0) end
    close(0.7 ^ 2 + 0.3 ^ 2, both / 10000, 5 * math.sqrt(0.25 / 10000)) -- two of a step
    t:begin(false, 1)
    local x = layers.tensor({ 2 }, { 1, 2 })
    assert.equal(2, mr.dropout(x, 0.3):get(2))
  end)

  it("batch norm use the batch in training, running statistics otherwise", function()
    local m = model()
    local norm = mr.batch_norm(m, "norm", 2, { momentum = 0.25 })
    local x = { 1, 10, 2, 30, 6, 20 }
    local y = norm(layers.tensor({ 3, 2 }, x, true))
    local mean, variance = 3, (4 + 1 + 9) / 3
    close((6 - mean) / math.sqrt(variance + 1e-5), y:get(3, 1), 1e-5)
    assert.equal(0, m.params["norm.mean"]:weight(1)) -- only looked at
    y:sum():backward()
    y:sum():backward()
    close(0.25 * mean, m.params["norm.mean"]:weight(1), 1e-6)
    close(0.75 + 0.25 * variance * 3 / 2, m.params["norm.variance"]:weight(1), 1e-6)
    t:begin(false, 1)
    local z = norm(layers.tensor({ 1, 2 }, { 6, 20 }))
    close((6 - 0.75) / math.sqrt(0.75 + 0.25 * 7 + 1e-5), z:get(1, 1), 1e-5)
  end)

  it("all of them are the same to the bit at one thread and two", function()
    local function run(threads)
      C.mr_threads_set(threads)
      local batch, unique = batches.large()
      t:begin(true, 1)
      local m = model()
      local bi = mr.linear(m, "bi", 15, 1)
      local cross = mr.cross_network(m, "cross", 75, 2)
      local narrow = mr.cross_network(m, "narrow", 75, 2, { kind = "vector" })
      local cin, out = mr.cin(m, "cin", 5, { 6, 4 }), mr.linear(m, "out", 170, 1)
      local function rest(x)
        return out(mr.concat(cross(x), narrow(x), cin(x), mr.inner_products(x)))
      end
      local deep = mr.mlp(m, "deep", batch.c.fields * 15, { 64, 1 }, { batch_norm = true, dropout = 0.1 })
      local v = bound(batch, unique, 15, t)
      local fields = v:fields()
      local first = bi(mr.bi_interaction(v)) + rest(fields) + mr.fm(v) * 0.01 + mr.ffm(v, 5) * 0.1
      local scores = fields:matmul(fields, true):softmax():matmul(fields) * (fields:mean(1) + 1)
      local attend = mr.multi_head_attention(m, "attend", 15, { heads = 3, layer_norm = true })
      local keys, mask = v:sequence(2, 3)
      local seen = mr.attention_pool(m, "seen", 15, { weights = "softmax" })(v:weighted_mean(), keys, mask)
      local mixed = mr.mmoe(m, "mixed", 15, { tasks = 1 })(seen + v:max() + mr.pairs(fields):sum(2)):sum(3)
      fields = mr.squeeze_excitation(m, "squeeze", batch.c.fields)(attend(fields) + v:fields("sqrtn"))
      local gate = (scores * fields:max(2, true)):gelu():transpose(2, 3):sum(3):sum(2, true)
      local score = first + deep(fields) + mixed + gate * fields:mean()
      local flat, group = fields:flatten(), { group = batch:keys(1) }
      local loss = mr.bce(score, batch.label) + mr.pairwise(score, batch.label, group)
        + mr.listwise(score, batch.label, group) + mr.cross_entropy(flat, batch.label)
        + mr.in_batch_softmax(mr.l2_normalize(flat), flat, { id = batch:keys(2) })
      loss:backward()
      local bits = { loss:value() }
      for i = 0, unique * 15 - 1 do bits[#bits + 1] = C.mr_tape_lookup_gradient(t.c, 0, i) end
      C.mr_param_step(m.params["deep.1.w"].c, 1)
      bits[#bits + 1] = m.params["deep.1.w"]:save()
      return bits
    end
    local kept = C.mr_threads()
    local one, two = run(1), run(2)
    C.mr_threads_set(kept)
    assert.equal(#one, #two)
    for i = 1, #one do
      if one[i] ~= two[i] then error("differs at " .. i) end
    end
  end)
end)

if not os.getenv "MOONROCK_KERNELS" then
  describe("under the instruction set", function()
    for _, level in ipairs { "base", "v3" } do
      it(level .. ", all of this holds", function()
        local status, out = shell.run(("env MOONROCK_KERNELS=%s %s tests/run.lua --spec tests/op_spec.lua")
          :format(level, shell.program))
        assert.equal(0, status, out:match "not ok[^\n]*\n[^\n]*" or out)
        assert.matches("ok results of", out, 1, true)
      end)
    end
  end)
end

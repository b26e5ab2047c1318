-- What operations and layers say of what does not fit.
local ffi = require "ffi"
local mr = require "moonrock"
local C = require "moonrock.ffi"
local layers = require "moonrock.layers"
local pool = require "moonrock.pool"
local tape = require "moonrock.tape"
local batches = require "tests.support.batches"
local model = require "tests.support.params"

describe("a wrong", function()
  local t
  before_each(function()
    t = tape.new()
    t:begin(true, 1)
  end)
  after_each(function() t:free() end)

  local function fails(f, message)
    local ok, problem = pcall(f)
    assert.is_false(ok)
    assert.equal("op_errors_spec.lua", problem:match("([%w_]+%.lua):%d+: "))
    assert.equal(message, problem:match("op_errors_spec%.lua:%d+: (.*)$"))
  end

  local function zeros(...)
    local n, values = 1, {}
    for _, d in ipairs { ... } do n = n * d end
    for i = 1, n do values[i] = 0 end
    return layers.tensor({ ... }, values)
  end

  it("shape is an error that names the operation and both shapes", function()
    fails(function() return zeros(3, 4) + zeros(3, 5) end,
      "add: shapes [3, 4] and [3, 5] do not fit")
    fails(function() return zeros(3) - zeros(3, 1) end,
      "sub: shapes [3] and [3, 1] would both be repeated, to [3, 3]; reshape one of them")
    fails(function() return layers.affine(zeros(3, 4), zeros(5, 2)) end,
      "linear: weights [5, 2] expect an input of 5 a sample, got [3, 4]")
    fails(function() return layers.affine(zeros(3, 4), zeros(4, 2), zeros(3)) end,
      "linear: weights [4, 2] expect a bias of 2, got [3]")
    fails(function() return mr.concat(zeros(3, 4), zeros(2, 4)) end,
      "concat: tensor 2 is [2, 4], which does not fit [3, 4] beside the last axis")
    fails(function() return mr.concat({ zeros(3, 4), zeros(2, 5) }, 1) end,
      "concat: tensor 2 is [2, 5], which does not fit [3, 4] beside axis 1")
    fails(function() return mr.concat({ zeros(3, 4) }, 3) end, "concat: [3, 4] has no axis 3")
    fails(function() return mr.stack { zeros(3, 4), zeros(3, 5) } end,
      "stack: tensor 2 is [3, 5], expected [3, 4]")
    fails(function() return mr.stack { zeros(1, 1, 3, 4) } end, "stack: [1, 1, 3, 4] has 4 dimensions already")
    fails(function() return mr.stack {} end, "stack: expected a list of tensors, got a table")
    fails(function() return zeros(3, 4):slice(2, 0, 4) end, "slice: places 0 to 4 of axis 2, of [3, 4]")
    fails(function() return zeros(3, 4):slice(2, 3, 2) end, "slice: places 3 to 2 of axis 2, of [3, 4]")
    fails(function() return zeros(3, 4):transpose(1, 3) end, "transpose: [3, 4] has no axis 3")
    fails(function() return zeros(3, 4):sum(0) end, "sum: [3, 4] has no axis 0")
    fails(function() return zeros(3, 0):mean(2) end, "mean: axis 2 of [3, 0] has no elements")
    fails(function() return zeros(3):max() end, "max: expected an axis, from 1, got nil")
    fails(function() return zeros(3, 4):softmax(zeros(3)) end, "softmax: a mask [3] does not fit [3, 4]")
    fails(function() return zeros(2, 3, 4):matmul(zeros(3, 4, 2)) end,
      "matmul: shapes [2, 3, 4] and [3, 4, 2] do not fit")
    fails(function() return zeros(2, 3, 4):matmul(zeros(2, 4, 3), true) end,
      "matmul: shapes [2, 3, 4] and [2, 4, 3], transposed, do not fit")
    fails(function() return zeros(2, 3, 4):matmul(zeros(3, 2)) end,
      "matmul: weights [3, 2] expect rows of 3, got [2, 3, 4]")
    fails(function() return zeros(3, 4):reshape(5, -1) end,
      "reshape: [3, 4] has 12 elements, which [5, 2] does not")
    fails(function() return mr.bce(zeros(3, 4), zeros(3)) end,
      "bce: expected scores [n, 1], got [3, 4]")
    fails(function() return mr.bce(zeros(3, 1), zeros(4)) end,
      "bce: labels are [4], expected [3] as of the scores")
    fails(function() return mr.mae(zeros(3, 1), zeros(3), { weight = zeros(2) }) end,
      "mae: weights are [2], expected [3] as of the scores")
    fails(function() return mr.bpr(zeros(3, 1), zeros(2)) end,
      "bpr: scores of negatives are [2], expected [3] as of the scores")
    fails(function() return mr.cross_entropy(zeros(3), zeros(3)) end,
      "cross_entropy: expected logits [n, classes], got [3]")
    fails(function() return mr.cross_entropy(zeros(3, 4), zeros(3, 5)) end,
      "cross_entropy: labels are [3, 5], expected [3] or [3, 4]")
    fails(function() return mr.pairwise(zeros(3, 1), zeros(3), { group = zeros(4) }) end,
      "pairwise: groups are [4], expected [3] as of the scores")
    fails(function() return mr.listwise(zeros(3, 2), zeros(3)) end,
      "listwise: expected scores [n, 1], got [3, 2]")
    fails(function() return mr.in_batch_softmax(zeros(3, 2), zeros(3, 4)) end,
      "in_batch_softmax: items are [3, 4], expected [3, 2] as the users")
    fails(function() return mr.in_batch_softmax(zeros(3, 2), zeros(3, 2), { log_q = zeros(2) }) end,
      "in_batch_softmax: log_q are [2], expected [3] as of the users")
    fails(function() return mr.batch_norm(model(), "norm", 3)(zeros(3, 4)) end,
      'batch_norm "norm": gamma is [3], expected [4] for an input [3, 4]')
    fails(function() return mr.inner_products(zeros(3, 4)) end, "inner_products: expected vectors "
      .. "[n, fields, dim] of two fields or more, got [3, 4]")
    fails(function() return mr.inner_products(zeros(3, 1, 4)) end, "inner_products: expected vectors "
      .. "[n, fields, dim] of two fields or more, got [3, 1, 4]")
    fails(function() return mr.inner_products(zeros(3, 2, 4), zeros(3, 2, 5)) end,
      "inner_products: vectors [3, 2, 5] do not fit [3, 2, 4]")
    fails(function() return mr.fwfm(zeros(3, 4, 2), zeros(7)) end,
      "fwfm: weights [7, 1] expect an input of 7 a sample, got [3, 6]")
    fails(function() return mr.outer_products(zeros(3, 4, 2)) end, "outer_products: expected the sum "
      .. "of a sample's vectors, [n, dim], got 3 dimensions")
    fails(function() return mr.cross_network(model(), "net", 4, 2)(zeros(3, 5)) end,
      'cross_network "net": weights [4, 4] expect an input of 4 a sample, got [3, 5]')
    fails(function() return mr.cin(model(), "net", 4, { 2, 2 })(zeros(3, 5, 2)) end,
      'cin "net": expected [n, 4, dim], got [3, 5, 2]')
    fails(function() zeros(3, 4):backward() end, "backward: expected a loss of shape [1], got [3, 4]")
  end)

  it("input of a layer is an error that names the layer", function()
    local m = model()
    fails(function() return mr.layer_norm(m, "norm", 3)(zeros(3, 4)) end,
      'layer_norm "norm": gamma is [3], expected [4] for an input [3, 4]')
    local attend = mr.multi_head_attention(m, "a", 4)
    fails(function() return attend(zeros(3, 4)) end,
      'multi_head_attention "a": expected [n, fields, 4], got [3, 4]')
    fails(function() return attend(zeros(3, 2, 5)) end,
      'multi_head_attention "a": expected [n, fields, 4], got [3, 2, 5]')
    fails(function() return attend(zeros(3, 2, 4), zeros(3, 4)) end,
      'multi_head_attention "a": expected a mask [n, fields], got [3, 4]')
    fails(function() return mr.multi_head_attention(m, "b", 5) end,
      'multi_head_attention "b": dim is 2.5, expected a whole number from 1')
    local pooled = mr.attention_pool(m, "p", 4)
    fails(function() return pooled(zeros(2, 3), zeros(2, 5, 4), zeros(2, 5)) end,
      'attention_pool "p": expected a target [n, 4], got [2, 3]')
    fails(function() return pooled(zeros(2, 4), zeros(2, 5, 3), zeros(2, 5)) end,
      'attention_pool "p": expected keys [n, length, 4], got [2, 5, 3]')
    fails(function() return pooled(zeros(2, 4), zeros(2, 5, 4), zeros(2, 4)) end,
      'attention_pool "p": expected a mask [n, length] of the keys, got [2, 4]')
    fails(function() return mr.attention_pool(m, "q", 4, { weights = "none" }) end,
      'attention_pool "q": weights is "none", expected linear, sigmoid or softmax')
    fails(function() return mr.squeeze_excitation(m, "s", 4)(zeros(3, 5, 2)) end,
      'squeeze_excitation "s": expected [n, 4, k], got [3, 5, 2]')
    fails(function() return mr.mmoe(m, "x", 4, { tasks = 0 }) end,
      'mmoe "x": tasks is 0, expected a whole number from 1')
    fails(function() return mr.mmoe(m, "y", 4)(zeros(3, 5)) end,
      'linear "y.1.1": weights [4, 64] expect an input of 4 a sample, got [3, 5]')
    fails(function() return mr.mlp(m, "d", 4, { 1 }, { activation = "mish" }) end, 'mlp "d": activation is '
      .. '"mish", expected none, relu, leaky_relu, sigmoid, tanh, gelu, silu, prelu or dice')
    fails(function() return mr.mlp(m, "e", 4, { 1 }, { batch_norm = true, layer_norm = true }) end,
      'mlp "e": batch_norm and layer_norm exclude each other')
    fails(function() return mr.pairs(zeros(3, 4)) end, "pairs: expected [n, 2 or more, k], got [3, 4]")
    fails(function() return mr.pairs(zeros(2, 3, 4), zeros(2, 3, 5)) end,
      "pairs: shapes [2, 3, 4] and [2, 3, 5] differ")
  end)

  it("way to pool is an error that names the column", function()
    local batch, unique = batches.valued()
    local lookup = C.mr_tape_lookup(t.c, batch.c, ffi.new("int32_t[1]", 1), 1, ffi.new("double[?]", unique),
      unique)
    local w = pool.column("features", "w", 0, 1)
    pool.bind(w, t, lookup)
    fails(function() return w:fields("min") end, 'fields: table "features", column "w": "min" is none of sum, '
      .. "mean, sqrtn, weighted_mean and max")
    fails(function() return w:sequence(4, 2) end, "sequence: table given, column : field 4 in a batch of 3 fields")
    fails(function() return w:sequence(1, 0) end, "sequence: table given, column : length is 0, expected 1 or more")
    fails(function() return w:sequence("a", 1) end, 'sequence: table "features", column "w": expected the number '
      .. "of a field and a length, got a and 1")
  end)

  it("label or loss is an error", function()
    fails(function() return mr.bce(zeros(2), layers.tensor({ 2 }, { 0, 2 })) end,
      "bce: the label of sample 2 of the batch is 2, expected 0 to 1")
    fails(function() return mr.bce(zeros(2), layers.tensor({ 2 }, { 0, 0 / 0 })) end,
      "bce: the label of sample 2 of the batch is nan, expected 0 to 1")
    local function two(loss, label) return function() return loss(zeros(2), layers.tensor({ 2 }, label)) end end
    fails(two(mr.poisson, { 3, -1 }),
      "poisson: the label of sample 2 of the batch is -1, expected a count of at least 0")
    fails(two(mr.hinge, { 0.5, 1 }),
      "hinge: the label of sample 1 of the batch is 0.5, expected 0 or 1 (or -1 or 1)")
    fails(two(mr.huber, { 0, 1 / 0 }),
      "huber: the label of sample 2 of the batch is inf, expected a finite number")
    fails(two(mr.listwise, { 0, -1 }),
      "listwise: the label of sample 2 of the batch is -1, expected a number of at least 0")
    fails(function() return mr.cross_entropy(zeros(2, 3), layers.tensor({ 2 }, { 0, 3 })) end,
      "cross_entropy: the label of sample 2 of the batch is 3, expected a class from 0 to 2")
    fails(function() return mr.cross_entropy(zeros(1, 2), layers.tensor({ 1, 2 }, { 0.5, 0.6 })) end,
      "cross_entropy: the labels of sample 1 of the batch are not probabilities: their sum is 1.1")
    fails(function() (zeros(1) / 0):sum():backward() end, "backward: the loss is nan")
  end)

  it("number of fields is an error that says how many there are", function()
    local batch, unique = batches.fielded()
    local lookup = C.mr_tape_lookup(t.c, batch.c, ffi.new("int32_t[1]", 8), 1,
      ffi.new("double[?]", unique * 8), unique)
    local v = pool.column("given", "v", 0, 8)
    pool.bind(v, t, lookup)
    fails(function() return mr.ffm(v, 4) end,
      "ffm: table given, column : made for 4 fields, in a batch of 3")
    fails(function() return mr.ffm(v, 3) end,
      "ffm: table given, column : dim is 8, expected a multiple of its 3 fields")
  end)

  it("argument is an error that says what was expected", function()
    fails(function() return zeros(1) + {} end, "add: expected a tensor, got a table")
    fails(function() return mr.dropout(zeros(2), 1) end, "dropout: rate is 1, expected 0 to below 1")
    fails(function() return mr.huber(zeros(2), zeros(2), { delta = 0 }) end,
      "huber: delta is 0, expected a number above 0")
    fails(function() return mr.quantile(zeros(2), zeros(2), { p = 0.5 }) end,
      "quantile has no option \"p\"")
    fails(function() return mr.bce(zeros(2), zeros(2), { label_smoothing = 2 }) end,
      "bce: label_smoothing is 2, expected a number of at least 0 and at most 1")
    fails(function() return mr.pairwise(zeros(4), zeros(4), { group = batches.sets():keys(1) }) end,
      "batch: its samples are plain sets of keys, without fields to take one from")
    fails(function() return mr.pairwise(zeros(3), zeros(3), { group = batches.fielded():keys(4) }) end,
      "batch: field 4 is not among its 3")
    local batch, unique = batches.sets()
    local lookup = C.mr_tape_lookup(t.c, batch.c, ffi.new("int32_t[1]", 1), 1,
      ffi.new("double[?]", unique), unique)
    local w = pool.column("features", "w", 0, 1)
    pool.bind(w, t, lookup)
    fails(function() return w + 1 end, "arithmetic: table \"features\", column \"w\": pool it first, "
      .. "with :sum(), :mean(), :fields() or mr.fm()")
    fails(function() return w:fields() end, "fields: table given, column : the samples are plain "
      .. "sets of keys, without fields; pool them by sum or mean")
    fails(function() return mr.cross_network(model(), "net", 4, 2, { kind = "row" }) end,
      "cross_network \"net\": kind is \"row\", expected vector or matrix")
    fails(function() return mr.cross_network(model(), "net", 4, 2, { kind = "vector", rank = 2 }) end,
      "cross_network \"net\": only a matrix has a rank")
    fails(function() return mr.cross_network(model(), "net", 4, 0) end,
      "cross_network \"net\": the number of layers is 0, expected a whole number from 1")
    fails(function() return mr.cin(model(), "net", 4, {}) end,
      "cin \"net\": expected sizes, as { 64, 64 }")
    fails(function() return mr.cin(model(), "net", 4, { 2 }, { rank = 2 }) end,
      "cin \"net\" has no option \"rank\"")
    fails(function() return mr.ffm(w, 3) end, "ffm: table given, column : the samples are plain "
      .. "sets of keys, without fields; pool them by sum or mean")
    fails(function() return mr.ffm(w) end, "ffm: fields is a nil, expected a number")
    fails(function() return mr.ffm(zeros(3, 4), 3) end,
      "ffm: expected a column of a table, got a table")
    fails(function() return mr.bi_interaction(zeros(3, 4)) end,
      "bi_interaction: expected a column of a table, got a table")
    t:begin(true, 2)
    fails(function() return w:sum() end,
      "table \"features\": column \"w\" was looked up in a step that is over; look it up again")
  end)
end)

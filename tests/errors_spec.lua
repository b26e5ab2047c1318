-- Mistakes that users make: what they are told, and at which line of their own file.
local mr = require "moonrock"
local shell = require "tests.support.shell"

local dir = shell.directory()
local data = shell.write(dir .. "/data.svm", ("1 1:1 2:1 3:1\n0 2:1 3:1 4:1\n"):rep(8))
local odd = shell.write(dir .. "/odd.svm", "3 1:1 2:1 3:1\n")

-- Makes a model of a function and trains it for an epoch.
local function train(build, options, fit)
  local o = { data = mr.data { files = data, format = "libsvm", fields = 3 } }
  for name, value in pairs(options or {}) do o[name] = value end
  local model = mr.model("mine", build)(o)
  local f = { train = data, size = 4 }
  for name, value in pairs(fit or {}) do f[name] = value end
  mr.fit(model, f)
  return model
end

-- What is wrong, the code, what is said. The line that is named is the one that ends in --! ; without
-- one it is a line of this file.
local MISTAKES = {
  -- ---- the model's function
  { "a forgotten return of the function of a batch", [[
train(function(m) --!
  local f = function(x) return x end
end)]], "model mine: its function returned nothing, expected a function of a batch" },
  { "a model that returns its scores at once", [[
train(function(m) return 3 end) --!]], "model mine: its function returned a number, expected a function of a batch" },
  { "a forgotten return of the scores", [[
train(function(m)
  local b = m:param("b", { 1 })
  return function(x) --!
    local y = b + 1
  end
end)]], "model mine: its function of a batch returned nothing, expected scores [n, 1]" },
  { "scores of the wrong shape", [[
train(function(m)
  local row = m:table("t", { v = { dim = 3 } })
  return function(x) return row(x).v:sum() end
end)]], "model mine: bce: expected scores [n, 1], got [4, 3]" },
  { "one score for the whole batch", [[
train(function(m)
  local row = m:table("t", { v = { dim = 3 } })
  return function(x) return row(x).v:sum():sum() end
end)]], "model mine: bce: labels are [4], expected [1] as of the scores" },
  { "a number for scores", [[
train(function(m) return function(x) return 3 end end)]],
    "model mine: bce: labels are [4], expected [1] as of the scores" },
  { "a column that was not pooled", [[
train(function(m)
  local row = m:table("t", { v = { dim = 1 } })
  local b = m:param("b", { 1 })
  return function(x)
    local y = row(x).v + b --!
    return y
  end
end)]], 'model mine: arithmetic: table "t", column "v": pool it first, with :sum(), :mean(), :fields() or mr.fm()' },
  { "a column that the table does not have", [[
train(function(m)
  local row = m:table("t", { v = { dim = 1 } })
  return function(x)
    return row(x).w:sum() --!
  end
end)]], 'model mine: table "t" has no column "w"; it has v' },
  { "a function of numbers that is given a tensor", [[
train(function(m)
  local row = m:table("t", { v = { dim = 1 } })
  return function(x)
    local y = math.exp(row(x).v:sum()) --!
    return y
  end
end)]], "bad argument #1 to 'exp' (number expected, got table); of a tensor it is tensor:exp()" },
  { "such a function at the end of the model's", [[
train(function(m)
  local row = m:table("t", { v = { dim = 1 } })
  return function(x) --!
    return math.exp(row(x).v:sum())
  end
end)]], "tensors have methods, such as tensor:exp()" },
  { "a number that is no exact key", [[
local m = mr.find "lr" { data = mr.data { files = data } }
m.tables[1]:peek(9999999999999999, "w") --!]], "peek: 1e+16 is no exact key; write 9999999999999999ULL" },
  { "a key below 0", [[
local m = mr.find "lr" { data = mr.data { files = data } }
m.tables[1]:peek(-1, "w") --!]], "peek: -1 is no exact key; write a whole number from 0" },
  { "a part of a key", [[
local m = mr.find "lr" { data = mr.data { files = data } }
m.tables[1]:peek(1.5, "w") --!]], "peek: 1.5 is no exact key; write a whole number from 0" },
  { "a text as a key", [[
local m = mr.find "lr" { data = mr.data { files = data } }
m.tables[1]:peek("7", "w") --!]], 'peek: "7" is no key; expected a whole number from 0' },
  { "a signed key below 0", [[
local m = mr.find "lr" { data = mr.data { files = data } }
m.tables[1]:peek(-1LL, "w") --!]], "peek: -1LL is no key; expected a whole number from 0" },
  { "a column that peek does not find", [[
local m = mr.find "lr" { data = mr.data { files = data } }
m.tables[1]:peek(1, "u") --!]], 'table "features" has no column "u"; it has w' },
  { "a table that is given no batch", [[
train(function(m)
  local row = m:table("t", { v = { dim = 1 } })
  return function(x)
    local r = row() --!
    return r.v:sum()
  end
end)]], 'model mine: table "t": expected a batch, got nil' },
  { "the fields of data without fields", [[
train(function(m)
  return mr.linear(m, "l", m:fields(), 1) --!
end, { data = mr.data { files = data, format = "libsvm" } })]], "model mine: it needs samples of fields" },

  -- ---- tables and params
  { "a misspelt option of a column", [[
train(function(m)
  local row = m:table("t", { v = { dims = 4 } }) --!
end)]], 'model mine: table "t": column "v" has no option "dims", expected dim, init, optim, admit or precision' },
  { "text for a number", [[
train(function(m)
  local row = m:table("t", { v = { dim = "4" } }) --!
end)]], 'model mine: table "t": column "v" has dim "4", expected a whole number from 1 to 65535' },
  { "a column without dim", [[
train(function(m)
  local row = m:table("t", { v = {} }) --!
end)]], 'table "t": column "v" has dim nil' },
  { "an initializer that is none", [[
train(function(m)
  local row = m:table("t", { v = { dim = 4, init = 0.01 } }) --!
end)]], 'model mine: table "t": column "v": expected an initializer such as mr.init.normal(0.01), got 0.01' },
  { "the name of a table twice", [[
train(function(m)
  m:table("t", { v = { dim = 4 } })
  m:param("t", { 4 }) --!
end)]], 'model mine: the name "t" is taken' },
  { "an optimizer that is none", [[
train(function(m)
  m:param("b", { 1 }, { optim = 0.1 }) --!
end)]], 'model mine: param "b": expected an optimizer such as mr.optim.adam { lr = 0.001 }' },
  { "a misspelt setting of an optimizer", [[
mr.optim.adam { learning_rate = 0.1 } --!]], 'optimizer adam has no setting "learning_rate"' },
  { "a misspelt optimizer", [[
train(function(m) return function() end end, { optim = "adma" })]], 'model mine: optimizer "adma" is unknown' },
  { "a number for a shape", [[
train(function(m)
  m:param("b", 1) --!
end)]], 'model mine: param "b": expected a shape of 1 to 4 dimensions' },
  { "a misspelt option of a param", [[
train(function(m)
  m:param("b", { 1 }, { opitm = mr.optim.sgd() }) --!
end)]], 'model mine: param "b" has no option "opitm", expected init, optim, trainable or clip_each' },

  -- ---- layers
  { "the wrong width of linear", [[
train(function(m)
  local row = m:table("t", { v = { dim = 4 } })
  local deep = mr.linear(m, "deep", 5, 1)
  return function(x)
    local y = deep(row(x).v:sum()) --!
    return y
  end
end)]], 'model mine: linear "deep": weights [5, 1] expect an input of 5 a sample, got [4, 4]' },
  { "the same in a tail call", [[
train(function(m)
  local row = m:table("t", { v = { dim = 4 } })
  local deep = mr.linear(m, "deep", 5, 1)
  return function(x) --!
    return deep(row(x).v:sum())
  end
end)]], 'model mine: linear "deep": weights [5, 1] expect an input of 5 a sample, got [4, 4]' },
  { "the wrong width of an mlp", [[
train(function(m)
  local row = m:table("t", { v = { dim = 4 } })
  local deep = mr.mlp(m, "deep", 4, { 8, 1 })
  return function(x)
    local y = deep(row(x).v:fields()) --!
    return y
  end
end)]], 'model mine: linear "deep.1": weights [4, 8] expect an input of 4 a sample, got [4, 3, 4]' },
  { "batch_norm of another width", [[
train(function(m)
  local row = m:table("t", { v = { dim = 4 } })
  local norm = mr.batch_norm(m, "norm", 8)
  return function(x)
    local y = norm(row(x).v:sum()) --!
    return y
  end
end)]], 'model mine: batch_norm "norm": gamma is [8], expected [4] for an input [4, 4]' },
  { "a cross network of another width", [[
train(function(m)
  local row = m:table("t", { v = { dim = 4 } })
  local net = mr.cross_network(m, "net", 5, 2)
  return function(x)
    local y = net(row(x).v:sum()) --!
    return y
  end
end)]], 'model mine: cross_network "net": weights [5, 5] expect an input of 5 a sample, got [4, 4]' },
  { "a cin of other fields", [[
train(function(m)
  local row = m:table("t", { v = { dim = 4 } })
  local net = mr.cin(m, "net", 5, { 2, 2 })
  return function(x)
    local y = net(row(x).v:fields()) --!
    return y
  end
end)]], 'model mine: cin "net": expected [n, 5, dim], got [4, 3, 4]' },
  { "attention of another width", [[
train(function(m)
  local row = m:table("t", { v = { dim = 4 } })
  local attend = mr.multi_head_attention(m, "attend", 6)
  return function(x)
    local y = attend(row(x).v:fields()) --!
    return y
  end
end)]], 'model mine: multi_head_attention "attend": expected [n, fields, 6], got [4, 3, 4]' },
  { "a layer of interactions without its model", [[
mr.cin("net", 4, { 2 }) --!]], "cin: expected the model and a name, got a string and 4" },
  { "a misspelt option of a layer", [[
train(function(m)
  local deep = mr.mlp(m, "deep", 4, { 8, 1 }, { drop_out = 0.1 }) --!
end)]], 'model mine: mlp "deep" has no option "drop_out"' },
  { "an unknown activation", [[
train(function(m)
  local deep = mr.linear(m, "deep", 4, 1, { activation = "rleu" }) --!
end)]], 'model mine: linear "deep": activation is "rleu"' },
  { "a width that is no number", [[
train(function(m)
  local deep = mr.linear(m, "deep", "4", 1) --!
end)]], 'model mine: linear "deep": inputs is "4", expected a whole number from 1' },
  { "widths that are no list", [[
train(function(m)
  local deep = mr.mlp(m, "deep", 4, "8") --!
end)]], 'model mine: mlp "deep": expected widths, as { 256, 128, 1 }' },
  { "a layer without its model", [[
mr.linear("deep", 4, 1) --!]], "linear: expected the model and a name, got a string and 4" },
  { "a batch given to a layer", [[
train(function(m)
  local deep = mr.linear(m, "deep", 4, 1)
  return function(x)
    local y = deep(x) --!
    return y
  end
end)]], 'model mine: linear "deep": expected a tensor, got a batch; look its keys up in a table first' },
  { "dropout of a percentage", [[
train(function(m)
  local row = m:table("t", { v = { dim = 1 } })
  return function(x)
    local y = mr.dropout(row(x).v:sum(), 50) --!
    return y
  end
end)]], "model mine: dropout: rate is 50, expected 0 to below 1" },

  -- ---- tensors
  { "shapes that do not fit", [[
train(function(m)
  local row = m:table("t", { v = { dim = 4 }, w = { dim = 3 } })
  return function(x)
    local r = row(x)
    local y = r.v:sum() * r.w:sum() --!
    return y
  end
end)]], "model mine: mul: shapes [4, 4] and [4, 3] do not fit" },
  { "a tensor of an earlier step", [[
local kept
train(function(m)
  local row = m:table("t", { v = { dim = 1 } })
  return function(x)
    local y = row(x).v:sum()
    if kept then y = y + kept end --!
    kept = kept or y
    return y
  end
end)]], "model mine: tensor: it was computed in a step that is over; compute it again" },
  { "the tensors of two models", [[
local function part(m)
  local row = m:table("t", { v = { dim = 1 } })
  return function(x) return row(x).v:sum() end
end
local d = mr.data { files = data, format = "libsvm" }
local one, two = mr.model("one", part) { data = d }, mr.model("two", part) { data = d }
for batch in one:batches("train") do
  local y = one(batch) + two(batch) --!
end]], "add: tensors of two models, one and two" },
  { "a text as tensor", [[
train(function(m)
  local row = m:table("t", { v = { dim = 1 } })
  return function(x)
    local y = row(x).v:sum() + "1" --!
    return y
  end
end)]], "model mine: add: expected a tensor, got a string" },

  -- ---- losses
  { "labels for another loss", [[
train(function(m)
  local row = m:table("t", { v = { dim = 1 } })
  return function(x) return row(x).v:sum() end
end, nil, { train = odd })]], "odd.svm:1: expected a label of 0 or 1", true },
  { "labels out of range in a loss", [[
local t = require "moonrock.tape".new()
t:begin(true, 1)
mr.bce(mr.tensor({ 2, 1 }, { 0, 0 }), mr.tensor({ 2 }, { 1, 3 })) --!]],
    "bce: the label of sample 2 of the batch is 3, expected 0 to 1" },
  { "the batch for its label", [[
local model = mr.model("mine", function(m)
  local row = m:table("t", { v = { dim = 1 } })
  return function(x) return row(x).v:sum() end
end) { data = mr.data { files = data, format = "libsvm" } }
for batch in model:batches("train") do
  mr.bce(model(batch), batch) --!
end]], "bce: expected a tensor, got a batch" },
  { "backward of what is no loss", [[
local model = mr.model("mine", function(m)
  local row = m:table("t", { v = { dim = 1 } })
  return function(x) return row(x).v:sum() end
end) { data = mr.data { files = data, format = "libsvm" } }
for batch in model:batches("train", { size = 4 }) do
  model(batch):backward() --!
end]], "backward: expected a loss of shape [1], got [4, 1]" },
  { "a misspelt option of a loss", [[
local t = require "moonrock.tape".new()
t:begin(true, 1)
mr.bce(mr.tensor({ 1, 1 }, { 0 }), mr.tensor({ 1 }, { 1 }), { wieght = 1 }) --!]], 'bce has no option "wieght"' },

  -- ---- fit and models
  { "a misspelt option of fit", [[
train(function() return function() end end, nil, { pateince = 2 })]], 'mr.fit has no option "pateince"' },
  { "text for a number in fit", [[
train(function() return function() end end, nil, { epochs = "2" })]],
    "mr.fit: epochs is \"2\", expected a whole number from 1" },
  { "a metric that is none", [[
train(function() return function() end end, nil, { monitor = "acu" })]],
    "mr.fit: monitor is \"acu\", expected one of logloss, auc, accuracy, pr_auc, ne, ece, rmse, mae" },
  { "fit of a definition", [[
mr.fit(mr.find "lr", { train = data }) --!]], "mr.fit: expected a model, got the definition of lr; call it with its options" },
  { "fit without data", [[
mr.fit(mr.find "lr" {}, { train = data }) --!]], "model lr: it was given no schema or data" },
  { "fit of no file", [[
train(function() return function() end end, nil, { train = "absent.svm" })]], "absent.svm" },
  { "a model that gets no batch", [[
local model = mr.find "lr" { data = mr.data { files = data } }
model() --!]], "model lr: expected a batch, got nil" },
  { "options of a model by position", [[
mr.find "lr" { "store" } --!]], "model lr: options are named, got 1" },
  { "memory that is no size", [[
mr.find "lr" { memory = "much" } --!]], "model lr: memory: 'much' is no size such as 500MB or 2GB" },
  { "a model without a name", [[
mr.model(function() end) --!]], "mr.model: expected a name and a function, got function and nil" },
  { "a store for a commit that is not there", [[
mr.find("lr") { data = mr.data { files = data } }:commit() --!]], "model lr: it has no store to commit to" },
}

local PREAMBLE = "local mr, train, data, odd = ...; "

describe("a mistake", function()
  for _, case in ipairs(MISTAKES) do
    local what, code, said, anywhere = unpack(case)
    it(("is explained: %s"):format(what), function()
      local chunk = assert(loadstring(PREAMBLE .. code, "@mine.lua"))
      local ok, problem = pcall(chunk, mr, train, data, odd)
      assert.is_false(ok, "nothing was wrong")
      assert.truthy(problem:find(said, 1, true), ("%s\nexpected: %s"):format(problem, said))
      local line, marked = 0, nil
      for text in (code .. "\n"):gmatch "([^\n]*)\n" do
        line = line + 1
        if text:find("--!", 1, true) then marked = line end
      end
      local at = marked and "^mine%.lua:" .. marked .. ": " or "^[%w_/.]*errors_spec%.lua:%d+: "
      assert.truthy(anywhere or problem:find(at), ("%s\nexpected at: %s"):format(problem, at))
    end)
  end
end)

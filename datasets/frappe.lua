-- Frappe: which app is used in which context (Baltrunas et al., 2015), ten categorical fields. The
-- data is for research only and does not ship; datasets/README.md says where it comes from.
--
-- ffm, wide_deep, deepfm, dcn, dcnv2 and xdeepfm follow the recipes of the published benchmark (BARS,
-- frappe_x1): vectors of 10 from N(0, 1e-4), Adam, batches of 4096, the gradient's norm at most 10, L2 over
-- whole tables, a tenth of the learning rate after an epoch without a better AUC on the validation data,
-- and the end after two. The others are our own, chosen on the validation data.
local mr = require "moonrock"

local COLUMNS = { "user", "item", "daytime", "weekday", "isweekend", "homework", "cost", "weather",
  "country", "city" }

local fields = {}
for i, column in ipairs(COLUMNS) do fields[i] = mr.category(column) end

local adam = { rule = "adam", lr = 1e-3 }

-- A model with L2 on its tables.
local function recipe(l2, model)
  model.dim, model.init = model.dim or 10, 1e-4
  model.factors = { rule = "adam", lr = 1e-3, l2 = l2, l2_scope = "table" }
  if model.linear then model.linear = model.factors end
  return { epochs = 100, batch = 4096, patience = 2, reduce = 0.1, clip_norm = 10, model = model }
end

-- With layers of 400-400-400.
local function deep(l2, dropout, model)
  model.hidden, model.batch_norm, model.dropout, model.dense = { 400, 400, 400 }, true, dropout, adam
  return recipe(l2, model)
end

return mr.schema {
  name = "frappe", format = "csv", label = "label", fields = fields,
  recipe = {
    lr = { epochs = 20, batch = 1024, patience = 2, optim = "adam", lr = 0.01 },
    fm = { epochs = 40, batch = 1024, patience = 2, reduce = 0.2, optim = "adam", lr = 0.004,
      model = { dim = 16 } },
    ffm = recipe(1e-6, { linear = true }),
    fwfm = recipe(5e-6, { dim = 16, dense = adam }),
    nfm = recipe(1e-4, { dim = 64, hidden = { 400 }, dropout = 0.4, linear = true, dense = adam }),
    wide_deep = deep(0.1, 0.6, { linear = true }),
    deepfm = deep(0.05, 0.2, { linear = true }),
    dcn = deep(0.05, 0.2, { cross = 3 }),
    dcnv2 = deep(0.05, 0.4, { cross = 4 }),
    xdeepfm = deep(0.1, 0.2, { cin = { 64 }, linear = true }),
    autoint = deep(0.1, 0.2, { blocks = 2, heads = 2, attention = 16, layer_norm = true }),
    ensemble = deep(0.1, 0.2, { of = "xdeepfm", members = 3, cin = { 64 }, linear = true }),
  },
}

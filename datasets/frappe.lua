-- Frappe: which app is used in which context (Baltrunas et al., 2015), ten categorical fields. The
-- data is for research only and does not ship; datasets/README.md says where it comes from.
local mr = require "moonrock"

local COLUMNS = { "user", "item", "daytime", "weekday", "isweekend", "homework", "cost", "weather",
  "country", "city" }

local fields = {}
for i, column in ipairs(COLUMNS) do fields[i] = mr.category(column) end

return mr.schema {
  name = "frappe", format = "csv", label = "label", fields = fields,
  recipe = {
    lr = { epochs = 20, batch = 1024, patience = 2, optim = "adam", lr = 0.01 },
    fm = { epochs = 40, batch = 1024, patience = 2, reduce = 0.2, optim = "adam", lr = 0.004,
      model = { dim = 16 } },
    wide_deep = { epochs = 25, batch = 2048, patience = 2, reduce = 0.1, optim = "adam", lr = 0.001,
      model = { dim = 10, hidden = { 300, 300 }, dropout = 0.4, batch_norm = true } },
  },
}

-- Criteo's display advertising data in its raw format, as in the Kaggle challenge of 2014: tab-separated,
-- without a header; the label (clicked or not), 13 counts and 26 categories. The data does not ship.
local mr = require "moonrock"

local columns, fields = { "label" }, {}
for i = 1, 13 do
  columns[#columns + 1] = "I" .. i
  fields[#fields + 1] = mr.bucket("I" .. i, { quantiles = 20 })
end
for i = 1, 26 do
  columns[#columns + 1] = "C" .. i
  fields[#fields + 1] = mr.category("C" .. i)
end

return mr.schema { name = "criteo", format = "tsv", columns = columns, label = "label", fields = fields }

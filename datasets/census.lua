-- Census income (UCI Adult): who earns more than 50,000 dollars a year. Becker and Kohavi, 1996,
-- CC BY 4.0; see datasets/README.md. Numbers are given as value, bucket and exact category at once:
-- here the features matter more than the model.
local mr = require "moonrock"

-- With sums from 0: every value here is frequent, and four epochs are short.
local plain = { rule = "adagrad", lr = 0.03, init = 0 }

return mr.schema {
  name = "census", format = "csv", header = false, missing = { "?", "" },
  columns = { "age", "workclass", "fnlwgt", "education", "education-num", "marital-status", "occupation",
    "relationship", "race", "sex", "capital-gain", "capital-loss", "hours-per-week", "native-country",
    "income" },
  label = { "income", positive = { ">50K", ">50K." }, negative = { "<=50K", "<=50K." } },
  fields = {
    mr.numeric("age", { name = "age.value" }),
    mr.numeric("capital-gain", { name = "gain.value", scale = "log_standard" }),
    mr.numeric("capital-loss", { name = "loss.value", scale = "log_standard" }),
    mr.numeric("hours-per-week", { name = "hours.value" }),
    mr.numeric("education-num", { name = "education.value" }),
    mr.bucket("age", { quantiles = 20 }),
    mr.bucket("hours-per-week", { quantiles = 20 }),
    mr.bucket("fnlwgt", { quantiles = 20 }),
    mr.category "age",
    mr.category "capital-gain",
    mr.category "capital-loss",
    mr.category "hours-per-week",
    mr.category "workclass",
    mr.category "education",
    mr.category "marital-status",
    mr.category "occupation",
    mr.category "relationship",
    mr.category "race",
    mr.category "sex",
    mr.category "native-country",
    mr.cross { "age.bucket", "marital-status" },
    mr.cross { "education", "occupation" },
    mr.cross { "relationship", "hours-per-week.bucket" },
  },
  files = { train = "adult.data.zst", test = "adult.test.zst" },
  recipe = {
    lr = { epochs = 12, batch = 256, lr = 0.2 },
    fm = { epochs = 4, batch = 256, model = { dim = 8, linear = plain, factors = plain } },
    wide_deep = { epochs = 4, batch = 256, lr = 0.02, model = { dim = 8, hidden = { 64, 32 } } },
  },
}

--- The library, as users see it: `local mr = require "moonrock"`.
local attention = require "moonrock.attention"
local err = require "moonrock.error"
local export = require "moonrock.export"
local gates = require "moonrock.gates"
local losses = require "moonrock.losses"
local interactions = require "moonrock.interactions"
local layers = require "moonrock.layers"
local metrics = require "moonrock.metrics"
local Model = require "moonrock.model"
local optim = require "moonrock.optim"
local pool = require "moonrock.pool"
local reader = require "moonrock.reader"
local schema = require "moonrock.schema"
local search = require "moonrock.search"
local source = require "moonrock.source"
local stream = require "moonrock.stream"
local tape = require "moonrock.tape"
local trainer = require "moonrock.trainer"

local mr = {
  version = require("ffi").string(require("moonrock.ffi").mr_version()),
  model = Model.define,
  find = source.find,
  schema_of = source.schema,
  reopen = require "moonrock.reopen",
  export = export.export,
  import = export.import,
  verify = require "moonrock.verify",
  optim = optim,
  optimizer = optim.user,
  schedule = require "moonrock.schedule",
  init = require "moonrock.initializer",
  fit = trainer.fit,
  evaluate = trainer.evaluate,
  predict = trainer.predict,
  cross_validate = search.cross_validate,
  search = search.search,
  uniform = search.uniform,
  log_uniform = search.log_uniform,
  learn = stream.learn,
  metrics = metrics.new,
  watch = metrics.watch,
  fm = pool.fm,
  bi_interaction = pool.bi_interaction,
  ffm = pool.ffm,
  data = reader.data,
  gradcheck = require "moonrock.gradcheck",
  operation = tape.operation,
}

for _, parts in ipairs { layers, interactions, attention, gates, losses, schema } do
  for name, part in pairs(parts) do
    assert(mr[name] == nil or mr[name] == part, name)
    mr[name] = part
  end
end

-- What declares, opens, trains or reads once: errors of all kinds are at the user's line. Operations,
-- which are in every step, check what they are given themselves.
for _, name in ipairs { "model", "find", "schema_of", "reopen", "export", "import", "verify", "optimizer",
  "fit", "evaluate", "predict", "cross_validate", "search", "uniform", "log_uniform", "learn", "metrics",
  "watch", "data", "gradcheck", "operation", "schema", "category", "categories", "numeric", "bucket",
  "cross" } do
  if type(mr[name]) == "function" then mr[name] = err.public("mr." .. name, mr[name]) end
end

return mr

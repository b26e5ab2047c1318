--- What predictions are worth (runtime/metrics/): `mr.metrics` for a data set, `mr.watch` for a stream that
-- is scored before it is learned from.
local ffi = require "ffi"
local C = require "moonrock.ffi"
local err = require "moonrock.error"
local handle = require "moonrock.handle"
local objective = require "moonrock.objective"
local tape = require "moonrock.tape"
local view = require "moonrock.view"

local metrics = {}

-- Metrics by name: 1 where more is better, -1 where less is, 0 where neither is.
local BETTER = { logloss = -1, auc = 1, accuracy = 1, rmse = -1, mae = -1, ne = -1, pr_auc = 1,
  calibration = 0, ece = -1, label = 0, prediction = 0, gauc = 1, ndcg = 1, precision = 1, recall = 1,
  hit_rate = 1, map = 1, mrr = 1 }

-- Of the samples of a group, from mr_ranked; those that make no sense without classes; all others.
local RANKED = { "gauc", "ndcg", "precision", "recall", "hit_rate", "map", "mrr" }
local CLASSES = { "logloss", "auc", "accuracy", "pr_auc", "ne", "ece" }
local VALUES = { "rmse", "mae", "label", "prediction", "calibration" }

metrics.better = BETTER

--- Metrics of ranks, which need a group.
metrics.ranked = RANKED

--- The names of the metrics of a result.
---@param link integer mr_link, how scores are read
---@param grouped any whether there are groups
---@return string[]
function metrics.of(link, grouped)
  local names = {}
  for _, list in ipairs { link == C.MR_LOGIT and CLASSES or {}, VALUES, grouped and RANKED or {} } do
    for _, name in ipairs(list) do names[#names + 1] = name end
  end
  return names
end

metrics.names = metrics.of(C.MR_LOGIT, true)

local OF_CLASSES = { auc = true, pr_auc = true, ne = true }

--- Why a metric of a result is not defined, or nil.
---@param result table as of Metrics:result()
---@param name string
---@return string|nil
function metrics.undefined(result, name)
  local value = result[name]
  if value ~= nil and value == value then return nil end
  if result.rows == 0 then return "there are no samples" end
  if OF_CLASSES[name] and (result.label == 0 or result.label == 1) then
    return ("all %.0f labels are %d"):format(result.rows, result.label)
  end
  if result.groups == 0 then return "no group has both labels" end
  return ("of %.0f samples with a mean label of %g it is no number"):format(result.rows, result.label)
end

local DEFAULT_WINDOW, DEFAULT_EVERY = 10000, "10s"

-- The scores of a batch as const float *, after a check that there is one a sample: `logits` is a
-- tensor, an array, or a pointer that the caller vouches for.
local function floats(subject, logits, n)
  local data, count
  if type(logits) == "cdata" then
    data, count = view.pointer(logits)
    if not data then return logits end
  elseif getmetatable(logits) == tape.Tensor then
    data, count = tape.floats(logits)
  else
    err.raise("%s: expected logits and a label, got a %s", subject, type(logits))
  end
  if count ~= n then
    err.raise("%s: %d logits for %d samples", subject, tonumber(count), n)
  end
  return data
end

-- The mr_batch behind batch.label.
local function labelled(subject, label)
  local batch = type(label) == "table" and label.batch
  if not batch or label.name ~= "label" then
    err.raise("%s: expected batch.label, got a %s", subject, type(label))
  end
  return batch
end

local function options_check(subject, options, known)
  if type(options) ~= "table" then
    err.raise("%s: expected a table of options, got a %s", subject, type(options))
  end
  for name in pairs(options) do
    if not known[name] then err.raise("%s has no option %q", subject, tostring(name)) end
  end
  return objective.link(subject, options.loss or "bce")
end

-- mr_score as a table. A metric that the samples do not define is NaN (the AUC of one class, any
-- mean of nothing); one that makes no sense without classes is left out.
local function result(score, link)
  local r = { rows = score.rows }
  for _, name in ipairs(metrics.of(link)) do r[name] = score[name] end
  return r
end

---@class Metrics
local Metrics = {}
Metrics.__index = Metrics

local METRICS_OPTIONS = { loss = true, bins = true, group = true, k = true, slice = true,
  values = true }

---@class MetricsOptions
---@field loss? string of the model: how its scores are read; "bce": as logits
---@field bins? integer a power of two, 32 to 2^20: fixed memory, 16 bytes a bin, instead of 8 bytes a
--- sample (and as much again once it was read). `m:auc_error()` bounds the error of AUC and PR-AUC:
--- about 1e-4 and 1e-3 with 65536
---@field group? string|integer a field: ranks samples within groups of an equal key, by 24 bytes a
--- sample: gauc, ndcg, precision, recall, hit_rate (at k), map, mrr
---@field k? integer 10
---@field slice? string|integer a field: the metrics of each of its values as well
---@field values? string[] values of a schema's field, to be named: others go by their key

--- An empty accumulator.
---@param options? MetricsOptions
---@return Metrics
function metrics.new(options)
  local o = options or {}
  local link = options_check("mr.metrics", o, METRICS_OPTIONS)
  local self = setmetatable({ link = link, group = o.group, slice = o.slice, values = o.values,
    k = o.k or 10 }, Metrics)
  self.c = ffi.gc(err.check(C.mr_metrics_new(link, o.bins or 0)), C.mr_metrics_free)
  self.score = ffi.new "mr_score"
  if o.group then
    self.ranks = ffi.gc(err.check(C.mr_ranks_new(link, self.k)), C.mr_ranks_free)
    self.ranked = ffi.new "mr_ranked"
  end
  if o.slice then
    self.slices = ffi.gc(err.check(C.mr_slices_new(link, o.bins or 0)), C.mr_slices_free)
  end
  return self
end

-- The keys of a batch in a field: uint64_t[n], until the next call.
local function keys_of(self, batch, field)
  local n = batch.c.n
  if not self.keys or ffi.sizeof(self.keys) < 8 * n then self.keys = ffi.new("uint64_t[?]", n) end
  err.check(C.mr_batch_keys(batch.c, batch:keys(field).field, self.keys))
  return self.keys
end

-- The names of slices: the keys that a schema gives to the cells named in `values`.
local function names_of(self, batch)
  local names = {}
  local schema, field = batch.schema, batch:keys(self.slice).field
  if schema and schema.c then
    local name = err.check(C.mr_schema_field_name(schema.c, field))
    local seed = C.mr_hash(name, #ffi.string(name), 0)
    for _, value in ipairs(self.values) do
      names[tostring(C.mr_hash(value, #value, seed))] = value
    end
  end
  return names
end

--- Adds a batch, with its sample weights if it has any. After an error what was added is undefined.
---@param logits table|ffi.cdata* [n] or [n, 1]
---@param label table batch.label; or const float * [n], then n and, if any, weights [n] follow
---@param n? integer
---@param weight? ffi.cdata*
function Metrics:add(logits, label, n, weight)
  if type(label) == "cdata" then
    if self.group or self.slice then err.raise("mr.metrics: groups and slices need batch.label") end
    return err.check(C.mr_metrics_add(self.c, floats("mr.metrics", logits, n), label, weight, n))
  end
  local batch = labelled("mr.metrics", label)
  local scores, c = floats("mr.metrics", logits, batch.c.n), batch.c
  err.check(C.mr_metrics_add_batch(self.c, scores, c))
  if self.group then
    err.check(C.mr_ranks_add(self.ranks, keys_of(self, batch, self.group), scores, c.label, c.weight,
      batch.c.n))
  end
  if self.slice then
    if self.values and not self.names then self.names = names_of(self, batch) end
    self.numbers = not batch.schema -- keys are those of the data
    err.check(C.mr_slices_add(self.slices, keys_of(self, batch, self.slice), scores, c.label, c.weight,
      batch.c.n))
  end
end

--- Forgets all samples.
function Metrics:reset()
  C.mr_metrics_reset(self.c)
  if self.ranks then C.mr_ranks_reset(self.ranks) end
  if self.slices then C.mr_slices_reset(self.slices) end
end

local function slices_of(self)
  local list, key, score = {}, ffi.new "uint64_t[1]", ffi.new "mr_score"
  for i = 0, 2 ^ 31 - 1 do
    if err.check(C.mr_slices_read(self.slices, i, key, score)) == 0 then break end
    local r = result(score, self.link)
    r.key = ("%016x"):format(key[0])
    r.value = self.names and self.names[tostring(key[0])] or nil
    if self.numbers then r.value = tostring(key[0]):match "%d+" end
    list[i + 1] = r
  end
  table.sort(list, function(a, b)
    if a.rows ~= b.rows then return a.rows > b.rows end
    return a.key < b.key
  end)
  return list
end

--- The metrics of what was added so far; more may be added afterwards.
---@return { rows: number, logloss: number, auc: number, accuracy: number, rmse: number, mae: number,
---  label: number, prediction: number, calibration: number, ne: number, ece: number, pr_auc: number,
---  groups: number, k: integer, slices: table[] } label and prediction are means; NaN where undefined;
---  logloss, auc, accuracy, ne, ece and pr_auc only of logits; groups, k and the metrics of ranks only
---  with `group`; slices, the largest first and each with its key (and value), only with `slice`
function Metrics:result()
  err.check(C.mr_metrics_read(self.c, self.score))
  local r = result(self.score, self.link)
  if self.ranks then
    err.check(C.mr_ranks_read(self.ranks, self.ranked))
    r.groups, r.k = self.ranked.groups, self.k
    for _, name in ipairs(RANKED) do r[name] = self.ranked[name] end
  end
  if self.slices then r.slices = slices_of(self) end
  return r
end

--- How far the AUC and the PR-AUC of the last result may be from the exact ones; 0 without bins.
---@return number auc
---@return number pr_auc
function Metrics:auc_error() return self.score.auc_error, self.score.pr_auc_error end

--- Calibration by bucket: tenths of the predicted probability, from 0 on.
---@return { weight: number, prediction: number, label: number }[] weights, mean predictions, mean labels
function Metrics:buckets()
  local list, out = {}, ffi.new "double[3]"
  while C.mr_metrics_bucket(self.c, #list, out, out + 1, out + 2) == 1 do
    list[#list + 1] = { weight = out[0], prediction = out[1], label = out[2] }
  end
  return list
end

---@class Watch
local Watch = {}
Watch.__index = Watch

local WATCH_OPTIONS = { loss = true, window = true, every = true }
local UNITS = { s = "seconds", second = "seconds", seconds = "seconds", batch = "batches",
  batches = "batches", sample = "samples", samples = "samples" }

-- "10s", "100 batches", "5000 samples" or a number of samples, as number and unit.
local function period(every)
  every = tonumber(every) or every
  if type(every) == "number" and every > 0 then return every, "samples" end
  local number, unit = tostring(every):match "^%s*([%d.]+)%s*(%a+)%s*$"
  number, unit = tonumber(number), UNITS[unit]
  if not number or not unit or number <= 0 then
    err.raise("mr.watch: every is %q, expected as \"10s\", \"100 batches\" or \"5000 samples\"",
      tostring(every))
  end
  return number, unit
end

--- Progressive validation: metrics of the last `window` samples (exact) and of all so far (the
--- AUC by 4096 bins). What it saves depends on the samples alone; only `due` in seconds looks at
--- a clock.
---@param options? { loss?: string, window?: integer, every?: string|number } `every`: "10s",
---  "100 batches", "5000 samples" or a number of samples
---@return Watch
function metrics.watch(options)
  local o = options or {}
  local link = options_check("mr.watch", o, WATCH_OPTIONS)
  local self = setmetatable({ link = link }, Watch)
  self.window = o.window or DEFAULT_WINDOW
  self.every, self.unit = period(o.every or DEFAULT_EVERY)
  local opened = err.check(C.mr_watch_new(link, self.window))
  self.c = ffi.gc(opened, C.mr_watch_free)
  self.recent, self.all = ffi.new "mr_score", ffi.new "mr_score"
  self.samples, self.batches = 0, 0
  self.last = self.unit == "seconds" and C.mr_clock() or 0
  return self
end

--- Adds the scores of a batch, made before learning from it.
---@param logits table|ffi.cdata* [n] or [n, 1]
---@param label table batch.label
function Watch:add(logits, label)
  local batch = labelled("mr.watch", label)
  local n = batch.c.n
  err.check(C.mr_watch_add(self.c, floats("mr.watch", logits, n), batch.c))
  self.samples, self.batches = self.samples + n, self.batches + 1
end

-- Where the stream stands, in the unit of `every`.
local function now(self)
  if self.unit == "seconds" then return C.mr_clock() end
  return self.unit == "batches" and self.batches or self.samples
end

--- Whether it is time for a line. True once, then again after another `every`; counted in samples
--- or batches, the same in a run that was resumed.
---@return boolean
function Watch:due()
  local at = now(self)
  if self.unit == "seconds" then
    if at - self.last < self.every then return false end
    self.last = at
    return true
  end
  local periods = math.floor(at / self.every)
  if periods == self.last then return false end
  self.last = periods
  return true
end

---@return { rows: number, window: table, total: table } as of Metrics:result()
function Watch:result()
  err.check(C.mr_watch_read(self.c, self.recent, self.all))
  local window, total = result(self.recent, self.link), result(self.all, self.link)
  return { rows = total.rows, window = window, total = total }
end

local function number(x) return x == x and ("%.4f"):format(x) or "-" end

local function words(r, auc)
  if not r.logloss then return "rmse " .. number(r.rmse) end
  return ("logloss %s %s %s accuracy %s"):format(number(r.logloss), auc, number(r.auc), number(r.accuracy))
end

--- One line for people: `rows 120000   last 10000: logloss 0.4512 auc 0.7712 ...   all: logloss 0.4630
--- auc_all 0.7534 ...`. auc_all is by 4096 bins, and of scores from the first batch on.
---@return string
function Watch:line()
  local r = self:result()
  return ("rows %d   last %d: %s   all: %s"):format(r.rows, r.window.rows, words(r.window, "auc"),
    words(r.total, "auc_all"))
end

Watch.__tostring = Watch.line

--- The state as bytes, a part of a commit.
---@return string
function Watch:save()
  local bytes = err.check(C.mr_watch_bytes(self.c))
  return ffi.string(bytes, C.mr_watch_len(self.c))
end

--- Continues from saved bytes; those of a watch with another window are an error.
---@param bytes string
function Watch:load(bytes)
  err.check(C.mr_watch_load(self.c, bytes, #bytes))
  err.check(C.mr_watch_read(self.c, self.recent, self.all))
  self.samples, self.batches = self.all.rows, C.mr_watch_batches(self.c)
  if self.unit ~= "seconds" then self.last = math.floor(now(self) / self.every) end
end

handle.public(Metrics, "metrics", {})
handle.public(Watch, "watch", { add = true, due = true })
return metrics

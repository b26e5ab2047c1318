--- What predictions are worth (runtime/metrics.c, runtime/watch.c): `mr.metrics` for a data set,
-- `mr.watch` for a stream that is scored before it is learned from.
local ffi = require "ffi"
local C = require "moonrock.ffi"
local err = require "moonrock.error"

local metrics = {}

local DEFAULT_WINDOW, DEFAULT_EVERY = 10000, "10s"

-- The scores of a batch as const float *, after a check that there is one a sample: `logits` is a
-- tensor, or a pointer that the caller vouches for.
local function floats(subject, logits, n)
  if type(logits) == "cdata" then return logits end
  if type(logits) ~= "table" or type(logits.data) ~= "function" then
    err.raise("%s: expected logits and a label, got a %s", subject, type(logits))
  end
  local data, count = logits:data()
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
  if options.loss and options.loss ~= "bce" and options.loss ~= "mse" then
    err.raise("%s: loss is %q, expected \"bce\" or \"mse\"", subject, tostring(options.loss))
  end
end

-- mr_score as a table. A metric that the samples do not define is NaN (the AUC of one class, any
-- mean of nothing); one that makes no sense for a regression is left out.
local function result(score, regression)
  local r = { rows = score.rows, rmse = score.rmse, label = score.label,
    prediction = score.prediction }
  if not regression then
    r.logloss, r.accuracy = score.logloss, score.accuracy
    r.auc = score.auc
  end
  return r
end

---@class Metrics
local Metrics = {}
Metrics.__index = Metrics

local METRICS_OPTIONS = { loss = true, bins = true }

--- An empty accumulator. It keeps 8 bytes a sample, and as much again once it was read; with
--- `bins` (a power of two, 32 to 2^20) it keeps 16 bytes a bin, and `m:auc_error()` bounds the
--- error of its AUC: about 1e-4 with 65536.
---@param options? { loss?: "bce"|"mse", bins?: integer } mse: scores are values, not logits
---@return Metrics
function metrics.new(options)
  local o = options or {}
  options_check("mr.metrics", o, METRICS_OPTIONS)
  local self = setmetatable({ regression = o.loss == "mse" }, Metrics)
  local handle = err.check(C.mr_metrics_new(self.regression and 1 or 0, o.bins or 0))
  self.c = ffi.gc(handle, C.mr_metrics_free)
  self.score = ffi.new "mr_score"
  return self
end

--- Adds a batch, with its sample weights if it has any.
---@param logits table|ffi.cdata* [n] or [n, 1]
---@param label table batch.label; or const float * [n], then n and, if any, weights [n] follow
---@param n? integer
---@param weight? ffi.cdata*
function Metrics:add(logits, label, n, weight)
  if type(label) == "cdata" then
    return err.check(C.mr_metrics_add(self.c, floats("mr.metrics", logits, n), label, weight, n))
  end
  local batch = labelled("mr.metrics", label)
  err.check(C.mr_metrics_add_batch(self.c, floats("mr.metrics", logits, batch.n), batch.c))
end

--- Forgets all samples.
function Metrics:reset() C.mr_metrics_reset(self.c) end

--- The metrics of what was added so far; more may be added afterwards.
---@return { rows: number, logloss: number, auc: number, accuracy: number, rmse: number,
---  label: number, prediction: number } label and prediction are means (calibration is
---  prediction / label); NaN where undefined; logloss, auc and accuracy not for "mse"
function Metrics:result()
  err.check(C.mr_metrics_read(self.c, self.score))
  return result(self.score, self.regression)
end

--- How far the AUC of the last result may be from the exact one; 0 without bins.
---@return number
function Metrics:auc_error() return self.score.auc_error end

---@class Watch
local Watch = {}
Watch.__index = Watch

local WATCH_OPTIONS = { loss = true, window = true, every = true }
local UNITS = { s = "seconds", second = "seconds", seconds = "seconds", batch = "batches",
  batches = "batches", sample = "samples", samples = "samples" }

-- "10s", "100 batches", "5000 samples" or a number of samples, as number and unit.
local function period(every)
  if type(every) == "number" and every > 0 then return every, "samples" end
  local number, unit = tostring(every):match "^%s*([%d.]+)%s*(%a+)%s*$"
  number, unit = tonumber(number), UNITS[unit]
  if not number or not unit or number <= 0 then
    err.raise("mr.watch: every is %q, expected as \"10s\", \"100 batches\" or a number of samples",
      tostring(every))
  end
  return number, unit
end

--- Progressive validation: metrics of the last `window` samples (exact) and of all so far (the
--- AUC by 4096 bins). What it saves depends on the samples alone; only `due` in seconds looks at
--- a clock.
---@param options? { loss?: "bce"|"mse", window?: integer, every?: string|number } `every`: "10s",
---  "100 batches", "5000 samples" or a number of samples
---@return Watch
function metrics.watch(options)
  local o = options or {}
  options_check("mr.watch", o, WATCH_OPTIONS)
  local self = setmetatable({ regression = o.loss == "mse" }, Watch)
  self.window = o.window or DEFAULT_WINDOW
  self.every, self.unit = period(o.every or DEFAULT_EVERY)
  local handle = err.check(C.mr_watch_new(self.regression and 1 or 0, self.window))
  self.c = ffi.gc(handle, C.mr_watch_free)
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
  local n = batch.n
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
  local window, total = result(self.recent, self.regression), result(self.all, self.regression)
  return { rows = total.rows, window = window, total = total }
end

local function number(x) return x == x and ("%.4f"):format(x) or "-" end

local function words(r)
  if not r.logloss then return "rmse " .. number(r.rmse) end
  return "logloss " .. number(r.logloss) .. " auc " .. number(r.auc)
end

--- One line for people: `rows 120000   last 10000: logloss 0.4512 auc 0.7712   all: ...`.
---@return string
function Watch:line()
  local r = self:result()
  return ("rows %d   last %d: %s   all: %s"):format(r.rows, r.window.rows, words(r.window),
    words(r.total))
end

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

return metrics

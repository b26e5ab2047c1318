--- The online loop: every batch is scored before it is learned from, and weights, metrics and the
-- position in the stream are committed together.
local C = require "moonrock.ffi"
local clip = require "moonrock.clip"
local metrics = require "moonrock.metrics"
local normalize = require "moonrock.normalize"
local optim = require "moonrock.optim"
local trainer = require "moonrock.trainer"

local stream = {}

local SIZE = 1        -- samples of a batch
local FADE_EVERY = 10 -- updates of a weight, see stream.optim

--- The optimizer of a model in a stream that may drift: its own, but Adagrad, whose steps get ever smaller,
--- forgets: its sum of squares fades by a tenth every 10 updates of a weight.
---@param definition table
---@return table
function stream.optim(definition)
  local rule = optim.of(definition.settings.optim or "adam")
  if not rule.fade_every or rule.fade_every > 0 then return rule end
  local settings = {}
  for name, value in pairs(rule) do settings[name] = value end
  settings.fade_every = FADE_EVERY
  return optim.of(settings)
end

-- mr.learn, its options checked.
local function learn_from(model, from, o)
  if o.schedule then model:set_schedule(o.schedule) end
  local shift = o.negative_rate and math.log(o.negative_rate)
  if shift then model.shift = o.correction == "q" and shift or nil end
  local training_shift = o.correction == "shift" and shift or nil
  model.label_shift = training_shift
  local prepare = trainer.preparation(model, o)
  local watch = metrics.watch { window = o.window, every = o.every, loss = model.loss_name }
  if model.watch_bytes then watch:load(model.watch_bytes) end
  model.watch = watch
  local size = o.size or model.definition.settings.stream_size or SIZE
  local batches = model:stream(from, { size = size, max_wait = o.max_wait, follow = o.follow,
    bad_lines = o.bad_lines, shuffle = false, from = o.from })
  local scales, rows, sum = normalize.watch(model), 0, 0
  local function check_scales()
    if rows > 0 then scales:notice(trainer.loss_key(model), sum / rows) end
    rows, sum = 0, 0
  end
  normalize.of_one(model, size)
  watch.skipped, watch.rows_learned = 0, 0

  -- Scores that are no numbers are no part of the metrics where their batch is dropped.
  local function score(logits, batch)
    if o.on_nan ~= "skip" then return watch:add(logits, batch.label) end
    pcall(watch.add, watch, logits, batch.label)
  end

  -- Learns from a batch: false if it was dropped.
  local function learn(batch)
    local logits
    if o.negative_rate then -- scored whole, then drawn from
      model:eval()
      score(model(batch), batch)
      model:train()
      prepare(batch)
      if batch.n == 0 then
        model:skip()
        return true
      end
      logits = model(batch)
    else
      logits = model(batch)
      score(logits, batch)
      if prepare then prepare(batch) end
    end
    if training_shift then logits = logits - training_shift end
    local loss = trainer.loss(model, logits, batch)
    local value = loss:value()
    if not loss:backward() then
      model:skip()
      return false
    end
    scales:add(batch)
    rows, sum = rows + batch.n, sum + value * batch.n
    if o.on_batch then o.on_batch(batch, value, batches) end
    return model:step()
  end

  -- What the data itself ends with, as a truncated file: what was learned up to there is kept.
  local function next_batch()
    local ok, batch = pcall(batches)
    if ok then return batch end
    if type(batch) == "table" and batch.interrupted then return nil end
    if type(batch) == "string" and not model.broken and model.store and model.batches_since > 0 then
      model:commit()
    end
    error(batch, 0)
  end

  for batch in next_batch do
    local n = batch.n
    if learn(batch) then
      watch.rows_learned = watch.rows_learned + n
    else
      watch.skipped = watch.skipped + 1
      if not watch.first_skipped then
        watch.first_skipped = n == 1 and batches:where(1)
          or ("%s to %s"):format(batches:where(1), batches:where(n))
        model.notice(("a batch that is not finite is skipped: %s"):format(watch.first_skipped))
      end
    end
    if watch:due() then
      check_scales()
      if o.on_line then o.on_line(watch) end
    end
    if model:commit_due() then model:commit_behind() end
    if C.mr_interrupted() ~= 0 then break end
  end
  check_scales()
  watch.bad_lines, watch.first_bad = batches:skipped()
  watch.reason = batches.reason
  batches:close()
  if model.store and (watch.rows_learned > 0 or model.batches_since > 0 or model.files_changed) then
    model:commit()
  end
  local signal = C.mr_interrupted()
  if signal ~= 0 then error({ interrupted = signal, watch = watch }, 0) end
  return watch
end

--- Learns from a stream until it ends or a signal arrives; then commits.
---@param model table
---@param from string "-", a file
---@param options table|nil size (1, or the definition's stream_size), max_wait (seconds),
--- follow, bad_lines, window (samples of the
--- windowed metrics), every (samples between lines), on_line(watch), on_batch(batch, loss, iterator),
--- from = "start" (of the file, whatever was read of it before); and of mr.fit: on_nan, class_weight,
--- negative_rate, correction, schedule, clip_norm, clip_each, clip_value. Metrics are of the data as it is
---@return table watch with its metrics, which the error of a signal has, too; bad_lines, first_bad: lines
--- that were skipped; skipped, first_skipped: batches that were not finite; rows_learned; reason: why there
--- was nothing to learn
function stream.learn(model, from, options)
  local o = options or {}
  for name, value in pairs(o) do trainer.check_option(name, value, true) end
  o = setmetatable({ correction = o.correction or "shift" }, { __index = o })
  trainer.check_classes(model, o)
  return trainer.during(model, { clip = clip.of("mr.learn", o), on_nan = o.on_nan }, learn_from, model, from,
    o)
end

return stream

--- Training loops: `fit` (epochs, validation, early stopping, commits), `evaluate`, `predict`.
local C = require "moonrock.ffi"
local clip = require "moonrock.clip"
local err = require "moonrock.error"
local metrics = require "moonrock.metrics"

local trainer = {}

local EVAL_BATCH = 4096

--- Raises {interrupted = signal} if a signal asked the program to stop.
local function poll_interrupt(model)
  local signal = C.mr_interrupted()
  if signal ~= 0 then
    if model.store then model:commit() end
    error({ interrupted = signal }, 0)
  end
end
trainer.poll_interrupt = poll_interrupt

--- The model's loss of a batch: its own, or that of its scores and the labels.
function trainer.loss(model, logits, batch)
  if model.own_loss then return model.own_loss(logits, batch) end
  return model.objective.of(logits, batch.label)
end

-- What the mean of it is called.
local function loss_key(model)
  if model.own_loss or model.objective.options then return "loss" end
  return model.loss_name == "bce" and "logloss" or model.loss_name
end

local function inference(model, work, ...)
  local training = model.training
  model:eval()
  local ok, result = pcall(work, ...)
  if training then model:train() end
  if not ok then error(result, 0) end
  return result
end

--- Scores labelled batches without learning from them: creates no rows, writes nothing.
---@param model table
---@param batches table an iterator of batches; it is closed
---@param options? MetricsOptions group, k, slice, values, bins
---@return table as of Metrics:result()
function trainer.evaluate(model, batches, options)
  local o = { loss = model.loss_name }
  for name, value in pairs(options or {}) do o[name] = value end
  return inference(model, function()
    local meter = metrics.new(o)
    for batch in batches do
      meter:add(model(batch), batch.label)
      if C.mr_interrupted() ~= 0 then error({ interrupted = C.mr_interrupted() }, 0) end
    end
    batches:close()
    return meter:result()
  end)
end

--- Calls `each(logits, batch)` with the logits of every batch, in order.
function trainer.predict(model, batches, each)
  inference(model, function()
    for batch in batches do each(model(batch), batch) end
    batches:close()
  end)
end

local DEFAULTS = { epochs = 1, size = 256, shuffle = true, monitor = "auc" }

local OPTIONS = { train = true, valid = true, test = true, epochs = true, size = true,
  shuffle = true, window = true, patience = true, reduce = true, monitor = true, on_event = true,
  on_batch = true, bad_lines = true, split = true, memory = true, schedule = true, clip_norm = true,
  clip_each = true, clip_value = true, metrics = true }

-- Whether metric a is better than b.
local function better(monitor, a, b)
  if a ~= a then return false end
  if b == nil or b ~= b then return true end
  if metrics.better[monitor] == 1 then return a > b end
  return a < b
end

--- The loop everybody writes. Resumes where the model's last commit left off; the options must
--- then be the same for the result to be.
---@param model table
---@param options table train, valid, test (parts of the schema or files), epochs, size, shuffle,
--- window, patience (epochs without a better `monitor`, then the best state is restored), reduce
--- (factor of the learning rate after each such epoch), schedule (of the learning rate by steps; both
--- multiply), monitor = "auc" | "logloss" | "gauc" ..., metrics (options of mr.metrics for the validation
--- and test data), on_event(event), on_batch(batch, loss, iterator), bad_lines, split; clip_norm,
--- clip_each and clip_value in the place of the model's (see moonrock.clip)
---@return table the result event
function trainer.fit(model, options)
  local o = {}
  for name, value in pairs(DEFAULTS) do o[name] = value end
  for name, value in pairs(options) do
    if not OPTIONS[name] then err.raise("mr.fit has no option %q", tostring(name)) end
    o[name] = value
  end
  model.clip = clip.of("mr.fit", o) or model.clip
  if model.objective.link ~= C.MR_LOGIT and o.monitor == "auc" then o.monitor = "rmse" end
  if metrics.better[o.monitor] == 0 then
    err.raise("mr.fit: monitor %q is neither better when larger nor when smaller", o.monitor)
  end
  if o.schedule then model:set_schedule(o.schedule) end
  local emit = o.on_event or function() end
  local began = C.mr_clock()
  local run = model.fit
  local stopping = o.valid and o.patience and model.store
  run.done = run.done or 0
  run.loss, run.rows = run.loss or 0, run.rows or 0

  local epoch_began = began
  local function data_options(part)
    return { size = EVAL_BATCH, epochs = 1, shuffle = false, bad_lines = o.bad_lines,
      split = o.split and { fraction = o.split, part = part } or nil }
  end

  local function keep_best()
    if stopping and run.best_epoch == run.done and run.best_epoch then
      model.store:checkpoint("best")
    end
  end

  -- Scores the validation data. A signal meanwhile leaves the epoch's end to the next run.
  local function validate()
    local ok, scores = pcall(trainer.evaluate, model, model.data:batches(o.valid, data_options("valid")),
      o.metrics)
    if ok then return scores end
    if model.store and type(scores) == "table" and scores.interrupted then model:commit() end
    error(scores, 0)
  end

  local function epoch_end(seconds)
    local valid = o.valid and validate()
    run.done = run.done + 1
    local event = { event = "epoch", epoch = run.done, steps = model.step_number, rows = run.rows,
      seconds = seconds, rows_per_second = seconds > 0 and math.floor(run.rows / seconds) or nil,
      train = { [loss_key(model)] = run.loss / math.max(run.rows, 1) } }
    run.loss, run.rows = 0, 0
    if valid then
      event.valid = valid
      local value = valid[o.monitor]
      if value == nil then
        err.raise("mr.fit: monitor %q is no metric of the validation data", tostring(o.monitor))
      end
      if better(o.monitor, value, run.best) then
        run.best, run.best_epoch, run.waited = value, run.done, 0
        run.best_valid = valid
      else
        run.waited = (run.waited or 0) + 1
        if o.reduce then model:scale_lr(model.lr_factor * o.reduce) end
        if o.patience and run.waited >= o.patience then run.finished = true end
      end
    end
    if model.store then
      model:commit()
      keep_best()
    end
    emit(event)
    epoch_began = C.mr_clock()
  end

  model.manual_commits = true
  if tonumber(model.position.epoch) > run.done then
    epoch_end(0)
  elseif run.rows == 0 then
    keep_best() -- the end of an epoch was committed, but perhaps not kept; later states are not it
  end

  if not run.finished and run.done < o.epochs then
    local batches = model:batches(o.train, { size = o.size, epochs = o.epochs, shuffle = o.shuffle,
      window = o.window, bad_lines = o.bad_lines, memory = o.memory,
      split = o.split and { fraction = o.split, part = "train" } or nil })
    for batch in batches do
      local n, last = batch.n, batch.last_of_epoch
      local loss = trainer.loss(model, model(batch), batch)
      local value = loss:value()
      loss:backward()
      if o.on_batch then o.on_batch(batch, value, batches) end
      run.loss, run.rows = run.loss + value * n, run.rows + n
      model:step() -- which may commit
      if last then
        epoch_end(C.mr_clock() - epoch_began)
        if run.finished then break end
      elseif model:commit_due() then
        model:commit_behind()
      end
      poll_interrupt(model)
    end
    batches:close()
  end

  if stopping and run.best_epoch and run.best_epoch ~= run.done then
    model:restore("best")
    run = model.fit
    run.finished = true
    model:commit()
  elseif model.store and (not run.finished or model.batches_since > 0) then
    model:commit()
  end
  model.manual_commits = nil

  local rows = 0
  for _, t in ipairs(model.tables) do rows = rows + t:rows() end
  local result = { event = "result", steps = model.step_number, seconds = C.mr_clock() - began,
    peak_rss_bytes = C.mr_memory_peak(), table_rows = rows, valid = run.best_valid }
  if o.valid and not result.valid then
    result.valid = trainer.evaluate(model, model.data:batches(o.valid, data_options("valid")),
      o.metrics)
  end
  if o.test then
    result.test = trainer.evaluate(model, model.data:batches(o.test, data_options()), o.metrics)
  end
  result.peak_rss_bytes = C.mr_memory_peak()
  emit(result)
  return result
end

return trainer

--- Training loops: `fit` (epochs, validation, early stopping, commits), `evaluate`, `predict`.
local ffi = require "ffi"
local C = require "moonrock.ffi"
local clip = require "moonrock.clip"
local err = require "moonrock.error"
local metrics = require "moonrock.metrics"
local normalize = require "moonrock.normalize"
local position = require "moonrock.position"

local trainer = {}

local EVAL_BATCH = 4096
local NO_RATE = 1e-10 -- of a learning rate: nothing

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
trainer.loss_key = loss_key

local function inference(model, work, ...)
  local training, profiled = model.training, C.mr_profile_pause() == 1
  model:eval()
  local ok, result = pcall(work, ...)
  if training then model:train() end
  if profiled then C.mr_profile_resume() end
  if not ok then error(result, 0) end
  return result
end

--- Scores labelled batches without learning from them: creates no rows, writes nothing.
---@param model table
---@param batches table an iterator of batches; it is closed
---@param options? MetricsOptions group, k, slice, values, bins
---@return table as of Metrics:result()
function trainer.evaluate(model, batches, options)
  if type(batches) == "string" then
    err.raise("mr.evaluate: expected batches, found the text %q; model:batches(FILE) reads a file", batches)
  end
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

-- ---- the options of fit -------------------------------------------------------------------------

local DEFAULTS = { epochs = 1, size = 64, shuffle = true, monitor = "auc", accumulate = 1,
  on_nan = "stop", correction = "shift" }

-- What each is: a type; words, one of which it is; "count" is a whole number from 1, "any" is checked
-- where it is used.
local OPTIONS = { train = "any", valid = "any", test = "any", epochs = "count", size = "count",
  shuffle = "any", window = "count", patience = "count", reduce = "number", monitor = "string",
  validate_every = "count", accumulate = "count", class_weight = "any", negative_rate = "number",
  correction = { "shift", "weight", "q" }, on_nan = { "stop", "skip" }, on_event = "function",
  on_data = "function", on_batch = "function", on_step = "function", on_epoch = "function",
  on_validate = "function", bad_lines = { "error", "skip" }, split = "any", memory = "boolean",
  schedule = "any", clip_norm = "number", clip_each = "number", clip_value = "number", metrics = "table",
  from = { "start" } }

local CORRECTION = { shift = "sampled", weight = "weighted", q = "sampled" }

-- Those that `mr.learn` takes as well.
local LEARN = {}
for _, name in ipairs { "size", "window", "class_weight", "negative_rate", "correction", "on_nan",
  "bad_lines", "schedule", "clip_norm", "clip_each", "clip_value", "from", "on_batch" } do
  LEARN[name] = OPTIONS[name]
end
LEARN.max_wait, LEARN.follow, LEARN.every, LEARN.on_line = "number", "boolean", "any", "function"

local function one_of(name, value, words)
  for _, word in ipairs(words) do
    if value == word then return end
  end
  err.raise("mr.fit: %s is %s, expected one of %s", name, err.show(value), table.concat(words, ", "))
end

--- Raises if an option of fit is none, or not of its type.
---@param name string
---@param value any
---@param learning boolean|nil of mr.learn instead
function trainer.check_option(name, value, learning)
  local kind = OPTIONS[name]
  if learning then
    kind = LEARN[name]
    if not kind then
      err.raise(OPTIONS[name] and "mr.learn takes no %s, which is of mr.fit" or "mr.learn has no option %q",
        tostring(name))
    end
    if value == "balanced" and name == "class_weight" then
      err.raise("mr.learn: class_weight is balanced, which needs a pass over the data; give "
        .. "{ negative, positive }")
    end
  end
  if not kind then err.raise("mr.fit has no option %q", tostring(name)) end
  if kind == "any" then return end
  if type(kind) == "table" then return one_of(name, value, kind) end
  if kind == "count" then
    if type(value) ~= "number" or value < 1 or value % 1 ~= 0 then
      err.raise("mr.fit: %s is %s, expected a whole number from 1", name, err.show(value))
    end
  elseif type(value) ~= kind then
    err.raise("mr.fit: %s is a %s, expected a %s", name, type(value), kind)
  end
end

-- "auc" is "rmse" where scores are no logits.
local function check_monitor(model, o)
  if model.objective.link ~= C.MR_LOGIT and o.monitor == "auc" then o.monitor = "rmse" end
  if metrics.better[o.monitor] == 0 then
    err.raise("mr.fit: monitor %q is neither better when larger nor when smaller", o.monitor)
  end
  local words = {}
  for _, name in ipairs(metrics.of(model.objective.link, o.metrics and o.metrics.group)) do
    if metrics.better[name] ~= 0 then words[#words + 1] = name end
  end
  one_of("monitor", o.monitor, words)
end

local function options_of(model, given)
  if type(model) ~= "table" or not model.step_number then
    err.raise("mr.fit: expected a model, got %s", type(model) == "table" and model.build
      and ("the definition of %s; call it with its options"):format(model.name) or "a " .. type(model))
  end
  if type(given) ~= "table" then
    err.raise("mr.fit: expected a table of options, got a %s", type(given))
  end
  local o = {}
  for name, value in pairs(DEFAULTS) do o[name] = value end
  for name, value in pairs(given) do
    trainer.check_option(name, value)
    o[name] = value
  end
  if not o.train then err.raise 'mr.fit: train is missing, expected "train" or files' end
  check_monitor(model, o)
  trainer.check_classes(model, o)
  if type(o.split) == "number" then o.split = { fraction = o.split } end
  return o
end

--- Raises if what is said of classes makes no sense.
---@private
function trainer.check_classes(model, o)
  local rate, classes = o.negative_rate, o.class_weight
  if rate and model.loss_name ~= "bce" or classes and model.objective.link ~= C.MR_LOGIT then
    err.raise("mr.fit: %s is for labels 0 and 1, and model %s has the loss %s",
      rate and "negative_rate" or "class_weight", model.name, model.loss_name)
  end
  if rate and not (rate > 0 and rate <= 1) then
    err.raise("mr.fit: negative_rate is %g, expected more than 0 and at most 1", rate)
  end
  if classes and classes ~= "balanced" and not (type(classes) == "table" and #classes == 2
    and tonumber(classes[1]) and tonumber(classes[2]) and classes[1] >= 0 and classes[2] >= 0) then
    err.raise('mr.fit: class_weight is %s, expected { negative, positive } or "balanced"',
      tostring(classes))
  end
end

-- The split with the part to read, for a reader.
local function split_of(o, part)
  local split = o.split
  return split and { fraction = split.fraction, fold = split.fold, folds = split.folds, part = part } or nil
end

-- Whether metric a is better than b.
local function better(monitor, a, b)
  if a ~= a then return false end
  if b == nil or b ~= b then return true end
  if metrics.better[monitor] == 1 then return a > b end
  return a < b
end
trainer.better = better

-- ---- what is done to a batch before it is learned from --------------------------------------------

-- n / (2 n_c) of both classes, by one pass over the training data.
local function balanced(model, o, files)
  local meter = metrics.new { loss = "mse" }
  local batches = model.data:batches(files, { size = EVAL_BATCH, bad_lines = o.bad_lines,
    split = split_of(o, "train") })
  for batch in batches do meter:add(batch.c.label, batch.c.label, batch.n) end
  batches:close()
  local positive = meter:result().label
  if not (positive > 0 and positive < 1) then
    err.raise("mr.fit: class_weight is balanced, but %g of the training data are positive", positive)
  end
  return { 1 / (2 * (1 - positive)), 1 / (2 * positive) }
end

-- A function that drops negatives of a batch and weights the rest, as the options say; or nil.
local function preparation(model, o, files)
  local rate, run = o.negative_rate, model.fit
  if not rate and not o.class_weight then return nil end
  run.class_weight = o.class_weight == "balanced" and (run.class_weight or balanced(model, o, files)) or nil
  local classes = run.class_weight or o.class_weight or { 1, 1 }
  local negative, positive = classes[1], classes[2]
  if rate and o.correction == "weight" then negative = negative / rate end
  local weighs = negative ~= 1 or positive ~= 1
  local room, weight, of, c = 0, nil, nil, nil
  return function(batch)
    if batch ~= of then of, c = batch, ffi.cast("mr_batch *", batch.c) end -- a reader's one batch
    if rate then batch.n = err.check(C.mr_batch_draw(c, model.seed, batch.epoch, rate)) end
    if not weighs then return end
    if batch.n > room then
      room = math.max(batch.n, o.size or 0)
      weight = ffi.new("float[?]", room)
    end
    err.check(C.mr_batch_weigh(c, negative, positive, weight))
  end
end

trainer.preparation = preparation

-- Options that have no effect, each with why.
local OF_VALIDATION = { "patience", "monitor", "reduce", "validate_every", "on_validate" }

local function tell_unused(model, o, given)
  local function tell(name, why) model.notice(("%s has no effect: %s"):format(name, why)) end
  for _, name in ipairs(OF_VALIDATION) do
    if given[name] ~= nil and not o.valid then
      tell(name, "there is no validation data" .. (model.command and " (--valid)" or " (valid =)"))
    end
  end
  if given.split and not o.valid then
    model.notice "what split holds out is neither trained on nor scored: give valid = the same data"
  end
  if given.metrics and not o.valid and not o.test then
    tell("metrics", "there is no validation or test data")
  end
  if given.window and (o.shuffle == false or o.shuffle == "full") then
    tell("window", o.shuffle and "all samples are mixed" or "the samples are not shuffled")
  end
  if given.correction and not o.negative_rate then tell("correction", "no negatives are left out") end
end

-- Reads the first sample of data that is to be scored after an epoch, so that what is wrong with it is known
-- before. What can be read only once is left alone.
local function check_readable(model, o)
  for _, part in ipairs { "valid", "test" } do
    local files = o[part]
    local paths = files and files ~= o.train and model.data:paths(files) or {}
    local once = false
    for _, path in ipairs(type(paths) == "table" and paths or { paths }) do
      once = once or path == "-" or C.mr_path_kind(path) == C.MR_PATH_ONCE
    end
    if #paths > 0 and not once then
      local batches = model.data:batches(files, { size = 1, epochs = 1, shuffle = false, memory = false,
        bad_lines = o.bad_lines, limit = 1 })
      local ok, problem = pcall(batches)
      batches:close()
      if not ok then error(problem, 0) end
    end
  end
end

-- ---- the loop ---------------------------------------------------------------------------------

--- Does work with settings that end with it, however it ends: the bounds of gradients, and what becomes of
--- batches that are not finite. Commits are the work's own.
---@param model table
---@param settings table clip (nil: the model's), on_nan
---@param work function
---@param ... any its arguments
---@return any ... what it returns
function trainer.during(model, settings, work, ...)
  local bounds, shift = model.clip, model.label_shift
  model.clip, model.on_nan, model.manual_commits = settings.clip or bounds, settings.on_nan, true
  local function finish(ok, ...)
    model.clip, model.label_shift, model.on_nan, model.manual_commits = bounds, shift, nil, nil
    if not ok then error((...), 0) end
    return ...
  end
  return finish(pcall(work, ...))
end

-- mr.fit, its options checked.
local function fit(model, o)
  if o.schedule then model:set_schedule(o.schedule) end
  local emit = o.on_event or function() end
  local began = C.mr_clock()
  local run, rows_before = model.fit, 0
  local stopping = o.valid and o.patience and model.store
  local first_step = model.step_number
  local shift = o.negative_rate and math.log(o.negative_rate)
  model.shift = o.correction == "q" and shift or nil
  local training_shift = o.correction == "shift" and shift
  model.label_shift = training_shift
  local scale = o.negative_rate and CORRECTION[o.correction] or o.class_weight and "weighted" or nil

  local epoch_began = began
  -- Batches of validation or test data, scored.
  local here -- the part of the plan that is trained
  local function score(files, part)
    local split = part == "valid" and split_of(o, part) or nil
    local own = split and here and files == o.train and here or { set = {} } -- held out of what is trained
    local batches = model.data:batches(own.files or files, { size = EVAL_BATCH, epochs = 1, shuffle = false,
      bad_lines = o.bad_lines, split = split, sizes = own.sizes, skip = own.set.skip })
    if o.on_data then o.on_data(batches, part) end
    return trainer.evaluate(model, batches, o.metrics)
  end

  local function tell(name, event)
    if o[name] and o[name](event) == false then run.ended = { why = name, step = model.step_number } end
  end

  -- Keeps the state that was just committed if it is the best. One that was committed, but not kept
  -- before the run was killed, is kept when it goes on.
  local function keep_best()
    if stopping and run.best_step == model.step_number then model.store:checkpoint("best") end
  end

  -- Scores the validation data. A signal meanwhile leaves that to the next run.
  local function validate()
    local ok, scores = pcall(score, o.valid, "valid")
    if not ok then
      if model.store and type(scores) == "table" and scores.interrupted then model:commit() end
      error(scores, 0)
    end
    local value = scores[o.monitor]
    run.valid, run.validated = scores, model.step_number
    local undefined = metrics.undefined(scores, o.monitor)
    if undefined then
      if run.undefined ~= o.monitor then
        run.undefined = o.monitor
        local text = ("%s of %s is not defined: %s; %s%s"):format(o.monitor,
          type(o.valid) == "string" and o.valid or "the validation data", undefined,
          model.command and "--set fit.monitor=" or "monitor = ",
          o.monitor == "logloss" and "auc" or "logloss")
        model.notice(text)
        emit { event = "notice", text = text }
      end
    elseif better(o.monitor, value, run.best) then
      run.best, run.best_valid, run.waited = value, scores, 0
      run.best_step, run.best_epoch = model.step_number, run.done + 1
    else
      run.waited = (run.waited or 0) + 1
      if o.reduce then
        model:scale_lr(model.lr_factor * o.reduce)
        if model.lr_factor < NO_RATE and not run.no_rate then
          run.no_rate = true
          model.notice(("the learning rate was reduced to %.0e of what it was: nothing is learned any more; "
            .. "patience = ends such a run"):format(model.lr_factor))
        end
        run.lr_factor = model.lr_factor
      end
      if o.patience and run.waited >= o.patience then
        run.ended = { why = "early", monitor = o.monitor, patience = o.patience, epochs = run.done + 1,
          step = run.best_step or model.step_number }
      end
    end
    return scores
  end

  local function finish_validation(event)
    if event.valid then tell("on_validate", event) end
    if event.event == "epoch" then tell("on_epoch", event) end
    if model.store then
      model:commit()
      keep_best()
    end
    emit(event)
  end

  local scales = normalize.watch(model)

  local function epoch_end(seconds)
    local valid = o.valid and validate() or nil
    run.done = run.done + 1
    local mean = run.loss / math.max(run.weight > 0 and run.weight or run.rows, 1e-300)
    local event = { event = "epoch", epoch = run.done, steps = model.step_number, rows = run.rows,
      seconds = seconds,
      rows_per_second = seconds > 0 and math.floor((run.rows - rows_before) / seconds) or nil,
      train = { [loss_key(model)] = run.rows > 0 and mean or 0, scale = scale }, valid = valid,
      skipped = run.skipped }
    event.notice = scales:notice(loss_key(model), run.rows > 0 and mean or 0)
    run.loss, run.rows, run.weight, rows_before = 0, 0, 0, 0
    finish_validation(event)
    epoch_began = C.mr_clock()
  end

  -- Whether the steps so far ask for a validation that was not made yet.
  local function validation_due()
    local step = model.step_number
    return o.valid and o.validate_every and step > 0 and step % o.validate_every == 0
      and run.validated ~= step
  end

  local function validate_now()
    local valid = validate()
    finish_validation { event = "valid", epoch = run.done + 1, steps = model.step_number, valid = valid }
  end

  local reading = { size = o.size, epochs = o.epochs, shuffle = o.shuffle, window = o.window,
    bad_lines = o.bad_lines, memory = o.memory, split = split_of(o, "train"), own = o.negative_rate ~= nil,
    seed = model.seed }

  local checked = false
  local function learn_part(p)
    local batches = model:part(p, reading)
    if not checked then
      checked = true
      check_readable(model, o)
    end
    if o.on_data then o.on_data(batches, "train", loss_key(model)) end
    local prepare = preparation(model, o, p.files)
    normalize.of_one(model, o.size)
    -- since the last step: batches, samples, the sum of their losses, batches that were dropped
    local count, rows, weight, loss_sum, skipped = 0, 0, 0, 0, 0
    local weighted = not model.own_loss

    local function learn(batch)
      local logits = model(batch)
      if training_shift then logits = logits - training_shift end
      local loss = err.call(model.subject, trainer.loss, model, logits, batch)
      local value = loss:value()
      if o.accumulate > 1 then loss = loss * batch.n end
      if loss:backward() then
        rows, loss_sum = rows + batch.n, loss_sum + value * batch.n
        weight = weight + (weighted and C.mr_batch_weight(batch.c) or batch.n)
        scales:add(batch)
      else
        skipped = skipped + 1
      end
      if o.on_batch then
        local sum = weighted and C.mr_batch_weight(batch.c) or batch.n
        o.on_batch(batch, sum > 0 and value * batch.n / sum or value, batches)
      end
    end

    -- One step of all batches since the last, or none if nothing of them is left.
    local function step()
      if rows == 0 then
        model:skip()
      else
        if o.accumulate > 1 then model:scale_gradients(1 / rows) end
        if not model:step() then skipped, rows, weight, loss_sum = count, 0, 0, 0 end
      end
      run.loss, run.rows, run.weight = run.loss + loss_sum, run.rows + rows, run.weight + weight
      if skipped > 0 then run.skipped = (run.skipped or 0) + skipped end
      if o.on_step and rows > 0 and o.on_step(model.step_number, loss_sum / rows) == false then
        run.ended = { why = "on_step", step = model.step_number }
      end
      count, rows, weight, loss_sum, skipped = 0, 0, 0, 0, 0
    end

    for batch in batches do
      local last = batch.last_of_epoch
      if prepare then prepare(batch) end
      if batch.n > 0 then learn(batch) else model:pass(batch) end
      count = count + 1
      if last or count == o.accumulate then
        step()
        if last then
          epoch_end(C.mr_clock() - epoch_began)
        elseif validation_due() then
          validate_now()
        elseif model:commit_due() then
          model:commit_behind()
        end
        if run.ended then break end
        poll_interrupt(model)
      end
    end
    batches:close()
  end

  -- Trains one part of the plan; returns what there is to say of its end.
  local function train_part(p)
    position.begin(model, p)
    here, run = p, model.fit
    run.done, run.loss, run.rows = run.done or 0, run.loss or 0, run.rows or 0
    run.weight = run.weight or run.rows
    rows_before = run.rows -- of the epoch under way, in earlier runs
    if run.monitor ~= o.monitor then
      if run.best_step and o.valid then
        model.notice(("monitor is %s, and was %s: the best state so far, step %d by %s, counts no more")
          :format(o.monitor, run.monitor, run.best_step, run.monitor))
      end
      run.best, run.best_valid, run.best_step, run.best_epoch, run.waited = nil, nil, nil, nil, nil
    end
    run.monitor = o.monitor
    if run.ended and run.ended.why == "early" and not (o.patience and run.waited >= o.patience) then
      run.ended = nil -- stopped before it went back, and now has more patience
    end
    if tonumber(model.position.epoch) > run.done then
      epoch_end(0)
    elseif validation_due() then
      validate_now()
    else
      keep_best()
    end
    if not run.ended and run.done < o.epochs then learn_part(p) end
    local said, ended = nil, run.ended
    if ended and ended.why == "early" then
      said = ("stopped early after epoch %d of %s: %s was not better %s; "):format(ended.epochs, p.label,
        o.monitor, o.patience == 1 and "once" or ("%d times"):format(o.patience))
    end
    if stopping and run.best_step and run.best_step ~= model.step_number then
      local finish = ended or { why = "epochs", epochs = run.done, step = run.best_step }
      local epoch = run.best_epoch
      model:restore("best")
      run = model.fit
      model.data_set.finished = finish
      said = ("%sback at the best, step %d of epoch %d; "):format(said or "",
        model.step_number, epoch)
      said = said .. (finish.why == "early" and position.option(model, "patience", 2 * o.patience)
        or position.option(model, "epochs", finish.epochs + 1)) .. " goes on from there"
      model.files_changed = true
    else
      model.data_set.finished, run.ended = ended, nil
      if said then
        said = ("%sthe state is that of step %d; %s goes on from there"):format(said, model.step_number,
          position.option(model, "patience", 2 * o.patience))
      elseif ended then
        said = ("ended by %s at step %d"):format(ended.why, model.step_number)
      end
    end
    if model.store then model:commit() end
    return said
  end

  local plan = setmetatable({ patience = o.patience, monitor = o.monitor, from = o.from, best = stopping },
    { __index = reading })
  local parts, reason = position.plan(model, "train", o.train, plan)
  for _, p in ipairs(parts) do reason = train_part(p) or reason end
  if reason and not o.on_event then model.notice(reason) end

  local rows = 0
  for _, t in ipairs(model.tables) do rows = rows + t:rows() end
  local result = { event = "result", steps = model.step_number, trained = model.step_number - first_step,
    reason = reason, seconds = C.mr_clock() - began,
    peak_rss_bytes = C.mr_memory_peak(), table_rows = rows, skipped = run.skipped,
    valid = run.validated == model.step_number and run.valid or nil }
  if o.valid and not result.valid then
    result.valid = score(o.valid, "valid")
  end
  if run.best_valid then
    result.best = { epoch = run.best_epoch, step = run.best_step, valid = run.best_valid }
  end
  if o.test then
    result.test = score(o.test, "test")
  end
  result.peak_rss_bytes = C.mr_memory_peak()
  emit(result)
  return result
end

--- The loop everybody writes. Resumes where the model's last commit left off; the options must
--- then be the same for the result to be.
---
--- accumulate = N: the gradients of N batches make one step, by the mean of the loss over all their
--- samples; an epoch's last step may be of fewer. Commits are between steps.
---
--- negative_rate = r: of the samples labelled 0 each stays with the chance r, drawn anew in each epoch
--- from (seed, epoch, number of the sample) alone. The scores are corrected in one of three ways, so
--- that they, and all metrics of validation and test data, which are never sampled, are of the data
--- as it is: correction = "shift" trains on logit - ln r (the metrics in `train` are then those of the
--- sampled data); "weight" gives negatives 1/r as weight; "q" trains on the sampled data and adds
--- ln r to the model's logits in evaluation from then on, q = p / (p + (1 - p) / r).
---@param model table
---@param options table train, valid, test (parts of the schema or files), epochs, size, shuffle,
--- window, bad_lines, memory, split (fraction of train that is valid; or { fold =, folds = });
--- validate_every (steps; besides the end of each epoch), metrics (options of mr.metrics for the
--- validation and test data), monitor = "auc" | "logloss" | "gauc" ... (one of these metrics), patience
--- (validations without a better `monitor`, then the best state is restored), reduce (factor of the
--- learning rate after each such validation), schedule (of the learning rate by steps; both multiply);
--- clip_norm, clip_each and clip_value in the place of the model's (see moonrock.clip);
--- accumulate, class_weight = { negative, positive } | "balanced" (n / (2 n_c)), negative_rate,
--- correction, on_nan = "stop" | "skip" (a batch whose loss or gradient is not finite is dropped and
--- counted); on_step(step, loss), on_epoch(event), on_validate(event), each of which ends the
--- training by returning false, as patience does; on_event(event); on_data(iterator, part, loss), of each
--- iterator of batches as it is opened: "train" with the loss's name, "valid", "test"; on_batch(batch,
--- loss, iterator)
---@return table the result event; its valid and test are of the model as it is now, best =
--- { epoch =, step =, valid = } is the best validation
function trainer.fit(model, options)
  local o = options_of(model, options)
  tell_unused(model, o, options)
  return trainer.during(model, { clip = clip.of("mr.fit", o), on_nan = o.on_nan }, fit, model, o)
end

return trainer

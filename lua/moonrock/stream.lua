--- The online loop: every batch is scored before it is learned from, and weights, metrics and the
-- position in the stream are committed together.
local C = require "moonrock.ffi"
local err = require "moonrock.error"
local metrics = require "moonrock.metrics"
local normalize = require "moonrock.normalize"
local optim = require "moonrock.optim"
local trainer = require "moonrock.trainer"

local stream = {}

local OPTIONS = { size = true, max_wait = true, follow = true, bad_lines = true, window = true,
  every = true, on_line = true, on_batch = true }

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

--- Learns from a stream until it ends or a signal arrives; then commits.
---@param model table
---@param from string "-", a file
---@param options table|nil size (1, or the definition's stream_size), max_wait (seconds), follow,
--- bad_lines, window (samples of the windowed metrics), every (samples between lines), on_line(watch),
--- on_batch(batch, loss, iterator)
---@return table watch with its metrics, and bad_lines, first_bad: lines that were skipped
function stream.learn(model, from, options)
  local o = options or {}
  for name in pairs(o) do
    if not OPTIONS[name] then err.raise("mr.learn has no option %q", tostring(name)) end
  end
  local watch = metrics.watch { window = o.window, every = o.every, loss = model.loss_name }
  if model.watch_bytes then watch:load(model.watch_bytes) end
  model.watch = watch
  model.manual_commits = true
  local size = o.size or model.definition.settings.stream_size or SIZE
  local batches = model:stream(from, { size = size, max_wait = o.max_wait, follow = o.follow,
    bad_lines = o.bad_lines, shuffle = false })
  local scales, rows, sum = normalize.watch(model), 0, 0
  local function check_scales()
    if rows > 0 then scales:notice(trainer.loss_key(model), sum / rows) end
    rows, sum = 0, 0
  end
  normalize.of_one(model, size)
  for batch in batches do
    local logits = model(batch)
    watch:add(logits, batch.label)
    local loss = trainer.loss(model, logits, batch)
    local value = loss:value()
    scales:add(batch)
    rows, sum = rows + batch.n, sum + value * batch.n
    loss:backward()
    if o.on_batch then o.on_batch(batch, value, batches) end
    model:step()
    if watch:due() then
      check_scales()
      if o.on_line then o.on_line(watch) end
    end
    if model:commit_due() then model:commit_behind() end
    trainer.poll_interrupt(model)
  end
  check_scales()
  watch.bad_lines, watch.first_bad = batches:skipped()
  batches:close()
  if model.store then model:commit() end
  local signal = C.mr_interrupted()
  if signal ~= 0 then error({ interrupted = signal }, 0) end
  return watch
end

return stream

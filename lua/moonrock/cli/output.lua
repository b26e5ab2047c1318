-- Results on standard output: lines for people, or JSON events with their keys in a fixed order.
local json = require "moonrock.json"
local metrics = require "moonrock.metrics"

local output = {}

local ORDER = { "event", "model", "epoch", "steps", "step", "folds", "rows", "seconds", "rows_per_second",
  "trained", "reason",
  "peak_rss_bytes", "table_rows", "bad_lines", "skipped", "window", "total", "train", "valid", "test", "best",
  "mean", "deviation", "scale", "value", "key", "logloss", "auc", "accuracy", "rmse", "mae", "ne", "pr_auc",
  "calibration", "ece", "label", "prediction", "groups", "k", "gauc", "ndcg", "precision", "recall",
  "hit_rate", "map", "mrr", "slices", "parts", "name", "direction", "calls" }

local METRICS = { "logloss", "auc", "accuracy", "rmse" }
local RANKED = { "gauc", "ndcg", "hit_rate", "mrr" } -- with groups
local SLICES = 20 -- lines of them, at most

local function round(x, digits)
  local scale = 10 ^ digits
  return math.floor(x * scale + 0.5) / scale
end

--- One JSON object on a line.
function output.event(event)
  if event.seconds then event.seconds = round(event.seconds, 3) end
  io.stdout:write(json.encode(event, { keyorder = ORDER }), "\n")
  io.stdout:flush()
end

--- The metrics of a part: "logloss 0.2801  auc 0.9261  ...".
---@param r table
---@param names string[]|nil which
function output.metrics(r, names)
  local words = {}
  local function add(list)
    for _, name in ipairs(list) do
      local x = r[name]
      if x then
        local why = x ~= x and not words.why and metrics.undefined(r, name)
        words.why = words.why or why
        words[#words + 1] = x == x and ("%s %.4f"):format(name, x)
          or ("%s undefined%s"):format(name, why and (" (%s)"):format(why) or "")
      end
    end
  end
  add(names or METRICS)
  if not names and r.groups then add(RANKED) end
  return table.concat(words, "  ")
end

-- Without what was not asked for; rows, logloss and auc stay.
local function chosen(r, names)
  local kept = { rows = r.rows, logloss = r.logloss, auc = r.auc, value = r.value, key = r.key,
    groups = r.groups, k = r.k }
  for _, name in ipairs(names) do kept[name] = r[name] end
  for i, slice in ipairs(r.slices or {}) do
    kept.slices = kept.slices or {}
    kept.slices[i] = chosen(slice, names)
  end
  return kept
end

-- "1234567" -> "1 234 567".
local function grouped(n)
  local text = ("%.0f"):format(n)
  local first = #text % 3
  local groups = { first > 0 and text:sub(1, first) or nil }
  for i = first + 1, #text, 3 do groups[#groups + 1] = text:sub(i, i + 2) end
  return table.concat(groups, " ")
end
output.grouped = grouped

local print_event = {}

function print_event.epoch(e)
  local line = ("epoch %d  %s steps  %s rows/s"):format(e.epoch, grouped(e.steps),
    grouped(e.rows_per_second or 0))
  for name, value in pairs(e.train) do
    if name ~= "scale" then line = ("%s  train %s %.4f"):format(line, name, value) end
  end
  if e.train.scale then line = ("%s (%s)"):format(line, e.train.scale) end
  if e.valid then
    line = ("%s  valid %s"):format(line, output.metrics(e.valid, e.valid.logloss and { "logloss", "auc" }
      or { "rmse" }))
  end
  print(line)
end

function print_event.valid(e)
  print(("epoch %d  %s steps  valid %s"):format(e.epoch, grouped(e.steps), output.metrics(e.valid)))
end

function print_event.folds(e)
  local words = {}
  for _, name in ipairs(METRICS) do
    local x = e.mean[name]
    if x and x == x then words[#words + 1] = ("%s %.4f (%.4f)"):format(name, x, e.deviation[name])
    elseif x then words[#words + 1] = name .. " undefined" end
  end
  print(("%d folds, mean (deviation)  %s"):format(e.folds, table.concat(words, "  ")))
end

function print_event.profile(e)
  print(("%-28s %9s %7s %10s %12s"):format("part", "seconds", "share", "calls", "us a call"))
  for _, part in ipairs(e.parts) do
    print(("%-28s %9.3f %6.1f%% %10s %12s"):format(
      part.direction and part.direction .. " " .. part.name or part.name, part.seconds,
      100 * part.seconds / e.seconds, part.calls > 0 and grouped(part.calls) or "",
      part.calls > 0 and ("%.1f"):format(1e6 * part.seconds / part.calls) or ""))
  end
end

function print_event.result(e, names)
  if e.steps then
    print(("%s steps in %.1f s  %s rows in tables  %s MB"):format(grouped(e.steps), e.seconds,
      grouped(e.table_rows), grouped(e.peak_rss_bytes / 1e6)))
  end
  if e.skipped then print(("%s batches were not finite and were skipped"):format(grouped(e.skipped))) end
  for _, part in ipairs { "valid", "test" } do
    local r = e[part]
    if r then print(("%-5s  %s rows  %s"):format(part, grouped(r.rows), output.metrics(r, names))) end
    local slices = r and r.slices or {}
    for i = 1, math.min(#slices, SLICES) do
      local s = slices[i]
      print(("  %-16s  %s rows  %s"):format(s.value or s.key, grouped(s.rows), output.metrics(s, names)))
    end
    if #slices > SLICES then print(("  and %d smaller ones (--json)"):format(#slices - SLICES)) end
  end
end

function print_event.notice() end -- which stands on standard error

-- Why nothing was trained, or training ended before its time: the last line.
local function reason(e, to)
  if e.event == "result" and e.reason then to:write(e.reason, "\n") end
end

--- A printer of events: JSON, or lines.
---@param as_json boolean
---@param names string[]|nil metrics to show
---@return fun(event: table)
function output.printer(as_json, names)
  if as_json then
    return function(event)
      if names and event.test then event.test = chosen(event.test, names) end
      output.event(event)
      reason(event, io.stderr)
    end
  end
  return function(event)
    require("moonrock.progress").clear()
    print_event[event.event](event, names)
    reason(event, io.stdout)
    io.stdout:flush()
  end
end

return output

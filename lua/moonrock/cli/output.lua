-- Results on standard output: lines for people, or JSON events with their keys in a fixed order.
local json = require "dkjson"

local output = {}

local ORDER = { "event", "model", "epoch", "steps", "step", "folds", "rows", "seconds", "rows_per_second",
  "peak_rss_bytes", "table_rows", "bad_lines", "skipped", "window", "total", "train", "valid", "test", "best",
  "mean", "deviation", "scale", "logloss", "auc", "accuracy", "rmse", "label", "prediction" }

local METRICS = { "logloss", "auc", "accuracy", "rmse" }

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
function output.metrics(r)
  local words = {}
  for _, name in ipairs(METRICS) do
    local x = r[name]
    if x and x == x then words[#words + 1] = ("%s %.4f"):format(name, x) end
  end
  return table.concat(words, "  ")
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
  local train = e.train.logloss and ("logloss %.4f"):format(e.train.logloss)
    or ("mse %.4f"):format(e.train.mse)
  line = line .. "  train " .. train .. (e.train.scale and (" (%s)"):format(e.train.scale) or "")
  if e.valid then
    line = ("%s  valid logloss %s"):format(line, e.valid.logloss and
      ("%.4f auc %.4f"):format(e.valid.logloss, e.valid.auc) or ("rmse %.4f"):format(e.valid.rmse))
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
    if x and x == x then words[#words + 1] = ("%s %.4f (%.4f)"):format(name, x, e.deviation[name]) end
  end
  print(("%d folds, mean (deviation)  %s"):format(e.folds, table.concat(words, "  ")))
end

function print_event.result(e)
  if e.steps then
    print(("%s steps in %.1f s  %s rows in tables  %s MB"):format(grouped(e.steps), e.seconds,
      grouped(e.table_rows), grouped(e.peak_rss_bytes / 1e6)))
  end
  if e.skipped then print(("%s batches were not finite and were skipped"):format(grouped(e.skipped))) end
  for _, part in ipairs { "valid", "test" } do
    local r = e[part]
    if r then print(("%-5s  %s rows  %s"):format(part, grouped(r.rows), output.metrics(r))) end
  end
end

--- A printer of events: JSON, or lines.
---@param as_json boolean
---@return fun(event: table)
function output.printer(as_json)
  if as_json then return output.event end
  return function(event)
    require("moonrock.progress").clear()
    print_event[event.event](event)
    io.stdout:flush()
  end
end

return output

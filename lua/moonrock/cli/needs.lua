--- Options that have no effect beside others, or without them: they are wrong usage, since whoever gives them
-- expects something of them.
local options = require "moonrock.cli.options"

local needs = {}

-- The value of `--set fit.NAME=VALUE`.
local function of_fit(args, name)
  for _, pair in ipairs(args.set or {}) do
    if pair[1] == "fit." .. name then return pair[2] end
  end
end

local function with_schema(args)
  return args.schema and ("--schema %s says how the data is read"):format(args.schema)
end

local function no_rate(args)
  return not of_fit(args, "negative_rate") and "it goes with --set fit.negative_rate=RATE"
end

local function not_shuffled(args)
  local how = args.shuffle or of_fit(args, "shuffle")
  if how == "off" or how == false then return "the samples are not shuffled" end
  return how == "full" and "--shuffle full mixes all samples" or nil
end

-- Samples that are not waited for.
local function no_wait(args)
  if not args.follow and not options.once(args.source) then
    return "all of a file is there; it goes with --follow, or a pipe"
  end
  local size = args.batch or of_fit(args, "size") or args.stream_size
  return size == 1 and "a batch of one sample never waits; it goes with --batch N" or nil
end

local function instead(option) return function() return "give " .. option end end

-- By command: options, "fit.NAME" for `--set fit.NAME=`, and why one has no effect, or nil.
local NEEDS = {
  train = {
    { "format", with_schema }, { "fields", with_schema },
    { "window", not_shuffled }, { "fit.window", not_shuffled },
    { "fit.correction", no_rate },
    { "fit.train", instead "--data FILE" }, { "fit.valid", instead "--valid FILE" },
    { "fit.test", instead "--test FILE" }, { "fit.split", instead "--valid FRACTION" },
    { "no_test", function(args) return args.test and "--test " .. args.test .. " is given" end },
    { "profile", function(args) return args.folds and "it is of one run, not of --folds" end },
  },
  learn = {
    { "format", with_schema }, { "fields", with_schema },
    { "max_wait", no_wait }, { "fit.max_wait", no_wait },
    { "fit.correction", no_rate },
    { "fit.follow", instead "--follow" },
  },
  shrink = {
    { "by", function(args) return not args.max_rows and "it goes with --max-rows N" end },
    { "half_life", function(args)
      return not args.min_score and args.by ~= "score" and "it goes with --min-score or --by score"
    end },
    { "column", function(args)
      return not (args.min_count or args.min_norm or args.min_score or args.max_rows and args.by
        and args.by ~= "step") and "it goes with --min-count, --min-norm, --min-score or --by"
    end },
  },
}

-- Those of `train` that need validation data.
local OF_VALIDATION = { "patience", "fit.patience", "fit.monitor", "fit.reduce", "fit.validate_every",
  "fit.metrics" }

-- An option's value and how it was written, or nil if it was not given.
local function given(args, name)
  local path = name:match "^fit%.(.+)"
  if not path then
    local value = args[name]
    if value == nil or value == false then return nil end
    local option = "--" .. name:gsub("_", "-")
    return value, value == true and option or ("%s %s"):format(option, tostring(value))
  end
  for _, pair in ipairs(args.set or {}) do
    if pair[1]:match "^fit%.([^.]+)" == path then return pair[2], ("--set %s=%s"):format(pair[1], pair[3]) end
  end
end

--- Ends the command if an option is given that has no effect.
---@param command string
---@param args table
function needs.check(command, args)
  for _, need in ipairs(NEEDS[command]) do
    local value, text = given(args, need[1])
    local why = value ~= nil and need[2](args)
    if why then options.usage("%s has no effect: %s", text, why) end
  end
end

--- The same of what validation data is needed for.
---@param args table
function needs.validation(args)
  for _, name in ipairs(OF_VALIDATION) do
    local value, text = given(args, name)
    if value ~= nil then
      options.usage("%s: there is nothing to judge an epoch by; give --valid FILE or a fraction", text)
    end
  end
end

return needs

-- What eval and predict read, and what no output may be written onto.
local C = require "moonrock.ffi"
local options = require "moonrock.cli.options"

local inputs = {}

--- What is read: --data, or the schema's test files, or standard input.
---@param args table
---@param model table
---@return string|string[]
local function input(args, model)
  if #args.data > 0 then return options.files(args.data) end
  if model.schema and model.schema.parts.test then
    if C.mr_piped(0) == 1 then
      io.stderr:write(("moonrock: standard input is not read, but the schema's test file %s; --data - reads "
        .. "it\n"):format(model.schema.parts.test))
    end
    return "test"
  end
  if C.mr_terminal(0) == 1 then
    options.usage "--data FILE is missing: the store's schema names no test file"
  end
  return "-"
end

local function each(files)
  if type(files) == "string" then files = { files } end
  return ipairs(files)
end

--- Whether the last of them is a pipe, which may pause.
function inputs.from_pipe(files)
  local kind
  for _, path in each(files) do kind = C.mr_path_kind(path) end
  return kind == C.MR_PATH_ONCE
end

local LOAD_ALL = 4 -- a store's bytes to those of the data: up to here its tables are read at once

--- Opens the store of eval and predict. Rows are read when they are looked up, or all at first where that
--- is faster: for much data.
---@param args table
---@return table model
---@return string|string[] files to read
function inputs.reopen(args)
  local model = require("moonrock").reopen(args.store, { threads = args.threads, memory = args.memory,
    cold = true, trust = args.trust, model = args.model and options.model(args.model) or nil })
  local files, bytes = input(args, model), 0
  for _, path in each(files == "test" and model.schema and model.schema.parts.test or files) do
    bytes = bytes + math.max(0, C.mr_path_bytes(path))
  end
  if bytes * LOAD_ALL > model.store:info().bytes then require("moonrock.commit").load_tables(model) end
  return model, files
end

--- Every file that a command reads, and that it must not write to, for inputs.check_out.
---@return table[] { what, path }
function inputs.of(args, model, files)
  local list = { { "the store", args.store } }
  for _, path in each(files) do
    list[#list + 1] = { "the data", path }
  end
  if args.model and args.model:find "%.lua$" then list[#list + 1] = { "the model's file", args.model } end
  for part, path in pairs(model.schema and model.schema.parts or {}) do
    list[#list + 1] = { ("the schema's %s file"):format(part), path }
  end
  return list
end

--- Ends the command if an output is one of its inputs, or lies in one.
---@param option string
---@param path string
---@param list table[]
function inputs.check_out(option, path, list)
  local problem = require("moonrock.output").problem(path, list)
  if problem then options.usage("%s %s; give another file", option, problem) end
end

return inputs

-- The command line: `moonrock train`, `eval`, `info` and so on. A command is a file of
-- moonrock/cli/ that declares its options and runs; here they are parsed, and what went wrong
-- becomes one line and an exit status: 1 the work failed, 2 wrong usage.
local argparse = require "argparse"
local options = require "moonrock.cli.options"

local COMMANDS = { "train", "eval", "predict", "learn", "info", "verify", "export", "import", "shrink",
  "checkpoint", "show", "trust" }

local cli = { commands = {} }
for _, name in ipairs(COMMANDS) do cli.commands[name] = true end

-- Options of every element, for the nearest right one.
local function option_names(parser)
  local names = {}
  for _, option in ipairs(parser._options) do
    for _, alias in ipairs(option._aliases) do names[#names + 1] = alias end
  end
  return names
end

-- argparse's message in one line, with the nearest right name.
local function usage_message(parser, message)
  local line = message:match("^[^\n]*")
  local wrong = line:match("^unknown option '(.-)'")
  local near = wrong and wrong:find("^%-%-") and options.nearest(wrong, option_names(parser))
  if near then line = ("%s; did you mean %s?"):format(line, near) end
  return line
end

local function make_parser(name)
  local parser = argparse("moonrock " .. name)
  parser:help_max_width(80)
  parser._options[1]:description "Show this help and exit."
  parser.error = function(self, message) options.usage("%s", usage_message(self, message)) end
  return parser
end

local HELP = [[
Usage: moonrock SCRIPT.lua [ARG...]     run a script ("-": from standard input)
       moonrock -e CHUNK [ARG...]       run a piece of Lua
       moonrock                         an interactive prompt
       moonrock COMMAND [OPTION...]

Commands:
  train MODEL --store DIR    train a model on files; one that exists is resumed
  eval --store DIR           the quality of a store's model on labelled data
  predict --store DIR        one probability for each line of data
  learn MODEL --source FILE --store DIR
                             learn from a stream, each batch after it is scored
  info --store DIR           what a store holds
  verify --store DIR         read all of a store, and name what is wrong
  export --store DIR --out FILE
                             a store, or some of its rows, as a file
  import --store DIR FILE... a store from such files, or rows into one
  shrink --store DIR         drop the rows that are worth least
  checkpoint --store DIR --out DIR
                             copy a store, also while it is trained
  show --store DIR           the code that a store keeps, and whose it is
  trust DIR                  let the code of another's store run from now on

moonrock COMMAND --help explains the options. MODEL is a Lua file, or one of
%s.

Environment:
  MOONROCK_LUA=DIR           use the Lua library of a checkout
  MOONROCK_CONFIG=DIR        where your key and the trusted stores are noted
                             (~/.config/moonrock)
  MOONROCK_DEBUG=1           show a traceback when a command fails
]]

-- Words in lines of at most `width` characters.
local function wrap(words, width)
  local lines = { "" }
  for _, word in ipairs(words) do
    local line = lines[#lines]
    if line ~= "" and #line + 1 + #word > width then lines[#lines + 1] = word
    else lines[#lines] = line == "" and word or line .. " " .. word end
  end
  return table.concat(lines, "\n")
end

-- Names the option in what its converter says of a wrong value, and tells of one that is given twice.
local function name_values(parser)
  for _, option in ipairs(parser._options) do
    local convert, name, before = option._convert, option._name, nil
    if option._maxcount == 1 and option._maxargs == 1 or type(convert) == "function" then
      option._convert = function(text)
        if option._maxcount == 1 and before and before ~= text then
          io.stderr:write(("moonrock: %s is given more than once; the last counts: %s\n"):format(name, text))
        end
        before = text
        if type(convert) ~= "function" then return text end
        local value, problem = convert(text)
        return value, problem and name .. ": " .. problem
      end
    end
  end
end

-- "--lr -1" as "--lr=-1", so that a negative number is not taken for an option.
local function join_negative(words)
  local joined = {}
  for _, word in ipairs(words) do
    local last = joined[#joined]
    if last and last:find("^%-%-[%w-]+$") and word:find("^%-%.?%d") then
      joined[#joined] = last .. "=" .. word
    else
      joined[#joined + 1] = word
    end
  end
  return joined
end

-- Runs one command; returns the exit status.
local function run(name, words)
  local command = require("moonrock.cli." .. name)
  local parser = make_parser(name)
  command.declare(parser)
  name_values(parser)
  local args = parser:parse(join_negative(words))
  return command.run(args) or 0
end

local function report(message)
  io.stderr:write("moonrock: ", (message:gsub("%s*\n%s*", " ")), "\n")
end

-- What became of the work: the exit status, after a line on standard error.
local function outcome(ok, result)
  require("moonrock.progress").clear()
  if ok then return result end
  if type(result) ~= "table" then
    if os.getenv("MOONROCK_DEBUG") then
      io.stderr:write("moonrock: ", tostring(result), "\n")
    else
      report(tostring(result))
    end
    return 1
  elseif result.usage then
    report(result.usage)
    return 2
  elseif result.interrupted then
    report(("%s; %s"):format(result.interrupted == 2 and "interrupted" or "terminated",
      result.lost or "the last batch is committed"))
    return 128 + result.interrupted
  end
  error(result, 0)
end

local function handler(e)
  if type(e) == "table" or not os.getenv("MOONROCK_DEBUG") then return e end
  return debug.traceback(e, 2)
end

--- Runs a command line, without the program's name.
---@param words string[]
---@return integer status
function cli.main(words)
  local name = words[1]
  if name == "help" and cli.commands[words[2]] then
    words = { words[2], "--help" }
    name = words[1]
  end
  if name == "--help" or name == "-h" or name == "help" then
    local models = {}
    for word in table.concat(options.models(), ", "):gmatch "%S+" do models[#models + 1] = word end
    io.write(HELP:format(wrap(models, 78)))
    return 0
  elseif name == "--version" or name == "-v" then
    local C = require "moonrock.ffi"
    print(("moonrock %s (%s)"):format(require("ffi").string(C.mr_version()), jit.version))
    return 0
  end
  return outcome(xpcall(function()
    if not cli.commands[name] then
      local near = options.nearest(name, COMMANDS)
      options.usage("%s %q is unknown%s", name:find("^%-") and "option" or "command", name,
        near and ("; did you mean %s?"):format(near) or "; moonrock --help lists the commands")
    end
    return run(name, { unpack(words, 2) })
  end, handler))
end

return cli

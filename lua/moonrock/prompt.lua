--- The prompt: reads Lua from the terminal, evaluates it and shows what it gives. Ctrl-C ends what is being
-- evaluated, or the line that is being typed.
local C = require "moonrock.ffi"
local show = require "moonrock.show"

local HISTORY = 1000 -- lines that are kept

-- The file of lines typed before, in the user's state directory.
local function history_path()
  local state, home = os.getenv "XDG_STATE_HOME", os.getenv "HOME"
  if not (state and state:find "^/") then
    if not home or home == "" then return nil end
    state = home .. "/.local/state"
  end
  return state .. "/moonrock/history"
end

-- An error with the frames of what was typed, and none of the prompt's own.
local function traced(traceback, e)
  local text = traceback(e)
  if type(text) ~= "string" then return text end
  local lines, own = {}, false
  for line in (text .. "\n"):gmatch "([^\n]*)\n" do
    own = own or line:find("moonrock/prompt.lua", 1, true)
    if not own then lines[#lines + 1] = line end
  end
  while lines[#lines]:find "^\t%[" do table.remove(lines) end
  if lines[#lines] == "stack traceback:" then table.remove(lines) end
  if #lines == 3 and lines[2] == "stack traceback:" then lines[3], lines[2] = nil, nil end
  return table.concat(lines, "\n")
end

local function tell(ok, ...)
  if not ok then
    local e = ...
    io.stderr:write(type(e) == "table" and e.interrupted and "interrupted" or tostring(e), "\n")
    return
  end
  local words = {}
  for i = 1, select("#", ...) do words[i] = show.value((select(i, ...))) end
  if words[1] then print(table.concat(words, "\t")) end
end

-- One chunk, of as many lines as it takes: nil at the end of the input, false if it was given up.
local function read_chunk(host)
  local text = host.read_line "> "
  if not text then return text end
  text = text:gsub("^%s*=", "")
  while true do
    -- no tail call: the line that an error names is this one
    local expression = loadstring("return select(1, " .. text .. "\n)", "=prompt")
    if expression then return expression end
    local chunk, problem = loadstring(text, "=prompt")
    if chunk then return chunk end
    local _, other = loadstring("return " .. text, "=prompt")
    local incomplete = (problem .. "\n" .. (other or "")):find "'<eof>'%s*%f[\n%z]"
    if not incomplete then return function() error(problem, 0) end end
    local more = host.read_line ">> "
    if more == false then return false end
    if not more then return function() error(problem, 0) end end
    text = text .. "\n" .. more
  end
end

--- Runs until the input ends.
---@param host table functions of main.c: edit, read_line, evaluate
---@param traceback fun(e: any): any
return function(host, traceback)
  local mr = require "moonrock"
  -- Compiled code cannot be interrupted; what a batch costs is in C anyway.
  jit.off()
  local path = history_path()
  local edits, problem = host.edit(path, HISTORY)
  print(("Moonrock %s (%s). mr is the library; Ctrl-D ends."):format(mr.version, jit.version))
  if not edits then
    io.stderr:write "moonrock: lines cannot be edited: the library libedit2 is not installed\n"
  end
  if problem then io.stderr:write("moonrock: what is typed is not kept: ", problem, "\n") end
  rawset(_G, "mr", mr)
  while true do
    C.mr_interrupt_set(0)
    local chunk = read_chunk(host)
    if chunk == nil then break end
    if chunk then
      tell(host.evaluate(function() return xpcall(chunk, function(e) return traced(traceback, e) end) end))
    end
    require("moonrock.progress").clear()
    local signal = C.mr_interrupted()
    if signal ~= 0 and signal ~= 2 then return 128 + signal end
  end
  print()
  return 0
end

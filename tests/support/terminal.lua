-- Programs on a pseudo-terminal of a given width, by script(1): what is sent arrives as if it were typed.
local shell = require "tests.support.shell"

local terminal = {}
terminal.__index = terminal

--- Whether script(1) and a pseudo-terminal are here.
function terminal.here() return shell.run("script -qec true /dev/null") == 0 end

--- Starts a shell command.
---@param command string
---@param columns integer
---@return table with send, expect, output and close
function terminal.open(command, columns)
  local self = setmetatable({ out = shell.directory() .. "/typescript", at = 1 }, terminal)
  local inner = ("stty cols %d rows 24; %s"):format(columns, command)
  self.pipe = io.popen(("TERM=xterm script -qfec %s %s >/dev/null 2>&1"):format(shell.quote(inner), self.out),
    "w")
  self.pipe:setvbuf "no"
  return self
end

--- Types.
function terminal:send(text) self.pipe:write(text) end

--- All that was written to the terminal so far.
function terminal:output() return (shell.read(self.out) or ""):gsub("^Script started[^\n]*\n", "") end

--- Waits until a plain text is written after what was expected before; returns all since then.
---@param text string
---@param seconds? integer
function terminal:expect(text, seconds)
  for _ = 1, (seconds or 60) * 20 do
    local output = self:output()
    local first, last = output:find(text, self.at, true)
    if first then
      local part = output:sub(self.at, last)
      self.at = last + 1
      return part
    end
    shell.run "sleep 0.05"
  end
  error(("the terminal does not show %q, but:\n%s"):format(text, self:output():sub(self.at)), 2)
end

--- Waits for the end of the command; its output and exit status.
function terminal:close()
  self.pipe:close()
  local text = shell.read(self.out)
  return text:gsub("^Script started[^\n]*\n", ""):gsub("\n?Script done[^\n]*\n?$", ""),
    tonumber(text:match 'COMMAND_EXIT_CODE="(%d+)"')
end

return terminal

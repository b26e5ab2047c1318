--- Running programs in specs: `local shell = require "tests.support.shell"`.
local shell = {}

--- The program under test.
shell.program = os.getenv("MOONROCK") or "./moonrock"

--- A word that the shell takes as it stands.
function shell.quote(word) return "'" .. tostring(word):gsub("'", "'\\''") .. "'" end

--- A new directory; it is removed at the end of the process.
function shell.directory()
  local pipe = io.popen("mktemp -d")
  local dir = pipe:read("*l")
  pipe:close()
  local guard = newproxy(true)
  getmetatable(guard).__gc = function() os.execute("rm -rf " .. shell.quote(dir)) end
  shell[dir] = guard
  return dir
end

--- Writes a file and returns its path.
function shell.write(path, text)
  local file = assert(io.open(path, "wb"))
  file:write(text)
  file:close()
  return path
end

--- The bytes of a file, or nil.
function shell.read(path)
  local file = io.open(path, "rb")
  if not file then return nil end
  local text = file:read("*a")
  file:close()
  return text
end

--- Runs a shell command. Returns its exit status (128 + N after signal N), standard output and
--- standard error.
---@param command string
---@return integer status
---@return string output
---@return string errors
function shell.run(command)
  local out, problems = os.tmpname(), os.tmpname()
  local pipe = io.popen(("( %s\n) >%s 2>%s </dev/null; echo $?"):format(command, out, problems))
  local status = tonumber(pipe:read("*a"))
  pipe:close()
  local output, errors = shell.read(out), shell.read(problems)
  os.remove(out)
  os.remove(problems)
  return status, output, errors
end

--- What stands before a command that is to be killed after so many seconds; it is gone then, and a
--- command that ended by itself keeps its status.
function shell.killed_after(seconds)
  return ("timeout --foreground --preserve-status -s KILL %.4f "):format(seconds)
end

--- Runs the program with words that are quoted as they stand.
function shell.moonrock(...)
  local words = { shell.quote(shell.program) }
  for i = 1, select("#", ...) do words[i + 1] = shell.quote((select(i, ...))) end
  return shell.run(table.concat(words, " "))
end

return shell

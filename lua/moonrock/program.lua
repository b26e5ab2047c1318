-- What `moonrock` does with its arguments: runs a script, a command or the prompt. main.c calls
-- this file with the table of its functions and exits with the number that it returns.
local host = ...

-- ---- modules: those of the checkout MOONROCK_LUA, those inside the program, package.path ----

local checkout = os.getenv("MOONROCK_LUA")
if checkout then
  package.path = ("%s/lua/?.lua;%s/lua/?/init.lua;%s/?.lua;"):gsub("%%s", (checkout:gsub("%%", "%%%%")))
    .. package.path
else
  table.insert(package.loaders, 2, function(name)
    local text, chunk = host.embedded(name)
    if not text then return ("\n\tno module '%s' inside moonrock"):format(name) end
    return assert(loadstring(text, chunk))
  end)
end

-- The texts of the modules inside, by name; for stores, which keep the source of their model.
package.loaded["moonrock.embedded"] = setmetatable({}, {
  __index = function(_, name) return (host.embedded(name)) end,
})

package.loaded["moonrock.host"] = host -- for moonrock.sandbox

-- ---- running -------------------------------------------------------------------------------

-- Adds a traceback to an error, but for tables: an interrupted training loop raises
-- { interrupted = number of the signal }.
local function traceback(e)
  if e == nil then return nil end
  if type(e) ~= "table" or getmetatable(e) and getmetatable(e).__tostring then
    return debug.traceback(tostring(e), 2)
  end
  return e
end

-- The exit status for what xpcall returned. As in luajit, error(nil) says nothing.
local function finished(ok, e)
  if ok then return 0 end
  if type(e) == "table" and e.interrupted then return 128 + e.interrupted end
  if e == nil then return 1 end
  io.stderr:write("moonrock: ", type(e) == "string" and e or "(error object is a table value)", "\n")
  return 1
end

-- Moves `arg` so that the script, argument number `at`, is arg[0].
local function shift(at)
  local moved, n = {}, #arg
  for i = 0, n do moved[i - at] = arg[i] end
  arg = moved -- luacheck: globals arg
end

local function run(chunk, problem)
  if not chunk then
    io.stderr:write("moonrock: ", problem, "\n")
    return 1
  end
  return finished(xpcall(function() return chunk(unpack(arg)) end, traceback))
end

-- ---- the choice ----------------------------------------------------------------------------

local function file_exists(path)
  local file = io.open(path)
  return file ~= nil and file:close()
end

local function command()
  local status = 0
  local failed = finished(xpcall(function() status = require("moonrock.cli").main(arg) end, traceback))
  return failed ~= 0 and failed or status
end

local first = arg[1]
if first == nil then
  local interactive = require("moonrock.ffi").mr_terminal(0) == 1
  if interactive then return require "moonrock.prompt"(host, traceback) end
  return run(loadfile())
elseif first == "-" then
  shift(1)
  return run(loadfile())
elseif first == "-e" and arg[2] then
  local text = arg[2]
  shift(2)
  setmetatable(_G, { __index = function(_, name) return name == "mr" and require "moonrock" or nil end })
  return run(loadstring(text, "=(command line)"))
elseif first:find("^%-") or not first:find("[./]") and
  (require("moonrock.cli").commands[first] or not file_exists(first)) then
  return command()
end
shift(1)
return run(loadfile(first))

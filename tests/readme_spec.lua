-- The code of the READMEs, and of NAMES.md, runs. Every block ```sh and ```lua of theirs is run,
-- in order, the blocks of a file in one fresh directory that looks like the checkout: shell blocks
-- by `sh -e`, Lua blocks as a script. A block whose opening line says more (```sh skip) is shown
-- only. Lines of a shell block that begin with `make` or `git clone` are left out: we are there.
local shell = require "tests.support.shell"

local TIMEOUT = 300 -- seconds for a block

local function blocks(text)
  local list, language, lines, at, number = {}, nil, nil, nil, 0
  for line in text:gmatch("([^\n]*)\n") do
    number = number + 1
    local opening = line:match("^%s*```(.*)$")
    if opening and not language then
      language, lines, at = opening, {}, number
    elseif opening then
      if language == "sh" or language == "lua" then
        list[#list + 1] = { language = language, text = table.concat(lines, "\n") .. "\n", line = at }
      end
      language = nil
    elseif language then
      lines[#lines + 1] = line
    end
  end
  return list
end

-- A directory in which the checkout's parts stand by their names.
local function workplace()
  local dir = shell.directory()
  shell.run(("for f in lua models datasets tests runtime build; do ln -s \"$PWD/$f\" %s/; done; "
    .. "ln -s \"$PWD/%s\" %s/moonrock"):format(dir, (shell.program:gsub("^%./", "")), dir))
  return dir
end

local function commands(text)
  local kept = {}
  for line in text:gmatch("([^\n]*)\n") do
    line = line:gsub("^%$ ", "")
    if not line:find("^make") and not line:find("^git clone") and not line:find("^cd ") then
      kept[#kept + 1] = line
    end
  end
  return table.concat(kept, "\n") .. "\n"
end

local list = io.popen("ls README.md */README.md */*/README.md */*/NAMES.md 2>/dev/null")
for file in list:lines() do
  local found = blocks(shell.read(file))
  if #found > 0 then
    describe("the code of " .. file, function()
      local dir
      for _, block in ipairs(found) do
        it(("at line %d runs"):format(block.line), function()
          dir = dir or workplace()
          local command
          if block.language == "sh" then
            shell.write(dir .. "/block.sh", commands(block.text))
            command = "sh -e block.sh"
          else
            shell.write(dir .. "/block.lua", block.text)
            command = "./moonrock block.lua"
          end
          local status, out, err = shell.run(("cd %s && timeout %d %s"):format(dir, TIMEOUT, command))
          assert(status == 0, ("%s:%d: status %d\n%s%s"):format(file, block.line, status, out, err))
        end)
      end
    end)
  end
end
list:close()

-- What the benchmarks share: running commands, and the middle of several runs.
local json = require "dkjson"

local common = {}

--- What a command prints.
function common.output(command)
  local pipe = io.popen(command)
  local text = pipe:read "*a"
  pipe:close()
  return text
end

--- The JSON that a command prints; ends the benchmark if it prints none.
function common.must(command)
  local text = common.output(command)
  local result = json.decode(text)
  if not result then
    io.stderr:write("bench: this command failed: ", command, "\n", text)
    os.exit(1)
  end
  return result
end

--- Median, smallest and largest of a list of numbers.
function common.median(t)
  local s = { unpack(t) }
  table.sort(s)
  local middle = math.floor(#s / 2)
  return #s % 2 == 1 and s[middle + 1] or (s[middle] + s[middle + 1]) / 2, s[1], s[#s]
end

--- Writes a table as JSON.
function common.save(path, what)
  local file = assert(io.open(path, "w"))
  file:write(json.encode(what, { indent = true }), "\n")
  file:close()
end

return common

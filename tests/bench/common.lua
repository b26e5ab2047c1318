-- What the benchmarks share: running commands, the middle of several runs, and keys that are drawn.
local bit = require "bit"
local ffi = require "ffi"
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

-- ---- keys ------------------------------------------------------------------------------------

--- A bijection of 64 bits: splitmix64's output.
function common.mix(x)
  x = bit.bxor(x, bit.rshift(x, 30)) * 0xbf58476d1ce4e5b9ULL
  x = bit.bxor(x, bit.rshift(x, 27)) * 0x94d049bb133111ebULL
  return bit.bxor(x, bit.rshift(x, 31))
end

local state = 42ULL

--- The next number of a fixed stream, from 0 to 1.
function common.uniform()
  state = state + 0x9e3779b97f4a7c15ULL
  return tonumber(bit.rshift(common.mix(state), 11)) * 2 ^ -53
end

--- Draws ranks of Zipf(1.1), from 0, by their cumulative distribution.
function common.zipf_ranks(keys)
  local cumulative, total = ffi.new("double[?]", keys), 0
  for i = 0, keys - 1 do
    total = total + (i + 1) ^ -1.1
    cumulative[i] = total
  end
  return function()
    local x, low, high = common.uniform() * total, 0, keys - 1
    while low < high do
      local middle = math.floor((low + high) / 2)
      if cumulative[middle] < x then low = middle + 1 else high = middle end
    end
    return low
  end
end

return common

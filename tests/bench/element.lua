-- What an operation written in Lua costs beside the built-in one: [1024, 256], forward and backward,
-- best of 50, in microseconds. `./moonrock tests/bench/element.lua [THREADS]`
local ffi = require "ffi"
local mr = require "moonrock"
local C = require "moonrock.ffi"
local tape = require "moonrock.tape"

local N, RUNS = 1024 * 256, 50
local values = ffi.new("double[?]", N)
for i = 0, N - 1 do values[i] = math.sin(i * 0.7) * 3 end

local function measure(f)
  local t, forward, backward = tape.new(), math.huge, math.huge
  for run = 1, RUNS do
    t:begin(true, run)
    local x = mr.tensor({ 1024, 256 }, values, true)
    local a = C.mr_clock()
    local y = f(x)
    local b = C.mr_clock()
    local loss = y:sum()
    local c = C.mr_clock()
    loss:backward()
    forward, backward = math.min(forward, b - a), math.min(backward, C.mr_clock() - c)
  end
  t:free()
  return forward * 1e6, backward * 1e6
end

local function element(f) return mr.operation { name = "mine", element = f } end

local CASES = {
  { "relu", function(x) return x:relu() end },
  { "sigmoid", function(x) return x:sigmoid() end },
  { "tanh", function(x) return x:tanh() end },
  { "x sigmoid(x)", function(x) return x * x:sigmoid() end },
}
if tape.Tensor.silu then CASES[4][3] = function(x) return x:silu() end end

local most = tonumber(arg[1]) or 2
for threads = 1, most do
  C.mr_threads_set(threads)
  for _, case in ipairs(CASES) do
    local name, f, builtin = case[1], case[2], case[3]
    local bf, bb = measure(builtin or f)
    local ef, eb = measure(element(f))
    print(("%d thread%s  %-13s built-in %4.0f + %4.0f  in Lua %4.0f + %4.0f  speed %.2f"):format(threads,
      threads > 1 and "s" or " ", name, bf, bb, ef, eb, (bf + bb) / (ef + eb)))
  end
end

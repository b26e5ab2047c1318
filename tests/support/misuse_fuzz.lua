-- luacheck: no max line length
-- Calls public functions and methods with arguments drawn from a pool of good, wrong, live and closed ones, for
-- some seconds: `moonrock misuse_fuzz.lua SEED SECONDS`, in a directory that has a.libsvm. Whatever they
-- raise is right; the process must live. Its last line is how many calls it made.
local mr = require "moonrock"

local seed, seconds = tonumber(arg[1]), tonumber(arg[2])
local function random(n)
  seed = seed * 16807 % 2147483647
  return seed % n + 1
end

local function declare(m)
  local t = m:table("t", { w = { dim = 1 }, v = { dim = 4, init = mr.init.normal(0.1) } })
  local p = m:param("b", { 1 })
  return function(x)
    local r = t(x)
    return p + r.w:sum() + mr.fm(r.v)
  end
end

local made = 0
local FRESH = {
  function()
    made = made + 1
    return mr.model("M", declare) { store = made % 3 == 0 and "store" .. made or nil, memory = "400MB",
      data = mr.data { files = "a.libsvm" } }
  end,
  function() return mr.data { files = "a.libsvm" }:batches(nil, { size = 16 }) end,
  function() return mr.metrics() end,
  function() return mr.watch() end,
  function() return mr.data { files = "a.libsvm" } end,
}
local VALUES = { 0, 1, 2, -1, 0.5, 1e9, 2 ^ 31, 2 ^ 53, -2 ^ 40, 1 / 0, 0 / 0, "", "x", "w", "train", "../x", true, false,
  {}, { 1 }, { 2, 3 }, { {} }, function() return 1 end }

local pool = {}
local function keep(x)
  local kind = type(x)
  if kind == "table" and getmetatable(x) then pool[#pool < 60 and #pool + 1 or random(60)] = x end
end
local function some()
  local which = random(10)
  if which <= 3 or #pool == 0 then return VALUES[random(#VALUES)] end
  if which == 4 then return nil end
  return pool[random(#pool)]
end

-- Not called: what opens any file by a name that is drawn, trains for long, or takes a minute by itself.
local LEFT = { find = true, schema_of = true, fit = true, search = true, cross_validate = true, gradcheck = true,
  learn = true, export = true, import = true, checkpoint = true, copy = true, reopen = true, wait = true }
local names = {}
for name, f in pairs(mr) do
  if type(f) == "function" and not LEFT[name] then names[#names + 1] = name end
end
table.sort(names)

local function methods(x)
  local list, class = {}, getmetatable(x)
  for name, f in pairs(type(class) == "table" and class or {}) do
    if type(f) == "function" and not LEFT[name] then list[#list + 1] = name end
  end
  table.sort(list)
  return list, class
end

local clock, calls = os.time(), 0
while os.time() - clock < seconds do
  calls = calls + 1
  local what = random(20)
  local ok, a, b
  if what == 1 then
    ok, a = pcall(FRESH[random(#FRESH)])
  elseif what <= 4 then -- a step, part of it or all
    local m, it = pool[random(#pool + 1)], pool[random(#pool + 1)]
    ok, a, b = pcall(function()
      local batch = it()
      keep(batch)
      local y = m(batch)
      keep(y)
      keep(m.tables and m.tables[1])
      keep(m.params and m.params[1])
      keep(m.store)
      keep(m.train_tape)
      local loss = mr.bce(y, batch.label)
      if random(3) > 1 then loss:backward() end
      if random(3) > 1 then m:step() end
      return loss
    end)
  elseif what <= 7 then
    ok, a, b = pcall(mr[names[random(#names)]], some(), some(), some())
  elseif what == 8 then
    collectgarbage()
  elseif #pool > 0 then
    local x = pool[random(#pool)]
    local list, class = methods(x)
    if #list > 0 then ok, a, b = pcall(class[list[random(#list)]], random(8) == 1 and some() or x, some(), some(), some()) end
  end
  if ok then
    keep(a)
    keep(b)
  end
end
print(calls .. " calls")

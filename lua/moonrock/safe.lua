--- What a store's code sees of Lua: functions made or chosen one by one, none of which reaches a file, the
-- host's tables or memory, or takes longer than its arguments let expect.
local bit = require "bit"

local safe = {}

-- Never by methods here: while a box runs, those of strings are the box's, which it may replace.
local sub, find, match, gmatch, gsub = string.sub, string.find, string.match, string.gmatch, string.gsub
local format, rep = string.format, string.rep
local max = math.max

local REP_MOST = 16e6 -- bytes that string.rep makes at most
local PATTERN_MOST = 2e8 -- comparisons that a pattern may take at worst

-- How many comparisons matching may take: each of * + - may stop at every place, each ? at two.
local function pattern_cost(s, pattern)
  local places, cost, i = #s + 1, #s + 1, 1
  while i <= #pattern do
    local c = sub(pattern, i, i)
    if c == "%" then
      local escaped = sub(pattern, i + 1, i + 1)
      if escaped == "b" then
        cost, i = cost * places, i + 2
      elseif find(escaped, "%d") then
        cost = cost * places
      end
      i = i + 1
    elseif c == "[" then
      local _, last = find(pattern, "^%^?%]?", i + 1)
      last = last + 1
      while last <= #pattern and sub(pattern, last, last) ~= "]" do
        last = last + (sub(pattern, last, last) == "%" and 2 or 1)
      end
      cost, i = cost * (1 + (last - i) / 16), last
    end
    i = i + 1
    local quantifier = sub(pattern, i, i)
    if quantifier == "?" then cost = cost * 2
    elseif quantifier ~= "" and find("*+-", quantifier, 1, true) then cost = cost * places end
  end
  return cost
end

-- The C stack has no end of its own: how deep functions may lie that C calls, of gsub and sort.
local NESTED_MOST = 50

local function nested(nest, f, a, b, c, d)
  if nest.depth >= NESTED_MOST then error("stack overflow: functions called from C, in one another", 0) end
  nest.depth = nest.depth + 1
  local x, y = f(a, b, c, d)
  nest.depth = nest.depth - 1
  return x, y
end

-- The library `string`, without dump; `spend` is told of work, in steps of the interpreter.
local function strings(spend, show, nest)
  local s = {}
  for _, name in ipairs { "byte", "char", "len", "sub" } do s[name] = string[name] end
  for _, name in ipairs { "lower", "upper", "reverse" } do
    local f = string[name]
    s[name] = function(text)
      text = f(text)
      spend(#text / 16)
      return text
    end
  end

  function s.rep(text, n, separator)
    if type(text) == "number" then text = tostring(text) end
    if type(text) == "string" and type(n) == "number" then
      local len = (#text + (type(separator) == "string" and #separator or 0)) * n
      if len ~= len or len > REP_MOST then
        error(format("string.rep: %.0f bytes; a store's code makes up to %.0f at once", len, REP_MOST), 2)
      end
      spend(max(0, len) / 16)
    end
    return rep(text, n, separator)
  end

  function s.format(pattern, ...)
    if type(pattern) == "string" and find(gsub(pattern, "%%%%", ""), "%%[^%a]*p") then
      error("string.format: %p shows an address", 2)
    end
    local n = select("#", ...)
    local shown = { ... }
    for i = 1, n do
      local kind = type(shown[i])
      if kind ~= "number" and kind ~= "string" and kind ~= "nil" then shown[i] = show(shown[i]) end
    end
    return format(pattern, unpack(shown, 1, n))
  end

  local function checked(what, text, pattern)
    if type(text) == "number" then text = tostring(text) end
    if type(text) ~= "string" or type(pattern) ~= "string" then return end -- string.find says what is wrong
    local cost = pattern_cost(text, pattern)
    if cost > PATTERN_MOST then
      error(format("string.%s: this pattern may take %.0g comparisons over %d bytes; a store's code may do "
        .. "up to %.0g", what, cost, #text, PATTERN_MOST), 3)
    end
    spend(cost / 16)
  end
  function s.find(text, pattern, init, plain)
    if plain then spend(type(text) == "string" and #text / 16 or 0)
    else checked("find", text, pattern) end
    return find(text, pattern, init, plain)
  end
  function s.match(text, pattern, init)
    checked("match", text, pattern)
    return match(text, pattern, init)
  end
  function s.gmatch(text, pattern)
    checked("gmatch", text, pattern)
    return gmatch(text, pattern)
  end
  function s.gsub(text, pattern, by, n)
    checked("gsub", text, pattern)
    if type(by) == "string" and type(text) == "string" and (#text + 1) * #by > REP_MOST then
      error(format("string.gsub: up to %.0f bytes; a store's code makes up to %.0f at once",
        (#text + 1) * #by, REP_MOST), 2)
    end
    return nested(nest, gsub, text, pattern, by, n or type(text) == "string" and #text + 1 or 1000)
  end
  return s
end

local function copy(library, names)
  local made = {}
  for name in gmatch(names, "%w+") do made[name] = library[name] end
  return made
end

--- A new environment.
---@param spend fun(steps: number)
---@param pcall fun(f: function, ...): boolean, any that lets errors of limits through
---@return table
---@return table nest { depth = }, of functions that C calls
function safe.environment(spend, pcall)
  local env = copy(_G, "assert error ipairs next pairs rawequal rawget rawset select setmetatable tonumber "
    .. "type unpack")
  env._G, env._VERSION = env, _VERSION

  -- Without the addresses that tostring shows.
  local function show(x)
    local kind = type(x)
    if kind == "string" or kind == "number" or kind == "boolean" or kind == "nil" then return tostring(x) end
    local meta = kind == "table" and getmetatable(x)
    if type(meta) == "table" and type(rawget(meta, "__tostring")) == "function" then
      local text = meta.__tostring(x)
      if type(text) == "string" then return text end
    end
    return kind
  end
  env.tostring = show
  -- Of strings it would be the host's.
  function env.getmetatable(x) return type(x) == "table" and getmetatable(x) or nil end
  local nest = { depth = 0 }
  local function unwound(depth, ...)
    nest.depth = depth
    return ...
  end
  local function caught(f, ...) return unwound(nest.depth, pcall(f, ...)) end
  env.pcall = caught
  function env.xpcall(f, handler, ...)
    local function after(ok, ...)
      if ok then return true, ... end
      return false, handler((...))
    end
    return after(caught(f, ...))
  end

  env.string = strings(spend, show, nest)
  env.table = copy(table, "concat insert maxn remove")
  function env.table.sort(t, before) nested(nest, table.sort, t, before) end
  env.table.unpack = unpack
  env.math = copy(math, "abs acos asin atan atan2 ceil cos cosh deg exp floor fmod frexp huge ldexp log "
    .. "log10 max min modf pi pow rad sin sinh sqrt tan tanh")
  local function no_random()
    error("math.random: a store's code draws nothing of its own, so that a seed gives the same bits; use "
      .. "mr.init and mr.dropout", 2)
  end
  env.math.random, env.math.randomseed = no_random, no_random
  env.bit = copy(bit, "arshift band bnot bor bswap bxor lshift rol ror rshift tobit tohex")
  return env, nest
end

return safe

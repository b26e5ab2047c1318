-- What a spec's process tells the runner: `ok NAME`, `not ok NAME` and its message, indented. A test that
-- asserted nothing has failed, and so has one that takes any error for the one it expects.
local luassert = require "luassert"

local asserted = 0

-- Every assertion is a call of luassert's table, or of a name looked up in it.
local function count_assertions()
  local meta = getmetatable(luassert)
  local call, index = meta.__call, meta.__index
  meta.__call = function(...)
    asserted = asserted + 1
    return call(...)
  end
  meta.__index = function(self, name)
    asserted = asserted + 1
    return index(self, name)
  end
end

-- assert.has_error(f) without a message is true of a misspelt name, too.
local function demand_messages()
  local has_error = require("luassert.namespaces").assertion.error
  for _, name in ipairs { "error", "errors" } do
    luassert:register("assertion", name, function(state, arguments, level)
      if state.mod and arguments.n < 2 then
        error("has_error needs the message that it expects", level)
      end
      return has_error.callback(state, arguments, level)
    end, has_error.positive_message, has_error.negative_message)
  end
end

return function()
  count_assertions()
  demand_messages()
  local busted = require "busted"
  local handler = require "busted.outputHandlers.base"()

  local function say(...)
    io.stdout:write(...)
    io.stdout:write("\n")
    io.stdout:flush()
  end

  local function one_line(text) return (text:gsub("%s*\n%s*", " ")) end

  local function indented(message)
    if type(message) ~= "string" then message = require("pl.pretty").write(message) end
    return "  " .. message:gsub("%s+$", ""):gsub("\n", "\n  ")
  end

  local function report(failure)
    local at = failure.trace and failure.trace.short_src or ""
    say("not ok ", (one_line(failure.name or at)))
    say((indented(failure.message or "(no message)")))
  end

  handler.testStart = function()
    asserted = 0
    return nil, true
  end

  handler.testEnd = function(element, _, status)
    local name = one_line(handler.getFullName(element))
    if status == "success" and asserted == 0 then
      say("not ok ", name)
      say "  it asserted nothing"
    elseif status == "success" then say("ok ", name)
    elseif status == "pending" then say("skip ", name)
    elseif status == "failure" then report(handler.failures[#handler.failures])
    elseif status == "error" then report(handler.errors[#handler.errors]) end
    return nil, true
  end

  handler.error = function(element)
    -- Those of a test are reported at its end; these are of files and of setup.
    if element.descriptor == "it" then return nil, true end
    local e = handler.errors[#handler.errors]
    if e then report(e) end
    return nil, true
  end

  busted.subscribe({ "test", "start" }, handler.testStart)
  busted.subscribe({ "test", "end" }, handler.testEnd)
  busted.subscribe({ "error" }, handler.error)
  busted.subscribe({ "failure" }, handler.error)
  return handler
end

-- What a spec's process tells the runner: `ok NAME`, `not ok NAME` and its message, indented.
return function()
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

  handler.testEnd = function(element, _, status)
    local name = one_line(handler.getFullName(element))
    if status == "success" then say("ok ", name)
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

  busted.subscribe({ "test", "end" }, handler.testEnd)
  busted.subscribe({ "error" }, handler.error)
  busted.subscribe({ "failure" }, handler.error)
  return handler
end

-- The public header against the running program.
local ffi = require "ffi"
local C = require "moonrock.ffi"

local function header()
  local file = assert(io.open("runtime/moonrock.h"))
  local text = file:read("*a")
  file:close()
  return text, text:match("/%*%-%-%- cdef begin %-%-%-%*/(.-)/%*%-%-%- cdef end %-%-%-%*/")
end

local _, cdef = header()
local plain = cdef:gsub("/%*.-%*/", "")

describe("the header", function()
  it("is, between its markers, the text that the program declares", function()
    assert.equal(cdef, ffi.string(C.mr_cdef()))
  end)

  it("has no preprocessor lines, macros or bodies between its markers", function()
    assert.is_nil(plain:find("#", 1, true))
    assert.is_nil(plain:find("__attribute__", 1, true))
    assert.is_nil(plain:find("inline", 1, true))
  end)

  local count = 0
  for name in plain:gmatch("(mr_[%w_]+)%s*%(") do
    count = count + 1
    it("declares " .. name .. ", which the program has", function()
      assert.truthy(C[name] ~= nil)
    end)
  end

  it("declares functions", function() assert.is_true(count > 20) end)

  it("documents every function: a comment precedes its group of declarations", function()
    local before = ""
    for block in (cdef .. "\n\n"):gmatch("(.-)\n%s*\n") do
      local declares = block:find("mr_[%w_]+%s*%(") and not block:find("^%s*typedef")
      -- The comment of a type also speaks for the functions right after it.
      if declares and not block:find("/*", 1, true) then
        assert.truthy(before:find("/%*.*typedef"), "no comment in:\n" .. block)
      end
      before = block
    end
  end)

  it("is the version that the Lua library expects", function()
    assert.equal(require("moonrock").version, ffi.string(C.mr_version()))
  end)
end)

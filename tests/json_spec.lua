-- The encoder of records and events: never compiled, since LuaJIT gets its recursive walk over tables wrong.
local json = require "moonrock.json"
local Store = require "moonrock.store"

-- The handler of the compiler's events looks nothing up in the environment of a spec, which is itself code.
local getinfo, find, attach = debug.getinfo, string.find, jit.attach

describe("JSON", function()
  it("is written by the interpreter, however often", function()
    local compiled, traces = {}, 0
    local function on_trace(what, _, f)
      traces = traces + 1
      if what == "start" or what == "stop" then
        local source = f and getinfo(f, "S").source or ""
        if find(source, "dkjson", 1, true) then compiled[#compiled + 1] = source end
      end
    end
    attach(on_trace, "trace")
    local record = { name = "m", layout = { tables = { { id = 0, dim = 1, kind = 3, state = 2 } } }, shape = "1" }
    local text
    for _ = 1, 500 do text = Store.encode(record) end
    local sum = 0
    for i = 1, 1000 do sum = sum + i end -- the compiler is on
    attach(on_trace)
    assert.equal(500500, sum)
    assert.is_true(traces > 0)
    assert.same({}, compiled)
    assert.same(record, json.decode(text))
  end)
end)

-- The encoder of records and events: never compiled, since LuaJIT gets its recursive walk over tables wrong.
local json = require "moonrock.json"
local Store = require "moonrock.store"

describe("JSON", function()
  it("is written by the interpreter, however often", function()
    local compiled, traces = {}, 0
    local function on_trace(what, _, f, pc)
      traces = traces + 1
      if what == "start" or what == "stop" then
        local source = f and debug.getinfo(f, "S").source or ""
        if source:find("dkjson", 1, true) then compiled[#compiled + 1] = source .. tostring(pc) end
      end
    end
    jit.attach(on_trace, "trace")
    local record = { name = "m", layout = { tables = { { id = 0, dim = 1, kind = 3, state = 2 } } }, shape = "1" }
    local text
    for _ = 1, 500 do text = Store.encode(record) end
    local sum = 0
    for i = 1, 1000 do sum = sum + i end -- the compiler is on
    jit.attach(on_trace)
    assert.equal(500500, sum)
    assert.is_true(traces > 0)
    assert.same({}, compiled)
    assert.same(record, json.decode(text))
  end)
end)

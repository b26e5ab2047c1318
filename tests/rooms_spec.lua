-- The rooms of runtime/ are its folders. A room includes what stands above it, and of other rooms no header of
-- their inside.
local shell = require "tests.support.shell"

local ROOMS = { "base", "kernel", "data", "optim", "table", "tensor", "store", "exchange", "metrics" }

-- A room's inside, and who else still looks at it: what they need of a row is to become a header of its own.
local INSIDE = {
  ["table/table_room.h"] = { ["store/shrink.c"] = true, ["exchange/export.h"] = true },
  ["exchange/export.h"] = {}, ["store/store.h"] = { ["exchange/export.h"] = true },
}

local floor = {}
for i, room in ipairs(ROOMS) do floor[room] = i end

-- What is wrong with the includes of a file of a room: a list of lines.
local function wrong(room, name, text)
  local list = {}
  for other, header in text:gmatch '#include "([%w_]+)/([%w_]+%.h)"' do
    local path = other .. "/" .. header
    if not floor[other] then
      list[#list + 1] = ("%s/%s includes %s, which is in no room"):format(room, name, path)
    elseif floor[other] > floor[room] then
      list[#list + 1] = ("%s/%s includes %s, which stands below it"):format(room, name, path)
    elseif other ~= room and INSIDE[path] and not INSIDE[path][room .. "/" .. name] then
      list[#list + 1] = ("%s/%s includes %s, the inside of a room"):format(room, name, path)
    end
  end
  return list
end

local function lines(command)
  local list = {}
  for line in select(2, shell.run(command)):gmatch "[^\n]+" do list[#list + 1] = line end
  return list
end

describe("The rooms of the runtime", function()
  it("are those of runtime/README.md, each with a README", function()
    local found = lines "ls -d runtime/*/"
    assert.equal(#ROOMS, #found)
    local page = shell.read "runtime/README.md"
    local last = 0
    for _, room in ipairs(ROOMS) do
      assert.is_string(shell.read("runtime/" .. room .. "/README.md"), room)
      local at = page:find(("| [%s](%s/README.md) |"):format(room, room), 1, true)
      assert.is_true(at ~= nil and at > last, room)
      last = at
    end
  end)

  it("include nothing that stands below them", function()
    local problems, n = {}, 0
    for _, path in ipairs(lines "ls runtime/*/*.c runtime/*/*.h") do
      local room, name = path:match "^runtime/(%w+)/([%w_.]+)$"
      n = n + 1
      for _, line in ipairs(wrong(room, name, shell.read(path))) do problems[#problems + 1] = line end
    end
    assert.is_true(n > 100)
    assert.same({}, problems)
  end)

  it("do not pass for a file that does", function()
    assert.same({ "data/toy.c includes table/table.h, which stands below it" },
      wrong("data", "toy.c", '#include "base/base.h"\n#include "table/table.h"\n'))
    assert.same({ "store/toy.c includes table/table_room.h, the inside of a room" },
      wrong("store", "toy.c", '#include "table/table_room.h"\n'))
    assert.same({ "data/toy.c includes cellar/toy.h, which is in no room" },
      wrong("data", "toy.c", '#include "cellar/toy.h"\n'))
    assert.same({}, wrong("metrics", "toy.c", '#include "base/base.h"\n#include "metrics/metrics.h"\n'))
  end)
end)

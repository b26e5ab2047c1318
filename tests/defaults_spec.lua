-- What --help and the READMEs say of defaults is what the code does.
local mr = require "moonrock"
local optim = require "moonrock.optim"
local shell = require "tests.support.shell"

local dir = shell.directory()

local function file(path)
  local f = assert(io.open(path))
  local text = f:read "*a"
  f:close()
  return text
end

describe("the defaults of optimizers", function()
  it("are those that the library's README has in its table", function()
    local text, checked = file "lua/moonrock/README.md", 0
    for _, rule in ipairs(optim.rules) do
      local row = text:match("\n| `" .. rule .. "` | ([^|\n]*) |")
      if row then
        local o = optim.new(rule)
        for name, value in row:gmatch "`([%w_]+)` ([^,|]+)" do
          value = value:gsub("%s+$", ""):gsub('^"(.*)"$', "%1")
          assert.equal(tonumber(value) or value, type(o[name]) == "boolean" and tostring(o[name]) or o[name],
            rule .. " " .. name)
          checked = checked + 1
        end
      end
    end
    assert.is_true(checked > 20, checked)
  end)

  it("are those that models/README.md has by model", function()
    local text = file "models/README.md"
    local seen = 0
    for models, rate, rest in text:gmatch "\n| ([^|\n]*`) | Adagrad ([%d.]+)([^|\n]*) |" do
      for name in models:gmatch "`([%w_]+)`" do
        local o = mr.find(name).settings.optim
        assert.equal(tonumber(rate), o.lr, name)
        assert.equal(tonumber(rest:match "sums from ([%d.e-]+)") or optim.adagrad().init, o.init, name)
        seen = seen + 1
      end
    end
    assert.equal(#require("moonrock.source").shipped, seen)
  end)
end)

describe("the batch of a command", function()
  local data = {}
  for i = 1, 640 do data[i] = ("%d %d:1"):format(i % 2, i % 9) end
  local path = shell.write(dir .. "/data.svm", table.concat(data, "\n") .. "\n")

  for command, option in pairs { train = "--data", learn = "--source" } do
    it(("has as many samples as `%s --help` says"):format(command), function()
      local _, help = shell.moonrock(command, "--help")
      local size = tonumber(help:gsub("%s+", " "):match "Samples in a batch %((%d+)")
      local _, out, problem = shell.moonrock(command, "lr", option, path, "--store", dir .. "/" .. command, "--json")
      local steps = tonumber(out:match '"event":"result","steps":(%d+)')
      assert.equal(640 / size, steps, problem)
    end)
  end
end)

-- lua/moonrock/NAMES.md lists every public name, and none that does not exist. Private are the methods and
-- functions with `---@private` above them, and names that begin with `_`.
local mr = require "moonrock"
local shell = require "tests.support.shell"

local page = shell.read "lua/moonrock/NAMES.md"

-- Names in the first cells of the page's tables: { ["mr.fm"] = true, ["model:step"] = true ... }.
local listed = {}
for cell in page:gmatch "\n| ([^\n]-) | " do
  for name in cell:gmatch "`([%w_]+[.:][%w_.]+)" do listed[name] = true end
end

local private = {}
for file in io.popen("ls lua/moonrock/*.lua"):lines() do
  for class, name in shell.read(file):gmatch "%-%-%-@private\nfunction ([%w_]+)[.:]([%w_]+)" do
    private[class:lower() .. "." .. name] = true
  end
end

local census = require "datasets.census"
local model = mr.find "lr" { schema = census, store = shell.directory() .. "/store" }
local batches = model:batches("train", {})
local batch = batches()
local column
mr.model("lookup", function(m)
  local row = m:table("features", { w = { dim = 1 } })
  return function(x)
    column = row(x).w
    return column:sum()
  end
end) { schema = census } (batch)

local function class(object) return getmetatable(object).__index end

-- What the page calls the public objects; the name of each class in its file.
local objects = {
  { "mr", mr }, { "mr.optim", mr.optim, "optim" }, { "mr.schedule", mr.schedule, "schedule" },
  { "mr.init", mr.init, "initializer" }, { "model", class(model), "model" }, { "batches", class(batches), "batches" },
  { "batch", class(batch), "batch" }, { "tensor", class(model(batch)), "tensor" },
  { "table", class(model.tables[1]), "table" }, { "param", class(model.params[1]), "param" },
  { "column", class(column), "column" }, { "store", class(model.store), "store" }, { "schema", class(census), "schema" },
  { "data", class(mr.data {}), "data" }, { "metrics", class(mr.metrics {}), "metrics" },
  { "watch", class(mr.watch {}), "watch" },
}

local function is_public(name, value, class_name)
  if name:find "^_" or class_name and private[class_name .. "." .. name] then return false end
  return name ~= "kind" and (class_name == nil or type(value) == "function" or getmetatable(value) ~= nil
    or class_name == "optim")
end

describe("the page of public names", function()
  local tensor = class(model(batch))
  for _, object in ipairs(objects) do
    local prefix, members, class_name = object[1], object[2], object[3]
    local separator = prefix:find "^mr" and "." or ":"

    it("lists all of " .. prefix, function()
      local missing = {}
      for name, value in pairs(members) do
        local inherited = prefix == "param" and tensor[name] ~= nil -- a param is a tensor
        if is_public(name, value, class_name) and not inherited and not listed[prefix .. separator .. name]
          and not (prefix == "mr" and (name == "optim" or name == "schedule" or name == "init")) then
          missing[#missing + 1] = prefix .. separator .. name
        end
      end
      table.sort(missing)
      assert.equal("", table.concat(missing, " "))
    end)
  end

  it("lists none that does not exist", function()
    local members = {}
    for _, object in ipairs(objects) do members[object[1]] = object[2] end
    local wrong = {}
    for name in pairs(listed) do
      local prefix, member = name:match "^(.*)[.:]([%w_]+)$"
      if not members[prefix] or members[prefix][member] == nil then wrong[#wrong + 1] = name end
    end
    table.sort(wrong)
    assert.equal("", table.concat(wrong, " "))
  end)

  it("has an example that runs in each part", function()
    local parts = 0
    for part in (page:gsub("\n## ", "\1") .. "\1"):gmatch "\1([^\1]+)" do
      parts = parts + 1
      assert.truthy(part:find("\n```lua\n", 1, true), part:match "^[^\n]*")
    end
    assert.is_true(parts >= 8)
  end)

  it("finds the private ones by their mark", function()
    assert.is_true(private["table.peek"] == nil and private["table.update"])
  end)
end)

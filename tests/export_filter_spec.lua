-- Exports of some rows, each against a scan of all: by table, count, step, age in steps and in days.
local mr = require "moonrock"
local raises = require "tests.support.raises"
local shell = require "tests.support.shell"

local DAY = 86400

describe("an export of some rows", function()
  local dir = shell.directory()
  local store, now = dir .. "/store", 1e9
  local all, days = {}, {} -- rows of the whole export; the step of each day's commit

  local MODEL = shell.write(dir .. "/filtered.lua", [[
local mr = require "moonrock"
return mr.model("filtered", function(m)
  local a = m:table("a", { w = { dim = 1 } })
  local b = m:table("b", { u = { dim = 2, init = mr.init.normal(0.5) } })
  return function(x) return a(x).w:sum() + b(x).u:sum():sum() end
end, { optim = mr.optim.sgd { lr = 0.1 } })
]])

  -- Rows of a text export: table, key, step and the largest count of each.
  local function rows_of(path)
    local list, names = {}, nil
    for line in io.lines(path) do
      local cells = {}
      for cell in (line .. "\t"):gmatch("(.-)\t") do cells[#cells + 1] = cell end
      if cells[1] == "table" or not names then
        names = cells
      elseif #line > 0 then
        local row = { count = 0 }
        for i, name in ipairs(names) do
          if name:find("%.count$") then row.count = math.max(row.count, tonumber(cells[i]) or 0) end
          row[name] = row[name] or cells[i]
        end
        row.step = tonumber(row.step)
        list[#list + 1] = row
      end
    end
    return list
  end

  local function names_of(list, wanted)
    local names = {}
    for _, row in ipairs(list) do
      if wanted(row) then names[#names + 1] = ("%s %s %d %d"):format(row.table, row.key, row.step, row.count) end
    end
    table.sort(names)
    return names
  end

  local function every() return true end

  setup(function()
    local model = mr.find(MODEL) { store = store, data = mr.data { format = "libsvm" }, clock = function() return now end,
      commit_every = 1000000 }
    for day = 1, 40 do -- each day its own key, the key 7, and one that comes every fifth day
      now = 1e9 + day * DAY
      local path = shell.write(("%s/%d.svm"):format(dir, day), ("1 7:1 %d:1 %d:1\n"):format(100 + day,
        50 + day % 5))
      for batch in mr.data { files = path, format = "libsvm" }:batches(path, { size = 1, epochs = 1 }) do
        mr.bce(model(batch), batch.label):backward()
        model:step()
      end
      model:commit()
      days[day] = model.step_number
    end
    model:close()
    mr.export(store, dir .. "/all.tsv")
    all = rows_of(dir .. "/all.tsv")
    assert.equal(2 * 46, #all)
  end)

  local FILTERS = {
    { "of one table", { tables = { "b" } }, function(row) return row.table == "b" end },
    { "updated five times", { min_count = 5 }, function(row) return row.count >= 5 end },
    { "updated eight times", { min_count = 8 }, function(row) return row.count >= 8 end },
    { "updated nine times", { min_count = 9 }, function(row) return row.count >= 9 end },
    { "changed after a step", { since = 33 }, function(row) return row.step > 33 end, whole = true },
    { "of the last step", { age = 1 }, function(row) return row.step > 39 end },
    { "of the last ten steps", { age = 10 }, function(row) return row.step > 30 end },
    { "of more steps than there were", { age = 1000 }, every },
    { "of the last 30 days", { age_seconds = 30 * DAY }, function(row) return row.step > days[10] end },
    { "of the last day and a half", { age_seconds = 1.5 * DAY }, function(row) return row.step > days[38] end },
    { "of an hour", { age_seconds = 3600 }, function(row) return row.step > days[39] end },
    { "of a year", { age_seconds = 365 * DAY }, every },
    { "of the last 30 days, in a table, updated twice", { age_seconds = 30 * DAY, tables = { "a" }, min_count = 2 },
      function(row) return row.step > days[10] and row.table == "a" and row.count >= 2 end },
    { "changed after a step, of an age", { since = 5, age = 20 }, function(row) return row.step > 20 end },
  }

  for _, filter in ipairs(FILTERS) do
    it(filter[1], function()
      local expected = names_of(all, filter[3])
      local told = mr.export(store, dir .. "/some.tsv", filter[2])
      assert.same(expected, names_of(rows_of(dir .. "/some.tsv"), every))
      assert.equal(#expected, told.rows)
      told = mr.export(store, dir .. "/some.bin", filter[2])
      assert.equal(#expected, told.rows)
      if filter.whole then return end
      -- As a binary file it makes no store, and says so.
      raises("holds some rows or tables only", function()
        require("moonrock.ffi").mr_export_read(dir .. "/some.bin", require("ffi").new "mr_exported")
        local list = require("ffi").new("const char *[1]", { dir .. "/some.bin" })
        require("moonrock.error").check(require("moonrock.ffi").mr_store_import(dir .. "/none", list, 1))
      end)
      raises("does not exist", mr.import, dir .. "/none", dir .. "/some.bin")
    end)
  end

  it("is what comes back, by a binary file and by text, into a store that went on", function()
    for _, kind in ipairs { "bin", "tsv" } do
      local copy = dir .. "/" .. kind
      shell.run(("cp -a %s %s"):format(store, copy))
      local file = dir .. "/recent." .. kind
      mr.export(store, file, { age_seconds = 30 * DAY, min_count = 2 })
      local chosen = names_of(all, function(row) return row.step > days[10] and row.count >= 2 end)
      assert.equal(#chosen, mr.import(copy, file).rows)
      mr.export(copy, dir .. "/back.tsv")
      local values = {}
      for _, row in ipairs(rows_of(dir .. "/back.tsv")) do values[row.table .. row.key] = row end
      for _, row in ipairs(all) do
        local back = values[row.table .. row.key]
        assert.equal(row.count, back.count)
        assert.equal(row["w.0"], back["w.0"])
        assert.equal(row["u.1"], back["u.1"])
      end
      assert.equal(#all, #rows_of(dir .. "/back.tsv"))
    end
  end)

  it("by the command: an age in days, counts and tables", function()
    for words, wanted in pairs {
      ["--age 30d"] = FILTERS[9][3], ["--age 36h"] = FILTERS[10][3],
      ["--age 2w"] = function(row) return row.step > days[26] end, ["--age 10"] = FILTERS[7][3],
      ["--min-count 8"] = FILTERS[3][3], ["--table b"] = FILTERS[1][3], ["--since 33"] = FILTERS[5][3],
    } do
      local status, _, errors = shell.run(("%s export --store %s --out %s/cli.tsv %s"):format(shell.program, store, dir,
        words))
      assert.equal(0, status, errors)
      assert.same(names_of(all, wanted), names_of(rows_of(dir .. "/cli.tsv"), every), words)
    end
  end)
end)

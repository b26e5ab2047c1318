-- Predictions as a user meets them: scores that are not numbers, pipes that pause, what is read by default.
local shell = require "tests.support.shell"

local moonrock, run, quote, write = shell.moonrock, shell.run, shell.quote, shell.write
local dir = shell.directory()
local program = quote(shell.program)

local FILE = write(dir .. "/a.svm", "1 1:1 3:1\n0 2:1 3:1\n1 1:1 4:1\n0 2:1 4:1\n")
local STORE = dir .. "/store"

local function good(...)
  local status, out, errors = moonrock(...)
  assert.equal(0, status, errors)
  return out, errors
end

setup(function()
  good("train", "lr", "--data", FILE, "--store", STORE, "--epochs", "3")
  good("train", "fm", "--data", FILE, "--store", dir .. "/fm", "--epochs", "3")
end)

local function lines(text) return select(2, text:gsub("\n", "")) end

describe("a score that is not a number", function()
  -- 40 samples, of which numbers 10 and 31 overflow; a comment and a blank line stand before them.
  local function overflowing(name, first, second)
    local list = { "# scores", "" }
    for i = 1, 40 do
      list[#list + 1] = i == 10 and first or i == 31 and second or "0 1:1 3:1"
    end
    return write(dir .. "/" .. name, table.concat(list, "\n") .. "\n")
  end

  it("is an error that names file, line, key and value, wherever the sample is in its batch", function()
    local data = overflowing("o.svm", "0 1:1 77:1e30 3:1e22", "0 3:1e38 1:1e37")
    for _, batch in ipairs { "1", "7", "4096" } do
      local status, out, errors = moonrock("predict", "--store", dir .. "/fm", "--data", data, "--batch", batch)
      assert.equal(1, status)
      assert.equal(("moonrock: %s:12: the score is not a number (value of key 77: 1e+30)\n"):format(data), errors)
      assert.is_true(lines(out) < 10)
    end
  end)

  it("is nan under --bad-lines skip, and the number of them is told", function()
    local data = overflowing("o.svm", "0 1:1 77:1e30 3:1e22", "0 3:1e38 1:1e37")
    local out, errors = good("predict", "--store", dir .. "/fm", "--data", data, "--bad-lines", "skip")
    assert.equal(40, lines(out))
    local n, at = 0, {}
    for line in out:gmatch "[^\n]+" do
      n = n + 1
      if line == "nan" then at[#at + 1] = n end
    end
    assert.same({ 10, 31 }, at)
    assert.truthy(errors:find("2 scores are not numbers and written as nan; the first: " .. data .. ":12", 1, true),
      errors)
  end)

  it("names the field where a schema does", function()
    write(dir .. "/s.lua", [[local mr = require "moonrock"
      return mr.schema { label = "y", fields = { mr.category "c", mr.numeric("price", { scale = "none" }),
        mr.numeric("age", { scale = "none" }) } }]])
    write(dir .. "/train.csv", "c,price,age,y\na,1,2,1\nb,2,1,0\na,2,2,1\n")
    local data = write(dir .. "/new.csv", "c,price,age\na,1,2\nb,1e30,1e20\n")
    good("train", "fm", "--schema", dir .. "/s.lua", "--data", dir .. "/train.csv", "--store", dir .. "/csv")
    local status, _, errors = moonrock("predict", "--store", dir .. "/csv", "--data", data)
    assert.equal(1, status)
    assert.equal(("moonrock: %s:3: the score is not a number (value of field \"price\": 1e+30)\n"):format(data),
      errors)
  end)
end)

describe("predict from a pipe", function()
  it("answers each line as soon as it is there", function()
    -- the second line is sent once the first is answered
    local status, out, errors = run(([[
      cd %s && rm -f to from && mkfifo to from
      timeout 60 %s predict --store %s --data - <to >from & exec 8>to 9<from
      for line in "1 1:1 3:1" "0 2:1 4:1" "0 77:1"; do
        echo "$line" >&8; read -r answer <&9 || exit 7; echo "$answer"
      done
      exec 8>&-; wait]]):format(dir, program:gsub("^'%./", "'" .. io.popen("pwd"):read "*l" .. "/"), STORE))
    assert.equal(0, status, errors)
    local whole = write(dir .. "/three.svm", "1 1:1 3:1\n0 2:1 4:1\n0 77:1\n")
    assert.equal(good("predict", "--store", STORE, "--data", whole), out)
  end)

  it("reads standard input where neither --data nor the schema names files", function()
    local expected = good("predict", "--store", STORE, "--data", FILE)
    for _, source in ipairs { "cat %s | %s predict --store %s", "<%s %s predict --store %s" } do
      local status, out, errors = run(source:format(FILE, program, STORE))
      assert.equal(0, status, errors)
      assert.equal(expected, out)
    end
    local status, out, errors = run(("cat %s | %s eval --store %s"):format(FILE, program, STORE))
    assert.equal(0, status, errors)
    assert.truthy(out:find("4 rows", 1, true))
  end)

  it("says that a pipe is not read where the schema's test file is", function()
    write(dir .. "/t.lua", [[local mr = require "moonrock"
      return mr.schema { label = "y", fields = { mr.category "c" }, files = { train = "t.csv", test = "t.csv" } }]])
    write(dir .. "/t.csv", "c,y\na,1\nb,0\n")
    good("train", "lr", "--schema", dir .. "/t.lua", "--store", dir .. "/t")
    local status, out, errors = run(("cat %s/t.csv %s/t.csv | %s predict --store %s/t"):format(dir, dir, program,
      dir))
    assert.equal(0, status, errors)
    assert.equal(2, lines(out))
    assert.truthy(errors:find("standard input is not read", 1, true), errors)
    assert.truthy(errors:find(dir .. "/t.csv; --data - reads it", 1, true), errors)
    assert.equal("", select(2, good("predict", "--store", dir .. "/t")))
  end)
end)

describe("eval and predict", function()
  it("read only the rows of their keys when there is little data, and all when there is much", function()
    run(([[cd %s && for i in $(seq 30000); do echo "$((i %% 2)) $i:1"; done >many.svm]]):format(dir))
    good("train", "fm", "--data", dir .. "/many.svm", "--store", dir .. "/many", "--set", "dim=8")
    write(dir .. "/cached.lua", [[
      local mr = require "moonrock"
      local reopen = mr.reopen
      function mr.reopen(...)
        local model = reopen(...)
        local close = model.close
        function model.close(m)
          io.stderr:write("cached ", tonumber(require("moonrock.ffi").mr_table_cached(m.tables[1].c)), "\n")
          return close(m)
        end
        return model
      end
      require("moonrock.cli").main(arg)]])
    local function cached(command, data)
      local _, _, errors = moonrock(dir .. "/cached.lua", command, "--store", dir .. "/many", "--data", data)
      return tonumber(errors:match "cached (%d+)")
    end
    for _, command in ipairs { "eval", "predict" } do
      assert.is_true(cached(command, FILE) <= 4)
      assert.equal(30000, cached(command, dir .. "/many.svm"))
    end
  end)
end)

-- Files as they come from elsewhere: how they are packed, what stands before the data, pipes, and where
-- in them a sample stands.
local mr = require "moonrock"
local shell = require "tests.support.shell"

local dir = shell.directory()
local PROGRAM = io.popen("readlink -f " .. shell.quote(shell.program)):read "*l"

local function file(name, text) return shell.write(dir .. "/" .. name, text) end

-- The first keys of all samples, in their order.
local function keys(files, options)
  local o = { size = 3, memory = false }
  for name, value in pairs(options or {}) do o[name] = value end
  local it = mr.data { files = files }:batches(nil, o)
  local list = {}
  for batch in it do
    for s = 0, batch.n - 1 do list[#list + 1] = tonumber(batch.c.keys[batch.c.offsets[s]]) end
  end
  it:close()
  return list
end

-- Where every sample stands, by its key.
local function places(files, options)
  local it = mr.data { files = files }:batches(nil, options)
  local found = {}
  for batch in it do
    for s = 0, batch.n - 1 do
      local key = batch.c.offsets[s + 1] > batch.c.offsets[s]
        and tonumber(batch.c.keys[batch.c.offsets[s]]) or "bad"
      local where = it:where(s + 1):gsub("^" .. dir .. "/", "")
      assert.is_true(found[key] == nil or found[key] == where, where)
      found[key] = where
    end
  end
  it:close()
  return found
end

describe("a batch", function()
  local a = file("a.svm", "# head\n\n1 1:1\n0 2:1\n# more\n1 3:1\n")
  local b = file("b.svm", "1 4:1\n\n\n0 5:1")
  local expected = { "a.svm:3", "a.svm:4", "a.svm:6", "b.svm:1", "b.svm:4" }

  it("tells the file and line of each of its samples, whatever their order", function()
    for _, o in ipairs { { shuffle = false }, { shuffle = "full" }, { shuffle = 2 }, { stream = true } } do
      for _, memory in ipairs { true, false } do
        for _, size in ipairs { 1, 2, 100 } do
          local epochs = not o.stream and 3 or nil
          assert.same(expected, places({ a, b }, { size = size, memory = memory, shuffle = o.shuffle,
            stream = o.stream, epochs = epochs }))
        end
      end
    end
  end)

  it("tells them from any position on, and of bad lines that are kept", function()
    for sample = 0, 4 do
      local rest = {}
      for i = sample + 1, 5 do rest[i] = expected[i] end
      assert.same(rest, places({ a, b }, { from = { epoch = 0, sample = sample }, memory = false }))
    end
    assert.same({ "c.svm:2", [5] = "c.svm:6", bad = "c.svm:4" },
      places(file("c.svm", "# head\n1 1:1\n\nbroken\n\n1 5:1\n"), { bad_lines = "keep" }))
  end)

  it("says the number of a record whose line is too far back", function()
    local lines = {}
    for i = 1, 70000 do lines[i] = ("#\n1 %d:1\n"):format(i) end
    local it = mr.data { files = file("far.svm", table.concat(lines)) }:batches(nil,
      { size = 70000, memory = false })
    it()
    assert.equal(dir .. "/far.svm:140000", it:where(70000))
    assert.equal("record 1", it:where(1))
    it:close()
  end)
end)

describe("a pipe that stays open", function()
  it("hands out what is there when its writer pauses, with max_wait = 0", function()
    file("pause.lua", [[
      local it = require("moonrock").data {}:batches("-", { size = 1000, max_wait = 0, bad_lines = "keep" })
      for batch in it do
        io.write(batch.n, " ", it:where(batch.n), "\n")
        io.flush()
      end]])
    -- The writer goes on only when what it wrote before was answered.
    local status, out, errors = shell.run(("cd %s && mkfifo go && exec 9<>go && "
      .. "(printf '# c\\n1 1:1\\n'; read x <&9; printf '1 2:1\\n#\\n\\nbad\\n1 3'; read x <&9; printf ':1\\n') "
      .. "| %s pause.lua | while read line; do echo $line; echo >&9; done")
      :format(shell.quote(dir), shell.quote(PROGRAM)))
    assert.equal("", errors)
    assert.equal(0, status)
    assert.equal("1 standard input:2\n2 standard input:6\n1 standard input:7\n", out)
  end)
end)

describe("comments and blank lines", function()
  it("are no samples, whatever becomes of bad lines", function()
    for _, bad_lines in ipairs { "error", "skip", "keep" } do
      assert.same({ 1, 2 }, keys(file("comments.svm", "# a\n\n1 1:1\n   \n # b\n0 2:1\n\n"),
        { bad_lines = bad_lines }))
    end
  end)
end)

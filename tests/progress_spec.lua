-- The progress line on a pseudo-terminal: its width, its percentages, and what it leaves behind.
local shell = require "tests.support.shell"
local terminal = require "tests.support.terminal"

local dir = shell.directory()
local program = shell.quote(shell.program)

local ROWS = 120000
local samples = {}
for i = 1, ROWS do samples[i] = ("%d %d:1 %d:1"):format(i % 3 == 0 and 1 or 0, i % 97 + 1, 1000 + i % 1013) end
local data = shell.write(dir .. "/data.svm", table.concat(samples, "\n") .. "\n")

-- What stands on the screen in the end, and each line as it was drawn.
local function replay(output)
  local screen, row, drawn, at = { "" }, 1, {}, 1
  local column = 0
  while at <= #output do
    local byte = output:sub(at, at)
    if output:find("^\27%[J", at) then
      screen[row] = screen[row]:sub(1, column)
      for i = row + 1, #screen do screen[i] = nil end
      at = at + 3
    elseif byte == "\r" then
      column, at = 0, at + 1
    elseif byte == "\n" then
      row, column, at = row + 1, 0, at + 1
      screen[row] = screen[row] or ""
    else
      local text = output:match("^[^\r\n\27]+", at)
      assert(text, ("an unexpected control character %d"):format(output:byte(at)))
      screen[row] = screen[row]:sub(1, column) .. text .. screen[row]:sub(column + #text + 1)
      column, at = column + #text, at + #text
      if output:find("^\27%[J", at) then drawn[#drawn + 1] = text end
    end
  end
  return screen, column, drawn
end

local function run(columns, command)
  local t = terminal.open(command, columns)
  local output, status = t:close()
  local screen, column, drawn = replay(output)
  return { screen = screen, column = column, drawn = drawn, status = status, output = output }
end

local function train(store, more)
  return ("%s train fm --data %s --format libsvm --batch 32 --store %s/%s %s"):format(program, data, dir, store,
    more or "")
end

local function percentages(drawn)
  local list = {}
  for _, line in ipairs(drawn) do list[#list + 1] = tonumber(line:match "(%d+) %%") end
  return list
end

describe("the progress line", function()
  before_each(function()
    if not terminal.here() then pending("script(1), or a pseudo-terminal, is not here") end
  end)

  for _, columns in ipairs { 12, 40, 80, 120 } do
    it(("fits %d columns, grows with what was trained, and is gone in the end"):format(columns), function()
      local r = run(columns, train("w" .. columns, "--epochs 3"))
      assert.equal(0, r.status, r.output)
      assert.is_true(#r.drawn > 2, r.output)
      local last = 0
      for _, line in ipairs(r.drawn) do assert.is_true(#line < columns, line) end
      for _, percent in ipairs(percentages(r.drawn)) do
        assert.is_true(percent >= last and percent <= 100)
        last = percent
      end
      assert.equal(0, r.column)
      for _, line in ipairs(r.screen) do assert.is_nil(line:find("%%") or line:find("left")) end
      assert.truthy(table.concat(r.screen, "\n"):find("\nepoch 3 ", 1, true) or columns < 40)
    end)
  end

  it("says at 80 columns the epoch, how much of all epochs is trained, rate, loss and time left", function()
    local r = run(80, train("all", "--epochs 3"))
    local said = table.concat(r.drawn, "\n")
    assert.truthy(said:find("epoch 2/3  %d+ %% of all  [%d.]+[kM]? rows/s  logloss 0%.%d+  0:%d%d left"), said)
    for _, line in ipairs(r.drawn) do -- a third of all is an epoch
      local epoch, percent = line:match "epoch (%d)/3  (%d+) %%"
      if epoch then
        epoch, percent = tonumber(epoch), tonumber(percent)
        assert.is_true(percent + 1 >= (epoch - 1) * 100 / 3 and percent <= epoch * 100 / 3 + 1, line)
      end
    end
  end)

  it("counts what was trained, not what was read ahead", function()
    -- the file is read in a moment; a slow model is far behind
    local model = shell.write(dir .. "/slow.lua", [[
local mr = require "moonrock"
return mr.model("slow", function(m)
  local row = m:table("features", { w = { dim = 1 } })
  local steps = 0
  return function(x)
    steps = steps + 1
    if m.training then io.stderr:write("at ", steps, "\n") os.execute "sleep 0.12" end
    return row(x).w:sum()
  end
end)]])
    local few = shell.write(dir .. "/few.svm", ("1 1:1\n0 2:1\n"):rep(500))
    local r = run(80, ("%s train %s --data %s --format libsvm --batch 100 --store %s/slow"):format(program, model, few,
      dir))
    assert.equal(0, r.status, r.output)
    local step, seen = 0, 0
    for piece in r.output:gmatch "[^\r\n]+" do
      step = tonumber(piece:match "at (%d+)") or step
      local percent = tonumber(piece:match "(%d+) %%")
      if percent then
        seen = seen + 1
        assert.is_true(math.abs(percent - step * 10) <= 1, ("%d %% after %d of 10 steps"):format(percent, step))
      end
    end
    assert.is_true(seen >= 5, r.output)
    -- and what the model wrote in between stands on lines of its own
    local screen = "\n" .. table.concat(r.screen, "\n")
    for i = 1, 10 do assert.truthy(screen:find(("\nat %d\n"):format(i), 1, true), screen) end
  end)

  it("begins where a run that was stopped goes on, and Ctrl-C leaves nothing behind", function()
    local command = train("stopped", "--epochs 30")
    local t = terminal.open(command, 80)
    t:expect "epoch 6  "
    t:send "\3"
    t:expect "interrupted; the last batch is committed"
    local output, status = t:close()
    assert.equal(130, status)
    local screen, column = replay(output)
    assert.equal(0, column)
    for _, line in ipairs(screen) do assert.is_nil(line:find("left", 1, true), line) end
    local r = run(80, command)
    assert.equal(0, r.status, r.output)
    assert.is_true(percentages(r.drawn)[1] >= 20, r.drawn[1])
  end)

  it("is gone when the work fails", function()
    local bad = dir .. "/bad.svm"
    shell.run(("{ cat %s; echo 'no label'; } >%s"):format(data, bad))
    local r = run(80, ("%s train fm --data %s --format libsvm --batch 64 --shuffle off --store %s/bad"):format(program,
      bad, dir))
    assert.equal(1, r.status)
    assert.equal(0, r.column)
    local screen = table.concat(r.screen, "\n")
    assert.is_nil(screen:find("rows/s  logloss", 1, true), screen)
    assert.truthy(screen:find("moonrock: ", 1, true), screen)
  end)

  it("is there for eval, predict and learn", function()
    run(80, train("scored"))
    local store = dir .. "/scored"
    local commands = {
      eval = ("eval --store %s --batch 16 --data %s"):format(store, data),
      predict = ("predict --store %s --batch 16 --data %s --out %s/out"):format(store, data, dir),
      learn = ("learn fm --source %s --format libsvm --batch 64 --store %s/learned"):format(data, dir),
    }
    for name, command in pairs(commands) do
      local r = run(80, program .. " " .. command)
      assert.equal(0, r.status, r.output)
      local said = table.concat(r.drawn, "\n")
      assert.truthy(said:find(name .. "  ", 1, true), name .. ": " .. r.output)
      assert.equal(0, r.column)
    end
  end)

  it("is not drawn where standard error is no terminal, nor on a dumb one", function()
    local _, _, err = shell.run(train("pipe"))
    assert.is_nil(err:find("\27", 1, true))
    local r = run(80, "TERM=dumb " .. train("dumb"))
    assert.equal(0, #r.drawn)
  end)
end)

describe("a test file", function()
  it("is scored whole where a part of the training data is held out", function()
    local status, out = shell.moonrock("train", "lr", "--data", data, "--format", "libsvm", "--batch", "8192", "--valid",
      "0.1", "--test", data, "--store", dir .. "/tested", "--json")
    assert.equal(0, status)
    local result = require("dkjson").decode(out:match "[^\n]+\n$")
    assert.equal(ROWS, result.test.rows)
    assert.is_true(result.valid.rows < ROWS / 5)
  end)
end)

-- The prompt on a pseudo-terminal: editing, history, Ctrl-C, and what values look like.
local shell = require "tests.support.shell"
local terminal = require "tests.support.terminal"

local edits = shell.run("ldconfig -p 2>/dev/null | grep -q libedit.so || ls /usr/lib/*/libedit.so.2") == 0
local UP, LEFT, CTRL_A = "\27[A", "\27[D", "\1"

describe("the prompt", function()
  local state, t

  before_each(function()
    if not terminal.here() then pending("script(1), or a pseudo-terminal, is not here") end
    state = state or shell.directory()
    t = terminal.open(("XDG_STATE_HOME=%s %s"):format(state, shell.quote(shell.program)), 80)
    t:expect "Ctrl-D ends"
    t:expect "> "
  end)
  after_each(function()
    if t then t.pipe:close() end
    t = nil
  end)

  -- Gives up what is being typed. What a person types while the terminal is being set up again is dropped.
  local function interrupt()
    t:send "\3"
    t:expect "> "
    shell.run "sleep 0.5"
  end

  local function evaluate(line, answer)
    t:send(line .. "\n")
    local shown = t:expect(answer)
    assert.truthy(shown:find(answer, 1, true))
    return shown
  end

  it("shows what expressions are, and takes chunks of several lines", function()
    evaluate("= 6 * 7", "42")
    evaluate("6 * 8", "48")
    t:send "for i = 1, 2 do\n"
    t:expect ">> "
    t:send "print('line ' .. i + 40)\nend\n"
    t:expect "line 42"
    evaluate("{ b = { 1, 2 }, a = 'x' }", '{ a = "x", b = { 1, 2 } }')
    evaluate("error 'oops'", "prompt:1: oops")
    for _, line in ipairs { "{ 1,", "= 6 *", "mr.tensor {", "x = [[" } do
      evaluate(line, ">> ")
      interrupt()
    end
    evaluate("6 * 10 -- a comment", "60")
    evaluate("select(2, 'a', 'b')", "b")
    evaluate("6 * 9", "54")
  end)

  it("ends with the status of os.exit", function()
    t:send "os.exit(3)\n"
    local _, status = t:close()
    t = nil
    assert.equal(3, status)
  end)

  it("has the library as mr, and tensors to try without a model", function()
    evaluate("mr.tensor { { 1, 2, 3 }, { 4, 5, 6 } } * 2", "tensor [2, 3]")
    t:expect "12"
    evaluate("a = mr.tensor({ 2 }, { 3, 4 }, true)", "> ")
    evaluate("(a * a):sum():backward()", "true")
    evaluate("a:gradient(2)", "8")
    evaluate("mr.tensor { { 1 }, { 2, 3 } }", "prompt:1: mr.tensor: lists of one length were expected")
  end)

  it("shows what models, tables, batches and params are", function()
    evaluate("m = mr.find 'lr' { schema = require 'datasets.census' }", "> ")
    evaluate("m", "model lr: step 0, in memory")
    t:expect 'table "features": 0 rows'
    t:expect 'param "bias" [1]'
    evaluate("b = m:batches('train', { size = 100 })()", "> ")
    evaluate("b", "batch of 100 samples, epoch 1")
    evaluate("m(b)", "tensor [100, 1]")
    t:expect "... and 94 lines more"
    evaluate("m.params[1]", 'param "bias" [1]')
    evaluate("m.schema", "schema census: ")
  end)

  it("edits lines with the arrows, and remembers them", function()
    if not edits then pending("libedit is not here") end
    evaluate("1000 + 1", "1001")
    t:send(UP .. LEFT .. "3\n") -- 1000 + 31
    t:expect "1031"
    t:send(UP .. CTRL_A .. "2\n") -- 21000 + 31
    t:expect "21031"
    t:close()
    t = terminal.open(("XDG_STATE_HOME=%s %s"):format(state, shell.quote(shell.program)), 80)
    t:expect "> "
    t:send(UP .. "1\n") -- in another session: 21000 + 311
    t:expect "21311"
    assert.equal("600\n", select(2, shell.run("stat -c %a " .. state .. "/moonrock/history")))
  end)

  it("keeps the last thousand lines of its history", function()
    if not edits then pending("libedit is not here") end
    local lines = { "_HiStOrY_V2_" }
    for i = 1, 1500 do lines[i + 1] = "x" .. i end
    shell.write(state .. "/moonrock/history", table.concat(lines, "\n") .. "\n")
    t:close()
    t = terminal.open(("XDG_STATE_HOME=%s %s"):format(state, shell.quote(shell.program)), 80)
    t:expect "> "
    evaluate("30 + 3", "33")
    local text = shell.read(state .. "/moonrock/history")
    local count = select(2, text:gsub("\n", "\n")) - 1
    assert.is_true(count >= 999 and count <= 1000, count)
    assert.truthy(text:find("\nx1500\n30", 1, true))
  end)

  it("says in a line where the history cannot be kept, and goes on", function()
    if not edits then pending("libedit is not here") end
    t:close()
    t = terminal.open(("XDG_STATE_HOME=/dev/null %s"):format(shell.quote(shell.program)), 80)
    t:expect "what is typed is not kept: /dev/null/moonrock/history: "
    evaluate("20 + 2", "22")
  end)

  -- each ends by one Ctrl-C, and the prompt goes on
  local loops = { "while true do end", "local i = 0 repeat i = i + 1 until i < 0",
    "local function f() return f() end f()", "for i = 1, math.huge do local t = { i } end",
    "coroutine.wrap(function() while true do end end)()", "loadstring 'while true do end' ()",
    "while true do pcall(error) end" }
  for _, loop in ipairs(loops) do
    it(("ends `%s` at Ctrl-C, and not itself"):format(loop), function()
      t:send(loop .. "; print 'never'\n")
      t:expect(loop .. "; print 'never'")
      shell.run "sleep 0.3"
      t:send "\3"
      t:expect "interrupted"
      shell.run "sleep 0.5"
      evaluate("40 + 4", "44")
      assert.is_nil(t:output():find("\nnever", 1, true))
    end)
  end

  it("ends training after its batch at Ctrl-C, with a commit, and can train on", function()
    local store = shell.directory() .. "/store"
    evaluate(("m = mr.find 'lr' { schema = require 'datasets.census', store = %q }"):format(store), "> ")
    for _ = 1, 2 do
      t:send "r = mr.fit(m, { train = 'train', epochs = 1000000, on_step = function() print 'step' end })\n"
      t:expect "\nstep"
      t:send "\3"
      t:expect "interrupted"
      shell.run "sleep 0.5"
    end
    evaluate("m.step_number > 0, m.batches_since", "true\t0")
  end)

  it("gives up the line that is being typed at Ctrl-C", function()
    t:send "syntax error (("
    t:expect "(("
    interrupt()
    evaluate("50 + 5", "55")
    t:send "for i = 1, 2 do\n"
    t:expect ">> "
    interrupt()
    evaluate("60 + 6", "66")
  end)
end)

describe("a chunk of -e", function()
  it("has the library as mr", function()
    local status, out = shell.moonrock("-e", "print(mr.version, mr.tensor { 1, 2 }:sum())")
    assert.equal(0, status)
    assert.truthy(out:find "^%d+%.%d+%.%d+\ttensor %[1%]\n%s+3\n$", out)
  end)

  it("and a script do not share it: there it is required", function()
    local status, out = shell.moonrock("-e", "print(rawget(_G, 'mr'), nothing)")
    assert.same({ 0, "nil\tnil\n" }, { status, out })
  end)
end)

-- Several processes: readers that follow a store while another process trains it.
local raises = require "tests.support.raises"
local shell = require "tests.support.shell"

local PROGRAM, run = shell.program, shell.run

describe("readers that follow a store", function()
  local dir = shell.directory()
  local store = dir .. "/store"

  local function lines(path)
    local list = {}
    for line in (shell.read(path) or ""):gmatch("[^\n]+") do list[#list + 1] = line end
    return list
  end

  it("see whole commits, rows and dense weights of the same one, in order", function()
    local made = run(("%s datasets/synthetic.lua --seed 3 --train 6400 --test 300 --out %s --format bin")
      :format(PROGRAM, dir))
    assert.equal(0, made)
    local script = [[
      PROGRAM tests/support/leader.lua STORE DIR/train.bin DIR/test.bin 6 DIR/follower1 DIR/follower2 >DIR/leader & leader=$!
      until [ -s DIR/leader ]; do sleep 0.05; done
      timeout 300 PROGRAM tests/support/follower.lua STORE DIR/test.bin DIR/stop 1e9 >DIR/follower1 2>DIR/errors1 & one=$!
      timeout 300 PROGRAM tests/support/follower.lua STORE DIR/test.bin DIR/stop 64e6 >DIR/follower2 2>DIR/errors2 & two=$!
      wait $leader || exit 3
      touch DIR/stop
      wait $one || exit 1
      wait $two || exit 2
    ]]
    local status, _, errors = run((script:gsub("%u+", { PROGRAM = PROGRAM, STORE = store, DIR = dir })))
    assert.equal("", (shell.read(dir .. "/errors1") or "") .. (shell.read(dir .. "/errors2") or "") .. errors)
    assert.equal(0, status)
    local known, restored = {}, 0
    for _, line in ipairs(lines(dir .. "/leader")) do
      known[line] = true
      if line == "restored" then restored = restored + 1 end
    end
    assert.is_true(restored >= 1, "the writer restored nothing")
    for i = 1, 2 do
      local seen, last, back = lines(dir .. "/follower" .. i), -1, 0
      assert.is_true(#seen > 5, "follower " .. i .. " saw " .. #seen)
      for _, line in ipairs(seen) do
        assert.is_true(known[line] ~= nil, ("follower %d saw what no commit was: %s"):format(i, line))
        local number = tonumber(line:match("^%d+"))
        if number < last then back = back + 1 end
        last = number
      end
      assert.is_true(back <= restored, ("%d times back, %d restored"):format(back, restored))
      local all = lines(dir .. "/leader")
      assert.equal(all[#all], seen[#seen])
    end
  end)

  it("change nothing in its directory", function()
    local function state()
      local _, out = run("cd " .. store .. " && find . | sort | xargs ls -ld --time-style=full-iso "
        .. "&& find . -type f | sort | xargs sha256sum")
      return out
    end
    local before = state()
    run("touch " .. dir .. "/stop")
    local status, out = run(("timeout 60 %s tests/support/follower.lua %s %s/test.bin %s/stop 1e9"):format(PROGRAM, store, dir,
      dir))
    assert.equal(0, status)
    assert.matches("^%d+ %d+ %x+ ", out)
    assert.equal(before, state())
  end)

  it("may not train, and are told when there is nothing to follow", function()
    local mr = require "moonrock"
    local model = mr.reopen(store, { follow = true })
    assert.is_false(model:refresh())
    raises("is open for reading only", model.commit, model)
    model:close()
    model = mr.reopen(store)
    local ok, problem = pcall(model.refresh, model)
    assert.is_false(ok)
    assert.matches("was not opened to follow it", problem)
    model:close()
  end)
end)

-- Every day's data: a position belongs to a data set, each record is learned exactly once, and each command
-- says what it did.
local json = require "dkjson"
local mr = require "moonrock"
local shell = require "tests.support.shell"

local PROGRAM = shell.program
local DAY = 2000 -- records

describe("every day's data", function()
  local dir = shell.directory()
  local number = 0

  local function fresh()
    number = number + 1
    return ("%s/store%d"):format(dir, number)
  end

  -- Records first..last, each with a key of its own and one that all share.
  local function text(first, last)
    local lines = {}
    for i = first, last do lines[#lines + 1] = ("%d 1:1 %d:1"):format(i * 7 % 3 == 0 and 1 or 0, i + 10) end
    return table.concat(lines, "\n") .. "\n"
  end

  local function write(name, first, last) return shell.write(dir .. "/" .. name, text(first, last)) end
  local function day(n) return write(("day%d.svm"):format(n), (n - 1) * DAY + 1, n * DAY) end

  local function run(format, ...)
    local status, out, errors = shell.run(PROGRAM .. " " .. format:format(...))
    return status, out, errors
  end

  local function ok(format, ...)
    local status, out, errors = run(format, ...)
    assert.equal(0, status, errors)
    return out, errors
  end

  local function last_line(text_) return text_:match "([^\n]*)\n$" end

  -- How often the records first..last were learned: "1" when each was, once.
  local function times(store, first, last)
    local model = mr.reopen(store)
    local seen = {}
    for i = first, last do seen[(select(3, model.tables[1]:peek(i + 10, "w")))] = true end
    model:close()
    local list = {}
    for n in pairs(seen) do list[#list + 1] = tostring(n) end
    table.sort(list)
    return table.concat(list, " ")
  end

  it("is trained day by day, once, with a day that is killed and an early stop between", function()
    local store = fresh()
    local train = "train lr --store " .. store .. " --batch 16 --commit-every 10 --data %s"
    ok(train, day(1))
    local out = ok(train, day(1))
    assert.equal(("finished: 1 of 1 epochs of %s/day1.svm are done; --epochs 2 trains one more"):format(dir),
      last_line(out))
    local _, errors = ok(train, day(2))
    assert.matches("day2.svm is new to this store: goes on from step 125", errors, 1, true)
    local script = shell.write(dir .. "/killed.lua", [[
      local mr = require "moonrock"
      local n = 0
      mr.fit(mr.find "lr" { store = arg[1], data = mr.data {}, commit_every = 10 }, { train = arg[2], size = 16,
        on_step = function()
          n = n + 1
          if n == 40 then os.execute("sleep 0.5") end -- a commit is written meanwhile
          if n == 57 then os.execute("kill -9 $PPID") end
        end })
    ]])
    local status = run("%s %s %s", script, store, day(3))
    assert.equal(137, status)
    _, errors = ok(train, day(4))
    assert.matches("day3.svm: left half-way, at epoch 1, record ", errors, 1, true)
    ok(train, day(3))
    out = ok(train .. " --valid %s --epochs 9 --patience 1", day(5), day(1))
    assert.matches("back at the best, step %d+ of epoch %d", out)
    assert.matches("goes on from there", last_line(out))
    assert.equal("1", times(store, 1, 4 * DAY))
    local _, steps = ok("info --store %s --json", store), nil
    assert.is_nil(steps)
  end)

  it("is learned file by file, once, with a rotation, a truncation and more of the same file", function()
    local store, live = fresh(), write("live", 1, 300)
    local learn = "learn lr --batch 16 --store " .. store .. " --source " .. live
    ok(learn)
    assert.matches("^finished: 300 records of .*live are learned, nothing is new", last_line((ok(learn))))
    write("live", 1, 500)
    ok(learn)
    assert.equal("1", times(store, 1, 500))
    os.rename(live, live .. ".1")
    local rest = assert(io.open(live .. ".1", "a"))
    rest:write(text(501, 550))
    rest:close()
    write("live", 551, 900)
    local _, errors = ok(learn)
    assert.matches("live was rotated: goes on in .*live.1 behind record 500", errors)
    assert.equal("1", times(store, 1, 900))
    write("live", 901, 910)
    local status
    status, _, errors = run(learn)
    assert.equal(1, status)
    assert.matches("has shrunk .* it was truncated.* %-%-from start goes on", errors)
    ok(learn .. " --from start")
    assert.equal("1", times(store, 1, 910))
  end)

  it("is known by its first and last 64 KB, wherever they were changed", function()
    local ffi = require "ffi"
    local C = require "moonrock.ffi"
    local path, bytes = dir .. "/known", ("0 1:1\n"):rep(33000)
    local function hash_of(content)
      shell.write(path, content)
      local hex = ffi.new "char[17]"
      assert.equal(1, C.mr_file_hash(path, #content, hex))
      return ffi.string(hex)
    end
    local whole = hash_of(bytes)
    for _, at in ipairs { 1, 65536, #bytes - 65535, #bytes - 20000, #bytes } do
      assert.not_equal(whole, hash_of(bytes:sub(1, at - 1) .. "x" .. bytes:sub(at + 1)), "byte " .. at)
    end
    assert.equal(whole, hash_of(bytes))
  end)

  it("follows a rotation while it learns", function()
    local store, live = fresh(), write("followed", 1, 100)
    local status, _, errors = shell.run(([[
      cd %s; %s learn lr --source followed --store %s --follow --batch 10 --every 50 >lines 2>errors & learner=$!
      for i in $(seq 200); do grep -q 'rows 100' lines && break; sleep 0.1; done
      mv followed followed.1; cp more followed
      for i in $(seq 200); do grep -q 'rows 150' lines && break; sleep 0.1; done
      kill -INT $learner; wait $learner; cat errors >&2]]):format(dir,
      PROGRAM:match "^/" and PROGRAM or shell.run and "$OLDPWD/" .. PROGRAM, store,
      write("more", 101, 150)))
    assert.matches("followed was rotated", errors, 1, true)
    assert.equal(130, status == 0 and 130 or status)
    assert.equal("1", times(store, 1, 150))
    assert.truthy(live)
  end)

  it("of train and of learn have positions of their own", function()
    local store = fresh()
    ok("learn lr --batch 16 --store %s --source %s", store, day(1))
    ok("train lr --batch 16 --store %s --data %s", store, day(1))
    assert.equal("2", times(store, 1, DAY))
    assert.matches("^finished", last_line((ok("learn lr --store %s --source %s", store, day(1)))))
  end)

  it("in a directory is what is new there; what grew is trained behind what it had", function()
    local store = fresh()
    os.execute("mkdir " .. dir .. "/log")
    write("log/a", 1, 50)
    ok("train lr --store %s --data %s/log", store, dir)
    write("log/b", 51, 90)
    local _, errors = ok("train lr --store %s --data %s/log", store, dir)
    assert.matches("log/b is new to this store (1 other is known)", errors, 1, true)
    write("log/a", 1, 50)
    local grown = assert(io.open(dir .. "/log/b", "a"))
    grown:write(text(91, 99))
    grown:close()
    _, errors = ok("train lr --store %s --data %s/log", store, dir)
    assert.matches("log/b has grown since it was trained: what is behind record 40 is new", errors, 1, true)
    assert.equal("1", times(store, 1, 99))
    write("log/a", 200, 210)
    _, errors = ok("train lr --store %s --data %s/log", store, dir)
    assert.matches("log/a has shrunk .* it is new data", errors)
    assert.equal("1", times(store, 200, 210))
  end)

  it("is the same when it was packed meanwhile, and read on behind that in a packed rotation", function()
    local store, packed = fresh(), write("packed.svm", 1, 100)
    ok("train lr --store %s --data %s", store, packed)
    os.execute("gzip -k " .. packed)
    assert.matches("^finished", last_line((ok("train lr --store %s --data %s.gz", store, packed))))
    assert.equal("1", times(store, 1, 100))
    write("packed.svm", 1, 150)
    os.execute("gzip -f " .. packed)
    local status, _, errors = run("train lr --store %s --data %s.gz", store, packed)
    assert.equal(1, status)
    assert.matches("packed.svm.gz: holds what .*packed.svm had when it was trained, and more", errors)
    local live, sources = write("logrotate", 1, 20000), fresh() -- more than the 64 KiB at either end
    ok("learn lr --batch 100 --store %s --source %s", sources, live)
    write("logrotate", 1, 20100)
    os.rename(live, live .. ".2")
    os.execute("gzip " .. live .. ".2")
    write("logrotate.1", 20101, 20200)
    write("logrotate", 20201, 20250)
    _, errors = ok("learn lr --batch 100 --store %s --source %s", sources, live)
    assert.matches("logrotate was rotated: goes on in .*logrotate.2.gz behind record 20000", errors)
    assert.equal("1", times(sources, 1, 20250))
  end)

  it("is read once, though it is given twice, and named when it is the same under another name", function()
    local store, a = fresh(), write("twice.svm", 1, 100)
    local _, errors = ok("train lr --batch 1 --store %s --data %s --data %s/./twice.svm", store, a, dir)
    assert.matches("twice.svm, given twice: it is read once", errors, 1, true)
    assert.equal("1", times(store, 1, 100))
    os.execute(("cp %s %s/copy.svm"):format(a, dir))
    _, errors = ok("train lr --store %s --data %s/copy.svm", store, dir)
    assert.matches("copy.svm holds the same as .*twice.svm, which was trained before", errors)
  end)

  it("that was left half-way is not trained in part as if it were new", function()
    local store, a, b = fresh(), write("half1.svm", 1, 200), write("half2.svm", 201, 400)
    local script = shell.write(dir .. "/half.lua", [[
      local mr = require "moonrock"
      local m = mr.find "lr" { store = arg[1], data = mr.data {} }
      mr.fit(m, { train = { arg[2], arg[3] }, size = 16, on_step = function(step)
        if step == 9 then m:commit() os.execute "kill -9 $PPID" end
      end })]])
    assert.equal(137, (run("%s %s %s %s", script, store, a, b)))
    local status, _, errors = run("train lr --store %s --data %s", store, b)
    assert.equal(1, status)
    assert.matches("half2.svm: training is half%-way through .*half1.svm and .*half2.svm .*%-%-from start", errors)
    ok("train lr --batch 16 --store %s --data %s --data %s", store, a, b)
    assert.equal("1", times(store, 1, 400))
    ok("train lr --store %s --data %s --from start", store, b)
    assert.equal("2", times(store, 201, 400))
  end)

  it("says in JSON, and on standard error, why nothing was trained", function()
    local store = fresh()
    ok("train lr --store %s --data %s", store, day(1))
    local out, errors = ok("train lr --json --store %s --data %s", store, day(1))
    local result = json.decode(last_line(out))
    assert.equal(0, result.trained)
    assert.matches("^finished: 1 of 1 epochs", result.reason)
    assert.matches("finished: 1 of 1 epochs", errors, 1, true)
  end)

  it("begins at the start in a reader that follows", function()
    local store = fresh()
    ok("train lr --store %s --data %s", store, day(1))
    local model = mr.reopen(store, { follow = true })
    local n = 0
    for batch in model:batches(day(1), { size = 512 }) do n = n + batch.n end
    model:close()
    assert.equal(DAY, n)
  end)
end)

describe("a training command", function()
  local dir = shell.directory()
  local data = shell.write(dir .. "/a.svm", ("1 1:1\n0 2:1\n"):rep(50))
  local positives = shell.write(dir .. "/ones.svm", ("1 1:1\n"):rep(20))

  it("says that a metric is not defined, and does not stop for it", function()
    local _, out, errors = shell.run(("%s train lr --data %s --valid %s --patience 2 --epochs 6 --store %s/u"):format(
      PROGRAM, data, positives, dir))
    assert.matches("auc of .*ones.svm is not defined: all 20 labels are 1; %-%-set fit.monitor=logloss", errors)
    assert.matches("epoch 6 ", out, 1, true)
    assert.is_nil(out:find "nan")
  end)

  it("leaves no store behind when its data cannot be read", function()
    local schema = shell.write(dir .. "/s.lua", 'local mr = require "moonrock"\nreturn mr.schema { name = "s", '
      .. 'label = "lable", fields = { mr.category "a" } }')
    local csv = shell.write(dir .. "/s.csv", "a,label\nx,1\ny,0\n")
    local command = ("%s train lr --schema %s --data %s --store %s/s"):format(PROGRAM, schema, csv, dir)
    assert.equal(1, (shell.run(command)))
    assert.equal(1, (shell.run("ls " .. dir .. "/s")) > 0 and 1 or 0)
    shell.write(schema, (shell.read(schema):gsub("lable", "label")))
    assert.equal(0, (shell.run(command)))
  end)

  it("refuses another loss than the store's, and goes on with it without --loss", function()
    local command = ("%s train lr --data %s --store %s/loss"):format(PROGRAM, data, dir)
    assert.equal(0, (shell.run(command .. " --loss mse")))
    local status, _, errors = shell.run(command .. " --loss bce --epochs 2")
    assert.equal(1, status)
    assert.matches("it was made with the loss mse, not bce", errors, 1, true)
    local _, out = shell.run(command .. " --epochs 2")
    assert.matches("train mse", out, 1, true)
  end)

  it("gives the mean of the losses, whatever the samples weigh", function()
    local schema = shell.write(dir .. "/w.lua", 'local mr = require "moonrock"\nreturn mr.schema { name = "w", '
      .. 'label = "y", weight = "w", fields = { mr.category "a" } }')
    local csv = shell.write(dir .. "/w.csv", "a,w,y\n" .. ("x,10,1\ny,10,0\n"):rep(20))
    local _, out = shell.run(("%s train lr --schema %s --data %s --store %s/w --lr 1e-9"):format(PROGRAM, schema,
      csv, dir))
    assert.matches("train logloss 0.6931", out, 1, true)
  end)
end)

describe("moonrock learn", function()
  local dir = shell.directory()
  local data = shell.write(dir .. "/a.svm", "1 1:1\n0 2:1\n1 3:3e38 4:3e38\n0 2:1\n")

  it("skips a batch that is not finite, and names its line", function()
    local status, _, errors = shell.run(
      ("%s learn fm --source %s --store %s/s --batch 1 --set fit.on_nan=skip"):format(PROGRAM, data, dir))
    assert.equal(0, status)
    assert.matches("a%.svm:3", errors)
    assert.matches("1 batches were not finite", errors, 1, true)
  end)

  it("refuses settings that it does not take, and times that are none", function()
    for _, words in ipairs { "--set fit.nonsense=1", "--set fit.patience=2", "--set fit.class_weight=balanced",
      "--every soon" } do
      assert.equal(2, (shell.run(("%s learn lr --source %s --store %s/r %s"):format(PROGRAM, data, dir, words))),
        words)
    end
    local status, out = shell.run(("%s learn lr --source %s --store %s/e --every 2"):format(PROGRAM,
      shell.write(dir .. "/b.svm", "1 1:1\n0 2:1\n1 3:1\n"), dir))
    assert.equal(0, status)
    assert.matches("accuracy", out, 1, true)
  end)
end)

-- Files that commands and scripts make: each takes its place once it is whole, and never that of what is
-- read.
local mr = require "moonrock"
local Output = require "moonrock.output"
local shell = require "tests.support.shell"

local moonrock, run, quote, read, write = shell.moonrock, shell.run, shell.quote, shell.read, shell.write
local dir = shell.directory()
local program = shell.program:find("^/") and shell.program or io.popen("pwd"):read("*l") .. "/" .. shell.program

local DATA = "1 1:1 3:1\n0 2:1 3:1\n1 1:1 4:1\n0 2:1 4:1\n"
local STORE, FILE = dir .. "/store", write(dir .. "/a.svm", DATA)

setup(function()
  local status, _, errors = moonrock("train", "lr", "--data", FILE, "--store", STORE, "--epochs", "3")
  assert.equal(0, status, errors)
end)

local function predict(...) return moonrock("predict", "--store", STORE, "--data", ...) end

local function predictions() return select(2, predict(FILE)) end

-- Names in a directory, sorted.
local function names(path)
  return (select(2, run("LC_ALL=C ls -A " .. quote(path))):gsub("\n", " "))
end

-- A directory of its own for a test.
local function place(name)
  run("mkdir -p " .. quote(dir .. "/" .. name))
  return dir .. "/" .. name
end

-- Fails with a status and one line that holds a text.
local function refused(expected, text, status, _, errors)
  assert.equal(expected, status, errors)
  assert.truthy(errors:find(text, 1, true), errors)
  assert.equal(1, select(2, errors:gsub("\n", "")), errors)
end

describe("predict --out", function()
  it("refuses the data itself, by any of its names, and leaves it as it is", function()
    local at = place "itself"
    local data = write(at .. "/b.svm", DATA)
    run(("cd %s && ln b.svm hard.svm && ln -s b.svm soft.svm && ln -s soft.svm softer.svm"):format(quote(at)))
    for _, name in ipairs { "b.svm", "hard.svm", "soft.svm", "softer.svm", "../itself/b.svm" } do
      refused(2, "--out " .. at .. "/" .. name .. ": is the data itself; give another file",
        predict(data, "--out", at .. "/" .. name))
    end
    refused(2, "is the data itself", predict(at .. "/soft.svm", "--out", data))
    refused(2, "is the data itself", predict(FILE, "--data", data, "--out", data))
    assert.equal(DATA, read(data))
    assert.equal("b.svm hard.svm soft.svm softer.svm ", names(at))
    refused(2, "standard output: is the data itself",
      run(("%s predict --store %s --data %s >>%s"):format(program, STORE, data, data)))
    refused(2, "is the data itself",
      run(("%s predict --store %s --data - --out %s <%s"):format(program, STORE, data, data)))
    assert.equal(DATA, read(data))
  end)

  it("refuses a file in a directory that is read, however deep", function()
    local at = place "days"
    run("mkdir -p " .. at .. "/deep/er && ln -s deep " .. at .. "/link")
    write(at .. "/1.svm", DATA)
    for _, name in ipairs { "/out", "/deep/er/out", "/link/out", "/missing/out" } do
      refused(2, ": lies in the data, " .. at, predict(at, "--out", at .. name))
    end
    assert.equal("1.svm deep link ", names(at))
  end)

  it("refuses the model's file that it is given", function()
    local text = read "models/lr.lua"
    local own = write(place "own" .. "/lr.lua", text)
    refused(2, "is the model's file itself", run(("%s predict %s --store %s --data %s --out %s"):format(program,
      own, STORE, FILE, own)))
    assert.equal(text, read(own))
  end)

  it("refuses a file in the store, and those that its schema names", function()
    local before = names(STORE)
    refused(2, "lies in the store", predict(FILE, "--out", STORE .. "/COMMIT"))
    refused(2, "lies in the store", predict(FILE, "--out", STORE .. "/predictions"))
    refused(2, "is the store itself", predict(FILE, "--out", STORE))
    assert.equal(before, names(STORE))
    local at = place "schema"
    local csv = "c,y\nx,1\nz,0\n"
    for _, name in ipairs { "train.csv", "valid.csv", "test.csv", "new.csv" } do write(at .. "/" .. name, csv) end
    write(at .. "/s.lua", [[local mr = require "moonrock"
      return mr.schema { label = "y", fields = { mr.category "c" },
        files = { train = "train.csv", valid = "valid.csv", test = "test.csv" } }]])
    assert.equal(0, (moonrock("train", "lr", "--schema", at .. "/s.lua", "--store", at .. "/store")))
    for _, part in ipairs { "train", "valid", "test" } do
      refused(2, ("is the schema's %s file itself"):format(part), moonrock("predict", "--store", at .. "/store",
        "--data", at .. "/new.csv", "--out", ("%s/%s.csv"):format(at, part)))
      assert.equal(csv, read(("%s/%s.csv"):format(at, part)))
    end
  end)

  it("leaves the old file, and nothing else, when a line is bad, a disk is full or a signal comes", function()
    local at = place "broken"
    local out = write(at .. "/p", "old\n")
    local big = {}
    for i = 1, 6000 do big[i] = "1 1:1 3:1" end
    big[#big + 1] = "1 no entry"
    write(dir .. "/bad.svm", table.concat(big, "\n") .. "\n")
    refused(1, "bad.svm:6001", predict(dir .. "/bad.svm", "--out", out))
    assert.equal("old\n", read(out))
    assert.equal("p ", names(at))
    big[#big] = nil
    write(dir .. "/big.svm", table.concat(big, "\n") .. "\n")
    refused(1, out .. ": could not be written: File too large", run(
      ("trap '' XFSZ; ulimit -f 8; exec %s predict --store %s --data %s/big.svm --out %s"):format(program, STORE,
        dir, out)))
    assert.equal("old\n", read(out))
    assert.equal("p ", names(at))
    for name, number in pairs { INT = 2, TERM = 15, KILL = 9 } do
      -- a pipe that stays open behind the first samples, until the program has ended
      local status, _, errors = run(([[
        mkfifo %s/pipe.%s; exec 9<>%s/pipe.%s; cat %s >&9
        timeout -s %s 0.5 %s predict --store %s --data %s/pipe.%s --out %s
      ]]):format(dir, name, dir, name, FILE, name, program, STORE, dir, name, out))
      assert.truthy(status == 124 or status == 128 + number, status)
      if name ~= "KILL" then assert.truthy(errors:find("not all is scored", 1, true), errors) end
      assert.equal("old\n", read(out))
      assert.equal("p ", names(at))
    end
  end)

  it("keeps a link a link, and the rights of the file that was there", function()
    local at = place "links"
    write(at .. "/real", "old\n")
    run(("cd %s && chmod 640 real && ln -s real link && ln -s later dangling"):format(at))
    predict(FILE, "--out", at .. "/link")
    assert.equal(predictions(), read(at .. "/real"))
    assert.equal("640\n", select(2, run("stat -c %a " .. at .. "/real")))
    predict(FILE, "--out", at .. "/dangling")
    assert.equal(predictions(), read(at .. "/later"))
    assert.equal("dangling later link real ", names(at))
    assert.equal("link\n", select(2, run(("cd %s && test -L link && test -L dangling && echo link"):format(at))))
  end)

  it("writes to pipes, devices and standard output as they are", function()
    local expected = predictions()
    assert.equal(expected, select(2, predict(FILE, "--out", "-")))
    assert.equal(expected, select(2, predict(FILE, "--out", "/dev/stdout")))
    assert.equal(0, (predict(FILE, "--out", "/dev/null")))
    assert.equal(expected, select(2, run(("mkfifo %s/out; cat %s/out & %s predict --store %s --data %s --out %s/out; "
      .. "wait"):format(dir, dir, program, STORE, FILE, dir))))
    local kept = write(dir .. "/kept", "first\n")
    run(("%s predict --store %s --data %s --out /dev/stdout >>%s"):format(program, STORE, FILE, kept))
    assert.equal("first\n" .. expected, read(kept))
    refused(1, "/dev/full: could not be written: No space left on device", predict(FILE, "--out", "/dev/full"))
    refused(1, "standard output: could not be written: No space left on device",
      run(("%s predict --store %s --data %s >/dev/full"):format(program, STORE, FILE)))
    refused(1, "could not be written: No such file", predict(FILE, "--out", dir .. "/nowhere/p"))
    refused(1, "could not be written: Is a directory", predict(FILE, "--out", dir))
  end)
end)

describe("export and checkpoint", function()
  it("write nothing into the store that they read", function()
    local before = names(STORE)
    for _, format in ipairs { "tsv", "bin", "npy" } do
      for _, name in ipairs { "/x", "/COMMIT" } do
        refused(2, "lies in the store", moonrock("export", "--store", STORE, "--out", STORE .. name, "--format",
          format))
      end
    end
    refused(1, "lies in the store", moonrock("checkpoint", "--store", STORE, "--out", STORE .. "/copy"))
    refused(1, "lies in the store", moonrock("checkpoint", "--store", STORE, "--out", STORE .. "/a/copy"))
    assert.equal(before, names(STORE))
    assert.error_matches(function() mr.export(STORE, STORE .. "/rows.tsv") end, "lies in the store")
    local model = mr.reopen(STORE)
    assert.error_matches(function() model:export(STORE .. "/rows.bin") end, "lies in the store")
    assert.error_matches(function() model:checkpoint(STORE .. "/copy") end, "lies in the store")
    model:close()
    assert.equal(before, names(STORE))
  end)

  it("leave the old file when the disk is full, and remove what a process left that was killed", function()
    local at = place "exports"
    run(([[cd %s && for k in $(seq 3000); do echo "1 $k:1"; done >many.svm]]):format(dir))
    assert.equal(0, (moonrock("train", "fm", "--data", dir .. "/many.svm", "--store", dir .. "/many")))
    for _, name in ipairs { "rows.tsv", "rows.bin", "rows.npy" } do
      local out = at .. "/" .. name
      if name ~= "rows.npy" then write(out, "old\n") end
      refused(1, "could not be written: File too large", run(
        ("trap '' XFSZ; ulimit -f 8; exec %s export --store %s/many --out %s"):format(program, dir, out)))
      assert.equal(name ~= "rows.npy" and "old\n" or nil, read(out))
    end
    assert.equal("rows.bin rows.tsv ", names(at))
    run(("cd %s && mkdir rows.npy.writing-99999999 && touch rows.tsv.writing-99999999"):format(at))
    for _, name in ipairs { "rows.tsv", "rows.npy" } do
      assert.equal(0, (moonrock("export", "--store", dir .. "/many", "--out", at .. "/" .. name)))
    end
    assert.equal("rows.bin rows.npy rows.tsv ", names(at))
  end)

  it("go by the ending of the name, or say which formats there are", function()
    for _, name in ipairs { "x.csv", "x.parquet", "x.tsv.gz", "x.2024" } do
      refused(2, "expected a name that ends in .tsv, .npy or .bin, or a format (--format tsv, npy, bin)",
        moonrock("export", "--store", STORE, "--out", dir .. "/" .. name))
      assert.is_nil(read(dir .. "/" .. name))
      assert.error_matches(function() mr.export(STORE, dir .. "/" .. name) end, "ends in .tsv, .npy or .bin")
    end
    assert.equal(0, (moonrock("export", "--store", STORE, "--out", dir .. "/x.csv", "--format", "tsv")))
    assert.equal("table\tkey", read(dir .. "/x.csv"):sub(1, 9))
    assert.equal(0, (moonrock("export", "--store", STORE, "--out", dir .. "/y.bin")))
    assert.equal("moonrock", read(dir .. "/y.bin"):sub(1, 8))
    assert.equal(0, (moonrock("export", "--store", STORE, "--out", dir .. "/plain")))
    assert.equal("moonrock", read(dir .. "/plain"):sub(1, 8))
    assert.equal(0, (moonrock("export", "--store", STORE, "--out", "/dev/null")))
    assert.equal("table\tkey", select(2, moonrock("export", "--store", STORE, "--out", "-", "--format",
      "tsv")):sub(1, 9))
  end)
end)

describe("an output in Lua", function()
  it("is there once it is closed, and not if it is given up", function()
    local at = place "lua"
    local path = write(at .. "/x", "old")
    local out = Output.open(path)
    out:write "new"
    out:flush()
    assert.equal("old", read(path))
    out:abort()
    assert.equal("old", read(path))
    out = Output.open(path)
    out:write "new"
    out:close()
    assert.equal("new", read(path))
    assert.equal("x ", names(at))
  end)
end)

describe("standard output", function()
  it("that is full is an error of every command and script, which has done its work", function()
    for _, words in ipairs { "train lr --data a.svm --store full", "eval --store store --data a.svm", "--help",
      "info --store store", "learn lr --source a.svm --store learned", "-e 'print(1)'", "verify --store store" } do
      local status, _, errors = run(("cd %s && %s %s >/dev/full"):format(quote(dir), quote(program), words))
      assert.equal(1, status, words)
      assert.truthy(errors:find("moonrock: standard output: could not be written", 1, true), words .. ": " .. errors)
    end
    assert.equal(0, (moonrock("verify", "--store", dir .. "/full")))
  end)

  it("and the like that are closed do not become files that are read or written", function()
    local status, _, errors = run(("cd %s && %s train lr --data - --store closed <&-"):format(quote(dir), quote(program)))
    assert.equal(1, status)
    assert.truthy(errors:find("standard input: at byte 0: Bad file descriptor", 1, true), errors)
    status = run(("cd %s && %s train lr --data a.svm --store closed >&- 2>&- <&-"):format(quote(dir), quote(program)))
    assert.equal(1, status)
    assert.equal(0, (moonrock("verify", "--store", dir .. "/closed")))
    local _, out = moonrock("export", "--store", dir .. "/closed", "--format", "tsv", "--out", "-")
    assert.equal(5, select(2, out:gsub("\n", "")))
  end)
end)

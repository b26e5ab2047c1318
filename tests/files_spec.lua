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

-- What the program says, on standard error, to a shell command in the directory; it must fail.
local function refusal(command)
  local status, _, errors = shell.run(("cd %s && MR=%s && %s"):format(shell.quote(dir), shell.quote(PROGRAM), command))
  assert.is_true(status == 1 or status == 2, errors .. status)
  return errors
end

local function problem(...)
  local ok, message = pcall(keys, ...)
  assert.is_false(ok)
  return (message:gsub("^%S+_spec%.lua:%d+: ", ""):gsub(dir .. "/", ""))
end

local function run(command)
  local status, out, errors = shell.run(("cd %s && %s"):format(shell.quote(dir), command))
  assert.equal(0, status, out .. errors)
  return out
end

local function le(n, bytes)
  local list = {}
  for i = 1, bytes do list[i], n = string.char(n % 256), math.floor(n / 256) end
  return table.concat(list)
end

local function has(tool) return os.execute("command -v " .. tool .. " >/dev/null") == 0 end

local numbers = {}
for i = 1, 4000 do numbers[i] = ("%d %d:1\n"):format(i % 2, i) end
local many = table.concat(numbers)
local plain = file("plain.svm", many)
local expected = keys(plain)

describe("a packed file", function()
  it("may hold zstd's skippable frames at the start, between frames and at the end", function()
    local function skippable(i, text) return le(0x184D2A50 + i, 4) .. le(#text, 4) .. text end
    run "zstd -q -c plain.svm > one.zst"
    local frame = shell.read(dir .. "/one.zst")
    local path = file("skip.svm.zst", skippable(0, "12") .. skippable(15, "") .. frame .. skippable(7, ("x"):rep(300000))
      .. skippable(3, "y") .. frame .. skippable(1, "end"))
    assert.same(8000, #keys(path))
    path = file("skip", skippable(9, "abc") .. frame) -- without a name that tells
    assert.same(expected, keys(path))
    local message = problem(file("cut.svm.zst", frame .. skippable(2, "long"):sub(1, 9)))
    assert.truthy(message:find("cut.svm.zst: is truncated: the zstd data ends at byte", 1, true), message)
    assert.truthy(problem(file("only.svm.zst", skippable(2, "long"))):find "is empty")
  end)

  it("is read with any window that there is memory for, and else told how large that is", function()
    run "cat plain.svm | zstd -q --long=31 -c > w31.svm.zst && cat plain.svm | zstd -q --long=28 -c > w28.svm.zst"
    assert.same(expected, keys(dir .. "/w28.svm.zst"))
    local errors = refusal "$MR train lr --data w31.svm.zst --store w31 --memory 500MB"
    assert.truthy(errors:find("w31.svm.zst: is packed with a window of 2147 MB (zstd --long=31), and", 1, true), errors)
    assert.truthy(errors:find("allow more (--memory), or unpack it (zstd -dc --long=31", 1, true), errors)
    assert.falsy(errors:find "damaged")
    run(("%s train lr --data w28.svm.zst --store w28 --memory 500MB"):format(shell.quote(PROGRAM)))
    -- a frame of a header alone, whose window is 3.75 TB
    errors = problem(file("w41.svm.zst", "\40\181\47\253\0\255\1\0\0"))
    assert.truthy(errors:find("more than the 2147 MB that are read; pack it anew", 1, true), errors)
  end)

  it("says what it needs that was packed with a dictionary", function()
    local frame = "\40\181\47\253\35" .. "\1\2\3\4" .. "\5" .. "\41\0\0hello"
    local message = problem(file("dictionary.svm.zst", frame))
    assert.truthy(message:find("is packed with a dictionary, which is not read; unpack it", 1, true), message)
  end)

  it("is known by what it holds, whatever its name", function()
    run "gzip -c plain.svm > named.svm && zstd -q -c plain.svm > named.txt && cp plain.svm named.svm.gz"
    for _, name in ipairs { "named.svm", "named.txt", "named.svm.gz" } do
      assert.same(expected, keys(dir .. "/" .. name), name)
    end
  end)
end)

describe("a file that is not read", function()
  local function all(name, says)
    for _, from in ipairs { name, "-" } do
      local errors = refusal(("cat %s | $MR train lr --loss mse --data %s --store refused"):format(name, from))
      local subject = from == "-" and "standard input" or name
      assert.truthy(errors:find(subject .. ": " .. says, 1, true), errors)
    end
  end

  for tool, commands in pairs {
    bzip2 = { "bzip2 -kc plain.svm > t.svm.bz2", "t.svm.bz2", "is packed by bzip2, which is not read; unpack it (bzip2 -dc" },
    xz = { "xz -kc plain.svm > t.bin.xz", "t.bin.xz", "is packed by xz, which is not read; unpack it (xz -dc" },
    zip = { "zip -q t.zip plain.svm", "t.zip", "is a zip archive, which is not read; unpack it (unzip -p" },
    lz4 = { "lz4 -qc plain.svm > t.lz4", "t.lz4", "is packed by lz4, which is not read; unpack it (lz4 -dc" },
    tar = { "tar cf t.tar plain.svm && gzip -kc t.tar > t.tar.gz && zstd -qc t.tar > t.svm.zst && cp t.tar t.bin",
      { "t.tar", "t.tar.gz", "t.svm.zst", "t.bin" }, "is a tar archive, which is not read; unpack it (tar -xOf" },
  } do
    it("is named when it is of " .. tool .. ", with what unpacks it", function()
      if not has(tool) then return pending(tool .. " is not here") end
      run(commands[1])
      for _, name in ipairs(type(commands[2]) == "table" and commands[2] or { commands[2] }) do
        all(name, commands[3])
      end
    end)
  end

  it("is named when it is of another kind", function()
    local zeros = ("\0"):rep(600)
    for _, case in ipairs {
      { "7z\188\175\39\28" .. zeros, "is a 7z archive" }, { "PAR1\21\4" .. zeros, "is a Parquet file" },
      { "SQLite format 3\0" .. zeros, "is an SQLite database" }, { "\137HDF\r\n\26\n" .. zeros, "is an HDF5 file" },
      { "\147NUMPY\1\0" .. zeros, "is a NumPy array" }, { "ARROW1\0\0" .. zeros, "is an Arrow" },
      { "Obj\1\4" .. zeros, "is an Avro file" }, { "ORC\10\1" .. zeros, "is an ORC file" },
      { '{"a": 1}\n', "is JSON" }, { "<!DOCTYPE html>\n", "is a web page" },
      { "version https://git-lfs.github.com/spec/v1\n", "is a pointer of Git LFS" },
      { "1 2:1\0\n", "is not text: of its first 7 bytes 1 are no characters" },
      { "\255\2541\0 \0002\0:\0001\0\n\0", "is text in UTF-16; UTF-8 is read" },
      { "\254\255\0001\0 \0002\0:\0001\0\n", "is text in UTF-16; UTF-8 is read" },
      { "1\0 \0002\0:\0001\0\n\0", "is text in UTF-16; UTF-8 is read" },
      { "\255\254\0\0001\0\0\0 \0\0\0", "is text in UTF-32; UTF-8 is read" },
    } do
      for _, name in ipairs { "kind.svm", "kind" } do
        local message = problem(file(name, case[1]))
        assert.truthy(message:find(name .. ": " .. case[2], 1, true), message)
      end
    end
  end)

  it("is named when it is packed twice, or its lines end with carriage returns alone", function()
    run "printf '1 1:1\\n0 2:1\\n' > small.svm; zstd -qc small.svm | gzip -c > twice.gz"
    run "gzip -c small.svm | zstd -qc > twice.zst"
    for _, name in ipairs { "twice.gz", "twice.zst" } do
      local message = problem(dir .. "/" .. name)
      assert.truthy(message:find(name .. ": is packed twice", 1, true), message)
      assert.truthy(message:find("gzip -dc FILE", 1, true), message)
    end
    for _, text in ipairs { "1 1:1\r0 2:1\r", "1 0:1:1\r0 0:2:1\r" } do
      local message = problem(file("mac.svm", text))
      assert.truthy(message:find("mac.svm: its lines end with carriage returns alone", 1, true), message)
    end
    assert.same({ 1 }, keys(file("last.svm", "1 1:1\r")))
    assert.same({ 1, 2 }, keys(file("dos.svm", "1 1:1\r\n0 2:1\r\n")))
    local s = mr.schema { label = "y", fields = { mr.category "a" } }
    assert.truthy(select(2, pcall(s.batches, s, file("mac.csv", "y,a\r1,u\r"), {})):find("carriage returns alone",
      1, true))
  end)

  it("says at which byte it is damaged, and not at which it was looked at", function()
    run "seq 20000 | awk '{ print $1 % 2, $1 \":1\" }' | gzip -c > whole.gz"
    local text = shell.read(dir .. "/whole.gz")
    local at = #text - 6 -- in the checksum
    local broken = text:sub(1, at) .. string.char((text:byte(at + 1) + 1) % 256) .. text:sub(at + 2)
    local where = tonumber(problem(file("broken.gz", broken)):match "broken.gz: is damaged at byte (%d+)")
    assert.is_true(where > at - 8 and where <= #text, where)
  end)

  it("is not taken for another kind when it is text that begins alike", function()
    for _, word in ipairs { "ORC", "PAR1", "BZh", "LZIP", "FEA1", "PK", "Rar" } do
      local s = mr.schema { label = "y", fields = { mr.category(word) } }
      local n = 0
      for batch in s:batches(file("alike.csv", word .. ",y\na,1\nb,0\n"), {}) do n = n + batch.n end
      assert.equal(2, n, word)
    end
  end)

  it("does not write control characters to the terminal", function()
    local message = problem(file("escape.svm", "1 1:1\n\27[31m 2:1\n"))
    assert.equal('escape.svm:2: expected a label, found "?[31m"', message)
    local it = mr.data { files = dir .. "/escape.svm" }:batches(nil, { bad_lines = "skip" })
    while it() do end
    local _, first = it:skipped()
    assert.falsy(first:find("\27", 1, true))
  end)
end)

describe("records of ids", function()
  local ffi = require "ffi"
  local function ids(n, fields, label)
    local words = ffi.new("int64_t[?]", n * (fields + 1))
    for i = 0, n * (fields + 1) - 1 do words[i] = (i + 1) % (fields + 1) == 0 and label(i) or i + 1000 end
    return ffi.string(words, n * (fields + 1) * 8)
  end

  it("are found in a file whose name does not tell only if every label is one", function()
    local function one(i) return i % 2 end
    assert.equal(5, #keys(file("ids", ids(5, 39, one))))
    assert.equal(5, #keys(file("ids.bin", ids(5, 39, one))))
    for _, text in ipairs { ids(5, 39, one) .. "x", ids(5, 39, function(i) return i end), ids(5, 12, one) } do
      local message = problem(file("ids", text))
      assert.truthy(message:find("ids: is not text", 1, true) and message:find("(--format bin)", 1, true), message)
    end
  end)

  it("may begin with the bytes of gzip or of an archive", function()
    for _, first in ipairs { 0x8b1f, 0x04034b50, 0x184d2204, 0x5d, 0x00616e4f } do
      local text = le(first, 8) .. ids(5, 39, function(i) return i % 2 end):sub(9)
      local list = keys(file("begins.bin", text))
      assert.same({ 5, first }, { #list, list[1] })
    end
  end)
end)

describe("a byte order mark", function()
  local MARK = "\239\187\191"

  it("is passed at the start of each file of every format", function()
    assert.same({ 1, 2 }, keys { file("m1.svm", MARK .. "1 1:1\n"), file("m2.svm", MARK .. "0 2:1\n") })
    assert.same({ 1, 2 }, keys { file("m1.ffm", MARK .. "1 0:1:1\n"), file("m2.ffm", MARK .. "\n0 0:2:1\n") })
    assert.same({ 1 }, keys(file("m.txt", MARK .. "# head, with a comma\n1 1:1\n")))
    run "gzip -c m1.svm > packed.svm"
    assert.same({ 1 }, keys(dir .. "/packed.svm"))
    assert.equal("m.svm:1: expected a label, found \"x\"", problem(file("m.svm", MARK .. "x 1:1\n")))
  end)

  it("is passed where files with one were put together", function()
    assert.same({ 1, 2, 3 }, keys(file("cat.svm", MARK .. MARK .. "1 1:1\n" .. MARK .. "0 2:1\n0 3:1\n")))
    assert.same({ 1, 2 }, keys(file("cat.ffm", MARK .. "1 0:1:1\n" .. MARK .. "0 0:2:1\n")))
    local s = mr.schema { header = false, columns = { "a", "y" }, label = "y", fields = { mr.category "a" } }
    local list = {}
    for batch in s:batches(file("cat.csv", MARK .. "u,1\n" .. MARK .. "u,1\nu,1\n"), {}) do
      for i = 0, batch.n - 1 do list[#list + 1] = tostring(batch.c.keys[i]) end
    end
    assert.same({ list[1], list[1], list[1] }, list)
  end)

  it("is passed in CSV with a header and without, and on standard input", function()
    for _, header in ipairs { true, false } do
      local s = mr.schema { header = header, columns = { "a", "y" }, label = "y", fields = { mr.category "a" } }
      local head = header and "a,y\n" or ""
      local list = {}
      local files = { file("p1.csv", MARK .. head .. "u,1\n"), file("p2.csv", MARK .. head .. "u,1\n"),
        file("p3.csv", head .. "u,1\n") }
      for batch in s:batches(files, { memory = false }) do
        for i = 0, batch.n - 1 do list[#list + 1] = tostring(batch.c.keys[i]) end
      end
      assert.equal(3, #list)
      assert.equal(list[3], list[1])
      assert.equal(list[3], list[2])
    end
    local out = run(("cat m1.svm | %s -e 'for b in require(\"moonrock\").data{}:batches(\"-\") do "
      .. "print(tonumber(b.c.keys[0])) end'"):format(shell.quote(PROGRAM)))
    assert.equal("1\n", out)
  end)
end)

describe("the format of a file", function()
  it("is that of its first sample, not of a comment or a blank line before it", function()
    for _, head in ipairs { "# a, comma\n", "\n\n# a\ttab\n", "  \n#0:0:0\n", ("# " .. ("x,"):rep(5000) .. "\n"):rep(20) } do
      assert.same({ 7 }, keys(file("first.txt", head .. "1 0:7:1 1:8:1\n")))
      assert.same({ 7 }, keys(file("first.txt", head .. "1 7:1 # a,b,c,d\n")))
      assert.same({ 7 }, keys { file("only.txt", head), file("first.txt", head .. "1 0:7:1 1:8:1") })
    end
  end)

  it("is that of the first sample with an entry", function()
    local it = mr.data { files = file("late.txt", "0\n# c,c\n1 1:5:1 2:6:1\n") }:batches(nil, {})
    local batch = it()
    assert.same({ 2, 5 }, { batch.n, tonumber(batch.c.keys[0]) })
    it:close()
  end)
end)

describe("several files", function()
  it("may be empty, but not all of them", function()
    os.execute("mkdir -p " .. dir .. "/parts")
    file("parts/part-0", "1 1:1\n")
    file("parts/part-1", "")
    file("parts/part-2", "0 2:1\n")
    file("parts/part-3", "")
    file("parts/_SUCCESS", "")
    run "printf '' | gzip -c > parts/part-4.gz"
    for _, memory in ipairs { true, false } do
      assert.same({ 1, 2, 1, 2 }, keys(dir .. "/parts", { memory = memory, epochs = 2 }))
    end
    assert.same({ 2 }, keys { dir .. "/parts/part-1", dir .. "/parts/part-2" })
    os.execute("cd " .. dir .. " && rm parts/part-0 parts/part-2")
    assert.equal("parts/part-1 and 2 more files: all of them are empty", problem(dir .. "/parts"))
    assert.equal("parts/part-1: is empty", problem(dir .. "/parts/part-1"))
    local s = mr.schema { label = "y", fields = { mr.category "a" } }
    local n = 0
    for batch in s:batches({ file("e.csv", ""), file("h.csv", "y,a\n"), file("d.csv", "a,y\nu,1\n") }, {}) do
      n = n + batch.n
    end
    assert.equal(1, n)
  end)

  it("of a directory are those below it, too, in order of name", function()
    os.execute(("cd %s && mkdir -p tree/dt=1 tree/dt=10/h=2 tree/dt=2 tree/_temporary tree/.git"):format(dir))
    for i, name in ipairs { "dt=1/b", "dt=1/c", "dt=10/h=2/a", "dt=2/a", "z" } do
      file("tree/" .. name, ("1 %d:1\n"):format(i))
    end
    file("tree/_temporary/x", "junk")
    file("tree/.git/x", "junk")
    assert.same({ 1, 2, 3, 4, 5 }, keys(dir .. "/tree", { format = nil }))
    assert.same({ 1, 2, 3, 4, 5 }, keys(dir .. "/tree/"))
  end)

  it("that are left out are named, unless they are what every such directory has", function()
    os.execute("mkdir -p " .. dir .. "/odd")
    file("odd/a.svm", "1 1:1\n")
    file("odd/_b.svm", "1 2:1\n")
    file("odd/_SUCCESS", "")
    local _, out, errors = shell.run(("cd %s && %s train lr --data odd --store odd.store --json"):format(dir,
      shell.quote(PROGRAM)))
    assert.truthy(out:find('"rows":1', 1, true))
    assert.truthy(errors:find("not read, because of their names (_x, x~, x.bak, x.tmp and the like): odd/_b.svm\n",
      1, true), errors)
    assert.falsy(errors:find "SUCCESS")
  end)

  it("of a directory are not those that editors left there, nor a store", function()
    os.execute(("cd %s && mkdir -p left && rm -rf left/*"):format(dir))
    file("left/a.svm", "1 1:1\n")
    for _, name in ipairs { "a.svm~", "a.svm.bak", "a.svm.tmp", "#a.svm#" } do file("left/" .. name, "1 2:1\n") end
    assert.same({ 1 }, keys(dir .. "/left"))
    assert.same({ 2 }, keys(dir .. "/left/a.svm~", { format = nil }))
    assert.equal(0, (shell.run(("%s train lr --data %s/left/a.svm --store %s/left/store"):format(
      shell.quote(PROGRAM), dir, dir))))
    assert.equal("left/store: is a store, not data; keep it out of the directory that is read",
      problem(dir .. "/left"))
    assert.equal("left/store: is a store, not data", problem(dir .. "/left/store"))
  end)

  it("that are links are followed; one to nothing, or to where it stands, is an error", function()
    os.execute(("cd %s && mkdir -p links/real && ln -sfn real links/also && ln -sfn ../gone links/real/gone")
      :format(dir))
    file("links/real/a", "1 1:1\n")
    assert.equal("links/also/gone: cannot be read: is a link to what is not there", problem(dir .. "/links"))
    os.execute(("cd %s && rm links/real/gone"):format(dir))
    assert.same({ 1, 1 }, keys(dir .. "/links"))
    os.execute(("cd %s && ln -sfn .. links/real/up"):format(dir))
    assert.equal("links/also/up: is a link to a directory that it stands in; take it away", problem(dir .. "/links"))
    assert.equal("gone.svm: cannot be read: No such file or directory", problem(dir .. "/gone.svm"))
  end)
end)

describe("a named pipe", function()
  local function piped(command, writer)
    return shell.run(("cd %s && rm -f f && mkfifo f && { %s > f & } && MR=%s && timeout 60 %s"):format(shell.quote(dir),
      writer or "cat plain.svm", shell.quote(PROGRAM), command))
  end

  it("is opened once, by every command", function()
    for _, case in ipairs {
      { "$MR train lr --data f --store p.train --json", '"rows":4000' },
      { "$MR learn lr --source f --store p.learn --json", '"rows":4000' },
      { "$MR predict --data f --store p.train | wc -l", "4000" },
      { "$MR eval --data f --store p.train --json", '"rows":4000' },
      { "$MR eval --data f --store p.train --json", '"rows":4000', "gzip -c plain.svm" },
      { "$MR train lr --data plain.svm --valid f --store p.valid --json", '"rows":4000' },
      { "bash -c \"$MR train lr --data <(cat plain.svm) --data <(cat plain.svm) --store p.sub --json\"",
        '"rows":8000', "true" },
    } do
      local status, out, errors = piped(case[1], case[3])
      assert.equal(0, status, errors)
      assert.truthy(out:find(case[2], 1, true), case[1] .. out)
    end
  end)

  it("is not read twice: what would is wrong usage", function()
    for _, case in ipairs { { "--epochs 2", "--epochs 2" }, { "--shuffle full", "--shuffle full" },
      { "--valid 0.1", "--valid 0.1" }, { "--folds 2", "--folds 2" }, { "--data f", "" },
      { "--set fit.class_weight=balanced", "--set fit.class_weight=balanced" } } do
      local status, _, errors = piped("$MR train lr --data f --store p.twice " .. case[1], "true")
      assert.equal(2, status, errors)
      assert.truthy(errors:find(case[2], 1, true) and errors:find("f (a pipe) can be read only once", 1, true), errors)
    end
    local status, _, errors = piped("$MR learn lr --source f --follow --store p.twice", "true")
    assert.truthy(status > 0 and errors:find("f: cannot be followed: only a file can", 1, true), errors)
    file("fit.lua", 'local mr = require "moonrock" return mr.schema { label = "y", fields = { mr.numeric "a" } }')
    status, _, errors = piped("$MR train lr --schema ./fit.lua --data f --store p.fit", "true")
    assert.equal(1, status)
    assert.truthy(errors:find('f: can be read only once, and schema "schema" has a field, "a", that is to be fitted',
      1, true), errors)
  end)

  it("that nobody writes to ends with a signal", function()
    local began = os.time()
    local status = shell.run(("cd %s && rm -f f && mkfifo f && timeout -s INT 1 %s learn lr --source f --store p.none")
      :format(shell.quote(dir), shell.quote(PROGRAM)))
    assert.is_true(status ~= 0 and os.time() - began < 30)
  end)
end)

-- Installing what is missing, with stand-ins for Debian's tools: `installed` lists the packages that
-- dpkg-query knows, and apt-get adds to it what it is asked to install, unless `offline` exists.
local shell = require "tests.support.shell"

local dir

local function tool(name, text)
  shell.write(dir .. "/" .. name, "#!/bin/sh\n" .. text .. "\n")
  shell.run("chmod +x " .. dir .. "/" .. name)
end

local function deps() return shell.run(("PATH=%s:/bin:/usr/bin sh .ci/deps"):format(dir)) end

local ALL

describe("make deps", function()
  before_each(function()
    dir = shell.directory()
    local text = shell.read(".ci/deps")
    ALL = (text:match('needed="(.-)"') .. " " .. text:match('optional="(.-)"')):gsub("%s+", "\n")
    tool("dpkg-query", ('for p; do :; done; grep -qx "$p" %s/installed && printf "installed "'):format(dir))
    tool("apt-get", ([[
echo "$*" >> %s/calls
[ "$1" = install ] || exit 0
[ -e %s/offline ] && exit 100
for p; do case $p in -*|install) ;; *) echo "$p" >> %s/installed ;; esac; done]]):format(dir, dir, dir))
    tool("id", "echo ${FAKE_ID:-0}")
    shell.write(dir .. "/installed", ALL .. "\n")
  end)

  local function remove(package)
    shell.run(("sed -i '/^%s$/d' %s/installed"):format(package, dir))
  end

  it("does and says nothing when nothing is missing", function()
    assert.same({ 0, "", "" }, { deps() })
    assert.is_nil(shell.read(dir .. "/calls"))
  end)

  it("installs what is missing, after an update, and says so", function()
    remove("librocksdb-dev")
    local status, _, err = deps()
    assert.same({ 0, "deps: installing librocksdb-dev\n" }, { status, err })
    local calls = shell.read(dir .. "/calls")
    assert.truthy(calls:find("^update\n"), calls)
    assert.truthy(calls:find("install .*librocksdb%-dev\n"), calls)
  end)

  it("names the missing ones in one line, and fails, when they cannot be installed", function()
    remove("librocksdb-dev")
    remove("luajit")
    shell.write(dir .. "/offline", "")
    local status, _, err = deps()
    assert.equal(1, status)
    assert.truthy(err:find("deps: these packages are missing and could not be installed: luajit "
      .. "librocksdb-dev\n", 1, true), err)
  end)

  it("goes on without a tool that is only nice to have", function()
    remove("cppcheck")
    shell.write(dir .. "/offline", "")
    local status, _, err = deps()
    assert.equal(0, status)
    assert.truthy(err:find("going on without cppcheck", 1, true), err)
  end)

  it("uses sudo for another user than root", function()
    remove("luajit")
    tool("sudo", ('echo sudo >> %s/calls; exec "$@"'):format(dir))
    local status = shell.run(("FAKE_ID=1000 PATH=%s:/bin:/usr/bin sh .ci/deps"):format(dir))
    assert.equal(0, status)
    assert.truthy(shell.read(dir .. "/calls"):find("sudo\nupdate\nsudo\n", 1, true))
  end)
end)

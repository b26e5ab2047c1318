-- One binary for every x86-64 processor, and code that builds for another one.
local json = require "dkjson"
local shell = require "tests.support.shell"

local PROGRAM = shell.program

local function has(tool) return shell.run("command -v " .. tool) == 0 end

describe("the program", function()
  local dir = shell.directory()

  local function trained(model, before)
    local store = ("%s/%s"):format(dir, model)
    shell.run("rm -rf " .. store)
    local status, out, errors = shell.run(("%s %s train %s --schema census --epochs 1 --store %s --json"):format(
      before, PROGRAM, model, store))
    assert.equal(0, status, errors)
    local result
    for line in out:gmatch "[^\n]+" do result = json.decode(line) end
    local _, info = shell.run(("%s info --store %s --json"):format(PROGRAM, store))
    return result.test.logloss, json.decode(info).digest
  end

  -- The emulator ends a program at the first instruction that its processor has not. Which kernels OpenBLAS
  -- is told to take on this machine is not for that processor.
  local EMULATED = "qemu-x86_64 -U OPENBLAS_CORETYPE -U OPENBLAS_L2_SIZE -cpu Conroe"

  it("runs on a processor of 2006, without AVX, and learns the same", function()
    if not has "qemu-x86_64" then return pending "qemu-user is not installed" end
    local emulated, digest = trained("lr", EMULATED)
    local masked, same = trained("lr", "env MOONROCK_KERNELS=base")
    assert.equal(masked, emulated)
    assert.equal(same, digest)
    emulated = trained("wide_deep", EMULATED)
    assert.near(trained("wide_deep", "env"), emulated, 2e-3)
  end)

  it("compiles for arm64", function()
    if not has "aarch64-linux-gnu-gcc" then return pending "gcc-aarch64-linux-gnu is not installed" end
    local status, out, errors = shell.run("make arm64")
    assert.equal(0, status, out .. errors)
  end)
end)

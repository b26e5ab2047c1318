--- The C half: the one file that declares it. Returns the namespace of its functions, which is
--- the running program, or libmoonrock.so when another program (luajit) loads the library.
local ffi = require "ffi"

local VERSION = "0.1.0"

ffi.cdef "const char *mr_cdef(void);"

-- The directories of package.path lead to a checkout's build/, or to an installation's lib/.
local function candidates()
  local list = { os.getenv("MOONROCK_LIB") }
  local here = debug.getinfo(1, "S").source:match("^@(.*)ffi%.lua$")
  if here then
    list[#list + 1] = here .. "../../build/libmoonrock.so"
    list[#list + 1] = here .. "../../../../lib/libmoonrock.so"
    list[#list + 1] = here .. "libmoonrock.so"
  end
  list[#list + 1] = "moonrock"
  return list
end

local function namespace()
  if pcall(function() return ffi.C.mr_cdef end) then return ffi.C end
  local problem
  for _, name in ipairs(candidates()) do
    local ok, lib = pcall(ffi.load, name)
    if ok then return lib end
    problem = problem or lib
  end
  error(("moonrock: libmoonrock.so is not found (%s); build it with `make`, or give its path in "
    .. "MOONROCK_LIB"):format(problem), 0)
end

local C = namespace()

-- Declared once in a process, also when a test loads this file again.
if not pcall(ffi.typeof, "mr_batch") then ffi.cdef(ffi.string(C.mr_cdef())) end

local version = ffi.string(C.mr_version())
if version ~= VERSION then
  error(("moonrock: the Lua library is version %s, the C library %s; build both from one source")
    :format(VERSION, version), 0)
end

return C

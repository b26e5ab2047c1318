-- luacheck's settings: LuaJIT, and busted's words in the tests.
std = "luajit"
max_line_length = 110
ignore = { "58." } -- not (x > y) is also true of NaN, x <= y is not
files["tests/**/*_spec.lua"] = { std = "+busted", max_line_length = 130 }
files["tests/mutants/*.lua"] = { max_line_length = false }
exclude_files = { "build" }

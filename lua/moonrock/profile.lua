--- Where the time of training goes (runtime/base/profile.c): `train --profile`, and scripts.
local ffi = require "ffi"
local C = require "moonrock.ffi"

local profile = {}

--- Begins a profile of this thread; mr.fit leaves evaluation out of it.
function profile.start() C.mr_profile_start() end

--- Ends it.
---@return table event { event = "profile", seconds =, parts = { { name =, direction = "forward" |
--- "backward" | nil, seconds =, calls = }, ... } }, the longest part first; each has its own time only
function profile.finish()
  C.mr_profile_pause()
  local part, i, total, list = ffi.new "mr_profile", 0, 0, {}
  while C.mr_profile_part(i, part) == 0 do
    if part.seconds > 0 then
      local direction = ffi.string(part.direction)
      list[#list + 1] = { name = ffi.string(part.name), direction = direction ~= "" and direction or nil,
        seconds = part.seconds, calls = part.calls }
      total = total + part.seconds
    end
    i = i + 1
  end
  table.sort(list, function(a, b) return a.seconds > b.seconds end)
  return { event = "profile", seconds = total, parts = list }
end

return profile

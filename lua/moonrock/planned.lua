--- The batches of a plan (moonrock.position): those of its parts, one after another.
local C = require "moonrock.ffi"
local position = require "moonrock.position"

local planned = {}

---@class PlannedBatches batches of the parts of a plan, one after another
local Planned = {}

-- What is not its own is the open iterator's.
function Planned.__index(self, name)
  if Planned[name] ~= nil then return Planned[name] end
  local current = rawget(self, "current")
  local value = current and current[name]
  if type(value) ~= "function" then return value end
  return function(_, ...) return value(current, ...) end
end

local function close_current(self)
  local current = self.current
  if not current then return end
  local bad, first = current:skipped()
  self.bad = self.bad + bad
  if self.first_bad == "" then self.first_bad = first end
  current:close()
  self.current = false
end

function Planned:__call()
  while self.current do
    local batch = self.current()
    if batch then return batch end
    close_current(self)
    self:ended()
    self:next()
  end
end

-- Opens the next part, if there is one.
function Planned:next()
  self.number = self.number + 1
  local p = self.parts[self.number]
  if not p then return end
  position.begin(self.model, p)
  self.current = self.open(p)
end

-- The open part is over.
function Planned:ended()
  local m, p = self.model, self.parts[self.number]
  if p.set.kind ~= "learn" or C.mr_interrupted() ~= 0 then return end
  position.ended(m, p)
  if not p.follow then return end
  -- a file that is followed ends when there is another one in its place
  for _, more in ipairs((self.plan_again())) do self.parts[#self.parts + 1] = more end
end

function Planned:close() close_current(self) end

--- Bad lines of all parts so far, and the first of them.
function Planned:skipped()
  if not self.current then return self.bad, self.first_bad end
  local bad, first = self.current:skipped()
  return self.bad + bad, self.first_bad ~= "" and self.first_bad or first
end

--- How far it has come in the open part, from 0 to 1.
function Planned:progress() return self.current and self.current:progress() or nil end

--- One iterator over a plan.
---@param m table
---@param parts Part[]
---@param open fun(p: Part): Batches
---@param plan_again? fun(): Part[] after a followed file was replaced
---@return PlannedBatches
function planned.batches(m, parts, open, plan_again)
  local self = setmetatable({ model = m, parts = parts, open = open, plan_again = plan_again, number = 0,
    current = false, bad = 0, first_bad = "" }, Planned)
  self:next()
  return self
end

return planned

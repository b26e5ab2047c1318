-- A command of the program that says what becomes of its commits, on standard output:
--   moonrock acknowledged.lua WORDS       the words of `moonrock train ...`
-- `begun STEP` stands before a commit (`begun kept` before a kept state is restored), `done STEP`
-- once the store has one of that step; with ACKNOWLEDGED=digest, `digest STEP DIGEST` after each.
-- It ends as the program does: with status 1 and the message when the work failed.
local Model = require "moonrock.model"

local DIGEST = os.getenv("ACKNOWLEDGED") == "digest"

local function say(...)
  io.stdout:write(table.concat({ ... }, " "), "\n")
  io.stdout:flush()
end

local known -- the number and step of the last commit that was said

local function last_commit(model)
  local last = model.store and model.store:info().commit
  return last and last.number .. " " .. last.step, last
end

local function tell(model)
  local now, last = last_commit(model)
  if not now or not known or now == known then return end
  known = now
  say("done", ("%d"):format(last.step))
  if DIGEST then say("digest", ("%d"):format(last.step), model.store:digest()) end
end

local commit, behind = Model.commit, Model.commit_behind
local step, restore, close = Model.step, Model.restore, Model.close

function Model:commit(...)
  known = known or last_commit(self)
  if self.store then self.store:wait() end -- as it does; what was under way is done then
  tell(self)
  say("begun", ("%d"):format(self.step_number))
  commit(self, ...)
  tell(self)
end

function Model:commit_behind(...)
  if DIGEST then return self:commit(...) end -- one of every step
  known = known or last_commit(self)
  tell(self) -- of the one before, which is over
  say("begun", ("%d"):format(self.step_number))
  behind(self, ...)
end

function Model:step(...)
  local finite = step(self, ...)
  tell(self)
  return finite
end

function Model:restore(...)
  known = known or last_commit(self)
  say("begun", "kept")
  restore(self, ...)
  tell(self)
end

function Model:close(...)
  tell(self)
  close(self, ...)
end

if require("moonrock.cli").main(arg) ~= 0 then error() end

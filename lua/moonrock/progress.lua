-- Progress of long work, on standard error: a bar on a terminal, a line now and then elsewhere.
local C = require "moonrock.ffi"

local Progress = {}
Progress.__index = Progress

local BAR, BAR_EVERY, LINE_EVERY = 24, 0.1, 10 -- characters, seconds, seconds

local drawn = false -- a bar stands on the terminal's last line

local function clock(seconds)
  seconds = math.floor(seconds + 0.5)
  if seconds >= 3600 then
    return ("%d:%02d:%02d"):format(seconds / 3600, seconds / 60 % 60, seconds % 60)
  end
  return ("%d:%02d"):format(seconds / 60, seconds % 60)
end

--- The progress of some work.
---@param label string
---@return Progress
local function new(label)
  local now = C.mr_clock()
  return setmetatable({ label = label, rows = 0, began = now, drawn_at = now, line_at = now,
    terminal = C.mr_terminal(2) == 1 }, Progress)
end

-- Everything there is to say: rows, rate, loss, and how far when that is known.
function Progress:text(now, loss, fraction)
  local seconds = math.max(now - self.began, 1e-9)
  local parts = { ("%s  %d rows  %.0f rows/s"):format(self.label, self.rows, self.rows / seconds) }
  if loss then parts[#parts + 1] = ("loss %.4f"):format(loss) end
  if fraction and fraction > 0 and fraction <= 1 then
    parts[#parts + 1] = ("%3.0f%%"):format(fraction * 100)
    parts[#parts + 1] = clock(seconds * (1 - fraction) / fraction) .. " left"
  end
  return table.concat(parts, "  ")
end

--- Counts rows that were worked on, and draws when it is time.
---@param rows integer
---@param loss number|nil
---@param fraction number|nil how much of the work is done, 0 to 1
function Progress:add(rows, loss, fraction)
  self.rows = self.rows + rows
  local now = C.mr_clock()
  if loss then -- smoothed over some fifty batches
    self.loss = self.loss and self.loss + 0.02 * (loss - self.loss) or loss
  end
  if self.terminal then
    if now - self.drawn_at < BAR_EVERY then return end
    self.drawn_at = now
    local bar = ""
    if fraction and fraction >= 0 and fraction <= 1 then
      local full = math.floor(fraction * BAR + 0.5)
      bar = "[" .. ("="):rep(full) .. (" "):rep(BAR - full) .. "] "
    end
    io.stderr:write("\r\27[K", bar, self:text(now, self.loss, fraction))
    io.stderr:flush()
    drawn = true
  elseif now - self.line_at >= LINE_EVERY then
    self.line_at = now
    io.stderr:write(self:text(now, self.loss, fraction), "\n")
  end
end

--- Wipes the bar, so that something else can be written.
local function clear()
  if drawn then
    io.stderr:write("\r\27[K")
    io.stderr:flush()
    drawn = false
  end
end

return { new = new, clear = clear }

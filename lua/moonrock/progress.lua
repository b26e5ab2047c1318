--- Progress of long work, on standard error: on a terminal one line, drawn over and over and no wider
-- than the terminal is at that moment; elsewhere a line now and then.
--
-- The cursor waits at the line's start and what is below is erased when it is drawn again: however a
-- terminal that became narrower has wrapped the line, nothing of it stays.
local C = require "moonrock.ffi"

local Progress = {}
Progress.__index = Progress

local DRAW_EVERY, LINE_EVERY = 0.1, 10 -- seconds
local RATE_OVER = 1 -- seconds, at least, that a rate is of
local BAR_LEAST, BAR_MOST = 8, 24 -- columns

-- ---- the line ----------------------------------------------------------------------------------

local stands = false -- on the terminal
local writers = {} -- what is replaced meanwhile, so that whoever writes wipes it first

--- Wipes the line, so that something else can be written.
local function clear()
  if not stands then return end
  stands = false
  getmetatable(io.stderr).__index.write = writers.method
  rawset(io, "write", writers.io)
  rawset(_G, "print", writers.print)
  io.stderr:write "\r\27[J"
  C.mr_terminal_line(0)
end

local function wiping(write)
  return function(...)
    clear()
    return write(...)
  end
end

local function stand()
  if stands then return end
  stands = true
  io.stdout:flush()
  C.mr_terminal_line(1)
  local methods = getmetatable(io.stderr).__index
  writers.method, writers.io, writers.print = methods.write, io.write, print
  function methods.write(file, ...)
    if file == io.stderr or file == io.stdout then clear() end
    return writers.method(file, ...)
  end
  rawset(io, "write", wiping(io.write))
  rawset(_G, "print", wiping(print))
end

local function columns()
  return os.getenv "TERM" ~= "dumb" and C.mr_terminal_columns(2) or 0
end

-- ---- what it says ------------------------------------------------------------------------------

local function clock(seconds)
  seconds = math.floor(seconds + 0.5)
  if seconds >= 3600 then
    return ("%d:%02d:%02d"):format(seconds / 3600, seconds / 60 % 60, seconds % 60)
  end
  return ("%d:%02d"):format(seconds / 60, seconds % 60)
end

-- 950, 9.5k, 812k, 1.2M
local function short(n)
  local unit = ""
  for _, next_unit in ipairs { "k", "M", "G" } do
    if n < 999.5 then break end
    n, unit = n / 1000, next_unit
  end
  return (unit ~= "" and n < 9.95 and "%.1f%s" or "%.0f%s"):format(n, unit)
end

-- The parts in the order in which they stand, each with its rank: where room is short, the first stay.
local function parts(self, now)
  local list = { { self.label, 6 } }
  local fraction, epochs = self.fraction, self.epochs
  local function add(rank, format, ...) list[#list + 1] = { format:format(...), rank } end
  if epochs and epochs > 1 and self.epoch then add(3, "epoch %d/%d", self.epoch, epochs) end
  if fraction then
    add(1, epochs and epochs > 1 and "%.0f %% of all" or "%.0f %%", math.floor(fraction * 100))
  else
    add(1, "%s rows", require("moonrock.cli.output").grouped(self.rows))
  end
  local mark = self.marks[1]
  if now - mark.at >= DRAW_EVERY then
    add(5, "%s rows/s", short((self.rows - mark.rows) / (now - mark.at)))
  end
  if self.loss then add(4, "%s %.4f", self.loss_name, self.loss) end
  local done = fraction and fraction - self.first_fraction or 0
  if done > 0 then
    add(2, "%s%s left", self.at_most and "at most " or "", clock((now - self.began) * (1 - fraction) / done))
  end
  return list
end

-- As many of the parts as there is room for.
local function join(list, room)
  local chosen, used = {}, -2
  for rank = 1, 6 do
    for i, part in ipairs(list) do
      if part[2] == rank and used + 2 + #part[1] <= room then
        chosen[i], used = true, used + 2 + #part[1]
      end
    end
  end
  local words = {}
  for i, part in ipairs(list) do
    if chosen[i] then words[#words + 1] = part[1] end
  end
  return table.concat(words, "  ")
end

-- The line for so many columns, the last of which stays empty.
local function text(self, now, width)
  local line = join(parts(self, now), width - 1)
  local bar = math.min(BAR_MOST, width - 1 - #line - 4)
  if self.fraction and bar >= BAR_LEAST then
    local full = math.floor(self.fraction * bar)
    line = ("[%s%s]  %s"):format(("="):rep(full), (" "):rep(bar - full), line)
  end
  return line
end

-- ---- the work ----------------------------------------------------------------------------------

--- The progress of some work. What it says of how far it is, and of the time left, is of all epochs.
---@param label string
---@param options? { epochs?: integer, loss?: string, at_most?: boolean } epochs of the whole run; the
--- loss's name; at_most: it may end before its last epoch
---@return Progress
local function new(label, options)
  local o = options or {}
  return setmetatable({ label = label, epochs = o.epochs, loss_name = o.loss or "loss",
    at_most = o.at_most, rows = 0, line_at = C.mr_clock(), drawn_at = 0 }, Progress)
end

-- Where the rate is measured from: a mark that is at least RATE_OVER old, where there is one.
local function mark(self, now)
  local marks = self.marks
  if now - marks[2].at < RATE_OVER then return end
  marks[1], marks[2] = marks[2], marks[1]
  marks[2].at, marks[2].rows = now, self.rows
end

--- Counts rows that are done, and draws when it is time.
---@param rows integer
---@param loss number|nil of these rows
---@param fraction number|nil how much of all the work is done, 0 to 1
---@param epoch integer|nil the one under way
function Progress:add(rows, loss, fraction, epoch)
  local now = C.mr_clock()
  self.rows = self.rows + rows
  if loss and loss == loss then -- smoothed over some fifty batches
    self.loss = self.loss and self.loss + 0.02 * (loss - self.loss) or loss
  end
  if fraction then self.fraction = math.max(fraction, self.fraction or 0) end
  self.epoch = epoch
  if not self.began then
    self.began, self.first_fraction = now, self.fraction or 0
    self.marks = { { at = now, rows = self.rows }, { at = now, rows = self.rows } }
  end
  if now - self.drawn_at < DRAW_EVERY then return end
  self.drawn_at = now
  mark(self, now)
  local width = columns()
  if width > 0 then
    local line = text(self, now, width)
    stand()
    writers.method(io.stderr, "\r", line, "\27[J\r")
  elseif now - self.line_at >= LINE_EVERY then
    self.line_at = now
    io.stderr:write(join(parts(self, now), math.huge), "\n")
  end
end

--- Counts the batches of an iterator as they are asked for: with the next one, the last is done.
---@param batches Batches
---@return Batches
function Progress:watch(batches)
  local last
  local ahead = batches.on_next
  function batches.on_next(it, batch)
    if ahead then ahead(it, batch) end
    if last then self:add(last, nil, it.before, batch.epoch) end
    last, it.before = batch.n, it:progress()
  end
  return batches
end

--- Gives options of mr.fit the callbacks that show its progress.
---@param fit table
---@param label string|fun(): string
local function of_fit(fit, label)
  local progress
  function fit.on_data(batches, part, loss)
    local name = type(label) == "function" and label() or label
    if part == "train" then
      progress = new(name, { epochs = batches.epochs, loss = loss, at_most = fit.patience ~= nil })
    else
      new(name == "train" and part or name .. " " .. part):watch(batches)
    end
  end
  function fit.on_batch(batch, loss, batches)
    progress:add(batch.n, loss, batches:progress(), batch.epoch)
  end
end

--- Says what is under way where nothing is known of how far it is; on a terminal alone.
---@param what string such as "reading the store"
local function say(what)
  local width = columns()
  if width == 0 then return end
  stand()
  writers.method(io.stderr, "\r", what:sub(1, width - 1), "\27[J\r")
end

return { new = new, of_fit = of_fit, clear = clear, say = say }

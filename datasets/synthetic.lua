-- Criteo-like data of any size, with a known truth.
--
--   ./moonrock datasets/synthetic.lua --seed 42 --train 1000000 --test 100000 --out DIR
--
-- writes DIR/train.bin and DIR/test.bin (or .svm, .ffm; see --format) and prints the AUC of the
-- true probabilities, which no model can beat but by luck.
--
-- A sample has 39 fields with one id each. Fields 0 to 12 are counts in 50 buckets, their values
-- Zipf-distributed with exponent 0.5; fields 13 to 38 are categories, with vocabularies that grow
-- geometrically from 10 to a million and exponent 1.1. Ids count through all fields from 1, so
-- that those of different fields differ; within a field, frequent and rare ones are mixed.
--
-- The label is 1 with probability sigmoid(b + s l + t p): l a sum of hidden weights of the ids,
-- p a hidden factorization machine of rank 2, both centred and scaled to deviations 1.25 and 1,
-- b such that a quarter of the labels is 1. Values of large vocabularies have small weights, and
-- some fields next to none in p, as in life.
--
-- Every random number is a hash of what it is for: a sample is a function of (seed, part, row),
-- so that any range of rows can be made alone, in any order. Values are drawn from alias tables
-- (Walker's method): 8 bytes a value, one hash and at most two memory accesses a draw.

local bit = require "bit"
local ffi = require "ffi"
local C = require "moonrock.ffi"

local band, bxor, rshift = bit.band, bit.bxor, bit.rshift
local floor, exp, log, sqrt, cos, sin = math.floor, math.exp, math.log, math.sqrt, math.cos, math.sin

local COUNTS, CATEGORIES, FIELDS = 13, 26, 39
local BUCKETS, SMALLEST, LARGEST = 50, 10, 1e6
local COUNT_EXPONENT, CATEGORY_EXPONENT = 0.5, 1.1
local LINEAR_SPREAD, PAIR_SPREAD, POSITIVE = 1.25, 1, 0.25
local PROBE = 20000 -- samples that the scales and the intercept are fitted on
local BLOCK = 128   -- rows that are written at once

local GOLDEN = 0x9e3779b97f4a7c15ULL
local LOW = 0xffffffffULL
local PART = { train = 1, test = 2, valid = 3, probe = 4 }

-- splitmix64's output function.
local function mix(x)
  x = bxor(x, rshift(x, 30)) * 0xbf58476d1ce4e5b9ULL
  x = bxor(x, rshift(x, 27)) * 0x94d049bb133111ebULL
  return bxor(x, rshift(x, 31))
end

-- The halves of a hash as numbers in [0, 2^32).
local function high(h) return tonumber(ffi.cast("int64_t", rshift(h, 32))) end
local function low(h) return tonumber(ffi.cast("int64_t", band(h, LOW))) end

local function sigmoid(z) return 1 / (1 + exp(-z)) end

-- Two independent normal numbers from one hash (Box and Muller).
local function normals(h)
  local r = sqrt(-2 * log((high(h) + 0.5) / 2 ^ 32))
  local angle = 2 * math.pi * low(h) / 2 ^ 32
  return r * cos(angle), r * sin(angle)
end

-- Fills share[0..n) with n times the probabilities of the values of a field: Zipf over the ranks,
-- and the ranks shuffled over the values.
local function zipf(share, rank, n, exponent, stream)
  local total = 0
  for i = 0, n - 1 do
    rank[i] = i
    total = total + (i + 1) ^ -exponent
  end
  for i = n - 1, 1, -1 do
    local j = floor(high(mix(stream + i * GOLDEN)) * (i + 1) / 2 ^ 32)
    rank[i], rank[j] = rank[j], rank[i]
  end
  for i = 0, n - 1 do share[i] = (rank[i] + 1) ^ -exponent * n / total end
end

-- Walker's alias table: slot i is drawn with chance 1/n; it means i below its cut, else `other`.
-- share is used up; todo holds the small shares from the left and the large ones from the right.
local function alias(slot, at, share, todo, n)
  local small, large = 0, n
  for i = 0, n - 1 do
    if share[i] < 1 then
      todo[small] = i
      small = small + 1
    else
      large = large - 1
      todo[large] = i
    end
  end
  while small > 0 and large < n do
    small = small - 1
    local s, l = todo[small], todo[large]
    slot[at + s].cut = share[s] * 2 ^ 32
    slot[at + s].other = l
    share[l] = share[l] - (1 - share[s])
    if share[l] < 1 then
      large = large + 1
      todo[small] = l
      small = small + 1
    end
  end
  -- What is left is 1 but for rounding.
  for i = 0, small - 1 do
    slot[at + todo[i]].cut, slot[at + todo[i]].other = 2 ^ 32 - 1, todo[i]
  end
  for i = large, n - 1 do
    slot[at + todo[i]].cut, slot[at + todo[i]].other = 2 ^ 32 - 1, todo[i]
  end
end

local Slot = ffi.typeof "struct { uint32_t cut; int32_t other; }[?]"
local Truth = ffi.typeof "struct { float linear, a, b; }[?]"
local Doubles = ffi.typeof "double[?]"
local Floats = ffi.typeof "float[?]"
local Ints = ffi.typeof "int32_t[?]"
local Longs = ffi.typeof "int64_t[?]"
local Bytes = ffi.typeof "uint8_t[?]"

---@class Synthetic
---@field fields integer number of fields, 39
---@field values integer number of ids of all fields together; ids are 1 to this
---@field vocabulary number[] number of values of each field, from index 1
local Synthetic = {}
Synthetic.__index = Synthetic

-- Draws rows from..from+n-1 of a part: their ids into ids, `width` numbers a row, and the two
-- parts of the truth, unscaled, into linear and pair.
local function draw(self, part, from, n, ids, width, linear, pair)
  local slot, truth, base, vocabulary = self.slot, self.truth, self.base, self.vocabularies
  local stream = mix(self.seed + part * GOLDEN)
  for r = 0, n - 1 do
    local row = mix(stream + (from + r) * GOLDEN)
    local l, a, b, squares = 0, 0, 0, 0
    for f = 0, FIELDS - 1 do
      local h = mix(row + f * GOLDEN)
      local first = base[f]
      local i = floor(high(h) * vocabulary[f] * 2 ^ -32)
      local s = slot[first + i]
      if low(h) >= s.cut then i = s.other end
      local t = truth[first + i]
      l = l + t.linear
      a = a + t.a
      b = b + t.b
      squares = squares + t.a * t.a + t.b * t.b
      ids[r * width + f] = first + i + 1
    end
    linear[r] = l
    pair[r] = (a * a + b * b - squares) / 2
  end
end

-- Mean and deviation of x[0..n).
local function moments(x, n)
  local mean, square = 0, 0
  for i = 0, n - 1 do mean = mean + x[i] / n end
  for i = 0, n - 1 do square = square + (x[i] - mean) ^ 2 / n end
  return mean, sqrt(square)
end

-- Finds the scales and the intercept on rows of a part of their own.
local function fit(self)
  local ids = Longs(PROBE * FIELDS)
  local l, p = Doubles(PROBE), Doubles(PROBE)
  draw(self, PART.probe, 0, PROBE, ids, FIELDS, l, p)
  local lmean, lspread = moments(l, PROBE)
  local pmean, pspread = moments(p, PROBE)
  local scale, pair = LINEAR_SPREAD / lspread, PAIR_SPREAD / pspread
  local lo, hi = -20, 20
  for _ = 1, 50 do
    local b, mean = (lo + hi) / 2, 0
    for i = 0, PROBE - 1 do
      mean = mean + sigmoid(b + scale * (l[i] - lmean) + pair * (p[i] - pmean)) / PROBE
    end
    if mean > POSITIVE then hi = b else lo = b end
  end
  self.linear_scale, self.pair_scale = scale, pair
  self.intercept = lo - scale * lmean - pair * pmean
end

--- The data of a seed. It takes a second, and 60 MB.
---@param seed integer
---@return Synthetic
local function new(seed)
  local self = setmetatable({ fields = FIELDS, vocabulary = {} }, Synthetic)
  self.seed = mix(ffi.cast("uint64_t", seed) * GOLDEN)
  self.base, self.vocabularies = Ints(FIELDS), Doubles(FIELDS)
  local total, most = 0, 0
  for f = 0, FIELDS - 1 do
    local n = BUCKETS
    if f >= COUNTS then
      n = floor(SMALLEST * (LARGEST / SMALLEST) ^ ((f - COUNTS) / (CATEGORIES - 1)) + 0.5)
    end
    self.vocabulary[f + 1] = n
    self.vocabularies[f], self.base[f] = n, total
    total, most = total + n, math.max(most, n)
  end
  self.values = total
  self.slot, self.truth = Slot(total), Truth(total)
  local share, work = Doubles(most), Ints(most)
  local weights = mix(self.seed + 5 * GOLDEN)
  for f = 0, FIELDS - 1 do
    local n, at = self.vocabulary[f + 1], self.base[f]
    local stream = mix(self.seed + (100 + f) * GOLDEN)
    zipf(share, work, n, f < COUNTS and COUNT_EXPONENT or CATEGORY_EXPONENT, stream)
    alias(self.slot, at, share, work, n)
    local spread = n > 2000 and 0.3 or 1
    local pairs_up = f < COUNTS and f % 2 == 0 or f >= COUNTS and n < 300
    local factor = pairs_up and 1 or 0.1
    for i = at, at + n - 1 do
      local t, a, b = self.truth[i], normals(mix(weights + 2 * i * GOLDEN))
      t.a, t.b = factor * a, factor * b
      t.linear = spread * normals(mix(weights + (2 * i + 1) * GOLDEN))
    end
  end
  fit(self)
  self.l, self.p = Doubles(BLOCK), Doubles(BLOCK)
  return self
end

--- Makes rows `from` to `from + n - 1` (n at most 128) of a part: 39 ids and the label a row.
---@param part "train"|"test"|"valid"
---@param from integer from 0
---@param n integer
---@param out ffi.cdata* int64_t [n, 40]
---@param logit ffi.cdata* float [n]: the true logits
---@param label ffi.cdata* float [n]: the labels again
function Synthetic:rows(part, from, n, out, logit, label)
  local number = PART[part] or error(("no part %q"):format(tostring(part)), 2)
  if n > BLOCK then error(("%d rows at once, at most %d"):format(n, BLOCK), 2) end
  draw(self, number, from, n, out, FIELDS + 1, self.l, self.p)
  local coins = mix(self.seed + (number + 50) * GOLDEN)
  for r = 0, n - 1 do
    local z = self.intercept + self.linear_scale * self.l[r] + self.pair_scale * self.p[r]
    local y = high(mix(coins + (from + r) * GOLDEN)) < sigmoid(z) * 2 ^ 32 and 1 or 0
    logit[r], label[r], out[r * (FIELDS + 1) + FIELDS] = z, y, y
  end
end

local DIGITS -- the four digits of 0 to 9999, as bytes

-- Writes a number below 10^8 at p[at], returns where it ends.
local function digits(p, at, x)
  local top = floor(x / 10000)
  local rest, leading = x - top * 10000, true
  local d = (top > 0 and top or rest) * 4
  for i = 0, 3 do
    local c = DIGITS[d + i]
    if not leading or c ~= 48 or i == 3 then
      p[at], at, leading = c, at + 1, false
    end
  end
  if top > 0 then
    for i = rest * 4, rest * 4 + 3 do
      p[at], at = DIGITS[i], at + 1
    end
  end
  return at
end

-- Formats n rows as libsvm, or libffm with `field`; returns the number of bytes.
local function text(p, ids, n, field)
  local at = 0
  for r = 0, n - 1 do
    local row = r * (FIELDS + 1)
    p[at], at = 48 + tonumber(ids[row + FIELDS]), at + 1
    for f = 0, FIELDS - 1 do
      p[at], at = 32, at + 1
      if field then
        at = digits(p, at, f)
        p[at], at = 58, at + 1
      end
      at = digits(p, at, tonumber(ids[row + f]))
      p[at], p[at + 1], at = 58, 49, at + 2
    end
    p[at], at = 10, at + 1
  end
  return at
end

local EXTENSION = { bin = "bin", libsvm = "svm", libffm = "ffm" }

--- Writes a part to a file.
---@param part "train"|"test"|"valid"
---@param rows integer
---@param path string
---@param format "bin"|"libsvm"|"libffm"
---@param metrics? ffi.cdata* an mr_metrics that the true logits are added to
---@return boolean|nil, string? nil and a message when the file cannot be written
function Synthetic:write(part, rows, path, format, metrics)
  if not EXTENSION[format] then error(("no format %q"):format(tostring(format)), 2) end
  local file, err = io.open(path, "wb")
  if not file then return nil, err end
  local width = FIELDS + 1
  local ids, logit, label = Longs(BLOCK * width), Floats(BLOCK), Floats(BLOCK)
  local bytes = format ~= "bin" and Bytes(BLOCK * (2 + FIELDS * 14))
  if bytes and not DIGITS then
    DIGITS = Bytes(40000)
    for i = 0, 9999 do ffi.copy(DIGITS + i * 4, ("%04d"):format(i), 4) end
  end
  for from = 0, rows - 1, BLOCK do
    local n = math.min(BLOCK, rows - from)
    self:rows(part, from, n, ids, logit, label)
    if metrics and C.mr_metrics_add(metrics, logit, label, nil, n) < 0 then
      error(ffi.string(C.mr_error()))
    end
    local piece
    if bytes then
      piece = ffi.string(bytes, text(bytes, ids, n, format == "libffm"))
    else
      piece = ffi.string(ids, n * width * 8)
    end
    local done, why = file:write(piece)
    if not done then
      file:close()
      return nil, ("%s: %s"):format(path, why)
    end
  end
  local done, why = file:close()
  if not done then return nil, ("%s: %s"):format(path, why) end
  return true
end

local function main(...)
  local parser = require "argparse"("synthetic", "Writes Criteo-like data with a known truth.")
  parser:option("--seed", "Every number of the data follows from it.", "42"):convert(tonumber)
  parser:option("--train", "Rows of the training part.", "1000000"):convert(tonumber)
  parser:option("--test", "Rows of the test part.", "100000"):convert(tonumber)
  parser:option("--out", "Directory to write to; it must exist."):count(1)
  parser:option("--format", "Of the files.", "bin"):choices { "bin", "libsvm", "libffm" }
  local opt = parser:parse { ... }

  local began = C.mr_clock()
  local data = new(opt.seed)
  local metrics = ffi.gc(C.mr_metrics_new(0, 65536), C.mr_metrics_free)
  local score = ffi.new "mr_score"
  for _, part in ipairs { "train", "test" } do
    local path = ("%s/%s.%s"):format(opt.out, part, EXTENSION[opt.format])
    C.mr_metrics_reset(metrics)
    local done, err = data:write(part, opt[part], path, opt.format, metrics)
    if not done then
      io.stderr:write(err, "\n")
      os.exit(1)
    end
    C.mr_metrics_read(metrics, score)
    print(("%s: %d rows, %.4f positive, true probabilities: auc %.4f logloss %.4f"):format(
      path, opt[part], score.label, score.auc, score.logloss))
  end
  io.stderr:write(("%d rows in %.1f s\n"):format(opt.train + opt.test, C.mr_clock() - began))
end

if arg and arg[0] and arg[0]:find "synthetic%.lua$" and ... ~= "datasets.synthetic" then
  main(...)
end

return { new = new, fields = FIELDS }

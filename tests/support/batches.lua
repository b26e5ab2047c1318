--- Batches made by hand, for specs of the tape. Each function returns a batch as readers make
-- them, { c = mr_batch, n =, label =, weight = }, and its number of distinct keys.
local ffi = require "ffi"

local batches = {}

local anchors = setmetatable({}, { __mode = "k" })

-- samples: a list of lists of { key, value, field }.
local function build(samples, options)
  local entries = 0
  for _, sample in ipairs(samples) do entries = entries + #sample end
  local n = #samples
  local kept = {
    keys = ffi.new("uint64_t[?]", entries + 1), values = ffi.new("float[?]", entries + 1),
    field = ffi.new("uint16_t[?]", entries + 1), offsets = ffi.new("uint32_t[?]", n + 1),
    label = ffi.new("float[?]", n), c = ffi.new "mr_batch",
  }
  local e, seen, unique = 0, {}, 0
  for s, sample in ipairs(samples) do
    kept.offsets[s - 1] = e
    kept.label[s - 1] = s % 3 == 0 and 1 or 0
    for _, entry in ipairs(sample) do
      kept.keys[e], kept.values[e], kept.field[e] = entry[1], entry[2] or 1, entry[3] or 0
      if not seen[entry[1]] then
        seen[entry[1]] = true
        unique = unique + 1
      end
      e = e + 1
    end
  end
  kept.offsets[n] = e
  local c = kept.c
  c.n, c.entries, c.fields, c.keys, c.offsets, c.label = n, entries, options.fields or 0, kept.keys,
    kept.offsets, kept.label
  if options.values then c.values = kept.values end
  if options.field then c.field = kept.field end
  local batch = { c = c, n = n }
  batch.label = { batch = batch, name = "label" }
  batch.weight = { batch = batch, name = "weight" }
  anchors[batch] = kept
  return batch, unique
end

--- Plain sets of keys; one sample is empty, one holds a key twice.
function batches.sets()
  return build({ { { 7 }, { 3 }, { 9 } }, {}, { { 3 }, { 3 }, { 5 } }, { { 7 } } }, {})
end

--- The same number of entries a sample, the j-th of field j.
function batches.fielded()
  return build({ { { 1 }, { 11 }, { 21 } }, { { 2 }, { 11 }, { 22 } }, { { 1 }, { 12 }, { 21 } } },
    { fields = 3 })
end

--- Values, and fields with none, one or several entries.
function batches.valued()
  return build({ { { 1, 0.5, 0 }, { 11, -2, 1 }, { 12, 1.5, 1 } }, { { 2, 1, 2 } },
    { { 1, 2, 0 }, { 11, 0.25, 1 }, { 2, 3, 2 } } }, { fields = 3, values = true, field = true })
end

--- Values, and fields with up to three entries, a key twice in one of them.
function batches.crowded()
  return build({ { { 1, 0.5, 1 }, { 2, -2, 0 }, { 3, 1.5, 1 }, { 4, 0.75, 3 }, { 5, -1, 1 } }, {},
    { { 2, 1, 0 }, { 2, 0.5, 0 }, { 5, 0, 1 }, { 6, 3, 3 } }, { { 4, 2, 3 } },
    { { 1, 1, 1 }, { 3, 1, 0 }, { 6, -0.25, 3 }, { 4, 1, 3 } } },
    { fields = 4, values = true, field = true })
end

--- 700 samples of 5 fields, with keys that are frequent and rare.
function batches.large()
  local samples, state = {}, 12345
  for s = 1, 700 do
    samples[s] = {}
    for j = 1, 5 do
      state = (state * 16807) % 2147483647
      samples[s][j] = { j * 1000 + math.floor((state / 2147483647) ^ 3 * 900) }
    end
  end
  return build(samples, { fields = 5 })
end

batches.build = build

return batches

--- Scales of values (runtime/tensor/normalize.c): what a model divides the values of its data by, and what is
-- said where they were too large to learn from.
local ffi = require "ffi"
local C = require "moonrock.ffi"
local err = require "moonrock.error"

local normalize = {}

local WAYS = { sample = C.MR_NORMALIZE_SAMPLE, key = C.MR_NORMALIZE_KEY }

normalize.ways = { "sample", "key" }

--- Raises unless it is a way to normalize, or nil.
---@param subject string
---@param how any
function normalize.check(subject, how)
  if how ~= nil and not WAYS[how] then
    err.raise("%s: normalize is %s, expected sample or key", subject, err.show(how))
  end
end

---@class Scales
---@field how "sample"|"key"
local Scales = {}
Scales.__index = Scales

--- The scales of a model's values: x / |x| of the whole sample, or x / the largest |x| of its key so far.
---@param how "sample"|"key"
---@return Scales
function normalize.new(how)
  return setmetatable({ how = how, c = ffi.gc(err.check(C.mr_scales_new(WAYS[how])), C.mr_scales_free),
    pointer = ffi.typeof "mr_batch *" }, Scales)
end

--- Normalizes a batch for the operations of a tape.
---@param t Tape
---@param batch Batch
function Scales:apply(t, batch)
  if C.mr_scales_apply(self.c, t.c, ffi.cast(self.pointer, batch.c)) < 0 then err.check(-1) end
end

--- The scale of a key, 0 for none.
---@param key integer|ffi.cdata*
---@return number
function Scales:of(key) return C.mr_scales_of(self.c, key) end

--- Puts them into the commit being prepared, if they are others than those of the last, or that failed.
---@param store Store
---@param failed boolean
function Scales:save(store, failed)
  if self.how ~= "key" or C.mr_scales_changed(self.c) == 0 and not failed then return end
  store:put("normalize", err.check(C.mr_scales_bytes(self.c)), tonumber(C.mr_scales_len(self.c)))
end

--- Takes those of the store.
---@param store Store
function Scales:load(store)
  local bytes = store:get "normalize" or ""
  err.check(C.mr_scales_load(self.c, bytes, #bytes))
end

-- ---- what is said of data that was not normalized -----------------------------------------------

-- Above this a value is large beside the 1 of a category.
local LARGE = 10

-- Beyond this multiple of the loss of a score of 0, which every model can give, training went wrong.
local FAR = 1.2

---@class ScaleWatch
local Watch = {}
Watch.__index = Watch

--- Looks at the batches that a model trains on, to say once per run when its loss is far above that of a
--- constant, and of which values that may come; and when all labels are of one class.
---@param model table
---@return ScaleWatch
function normalize.watch(model)
  return setmetatable({ model = model, summary = ffi.new "mr_summary" }, Watch)
end

---@param batch Batch
function Watch:add(batch) C.mr_summary_add(self.summary, batch.c) end

-- The mean loss of the best constant, and of a score of 0: of logits the entropy of the mean label and ln 2;
-- of values their variance and mean square.
local function constants(loss, s)
  local p = s.mean
  if loss == "logloss" then
    local entropy = p > 0 and p < 1 and -p * math.log(p) - (1 - p) * math.log(1 - p) or 0
    return entropy, math.log(2)
  elseif loss == "mse" then
    local variance = s.squares / s.weight
    return variance, variance + p * p
  end
end

local function cause(model, s)
  if not (s.largest > LARGE) or model.normalize then return "a smaller learning rate may help (--lr)" end
  local schema = model.schema
  if schema and schema.c and s.field >= 0 then
    return ("field %q has values up to %.2g; give it a scale"):format(
      ffi.string(C.mr_schema_field_name(schema.c, s.field)), s.largest)
  end
  return ("key %s has values up to %.2g; scale them (--normalize key)"):format(
    tostring(s.key):gsub("ULL$", ""), s.largest)
end

--- Of the mean loss of all batches so far: gives notice if that is far too large, and begins anew.
---@param loss string what it is called: "logloss", "mse"; others are not looked at
---@param value number
---@return string|nil what was said
function Watch:notice(loss, value)
  local s = self.summary
  local best, zero = constants(loss, s)
  local text
  if best and s.weight > 0 and not self.told then
    local scale = s.weight / s.rows -- the mean is over samples, each loss times its weight
    if value > FAR * zero * scale then
      text = ("train %s %.4f is far above %.4f, that of a constant: %s"):format(loss, value, best * scale,
        cause(self.model, s))
      self.told = true
      self.model.notice(text)
    end
  end
  local classes = self.model.objective.link == C.MR_LOGIT and s.weight > 0
  if classes and (s.mean == 0 or s.mean == 1) and not self.model.streaming and not self.told_class then
    local said = ("all %.0f labels that were trained on are %d: there is nothing to tell apart, and no AUC")
      :format(s.rows, s.mean)
    text = text and text .. "; " .. said or said
    self.told_class = true
    self.model.notice(said)
  end
  ffi.fill(s, ffi.sizeof(s))
  return text
end

--- Gives notice of batches of one sample where a norm would learn from them.
---@param model table
---@param size integer
function normalize.of_one(model, size)
  if size == 1 and model.norm_of_batches then
    model.notice(("%s: batches of one sample have no variance, so its running statistics stay as they are; "
      .. "--batch 2 or more lets it learn them"):format(model.norm_of_batches))
  end
end

return normalize

--- Readers: batches of samples from files, read ahead by a thread of C (runtime/data/reader.c).
local ffi = require "ffi"
local C = require "moonrock.ffi"
local err = require "moonrock.error"
local handle = require "moonrock.handle"
local normalize = require "moonrock.normalize"

local reader = {}

local WINDOW = 65536 -- samples that a shuffle mixes by default

local TASKS = { binary = C.MR_BINARY, regression = C.MR_REGRESSION }
local BAD_LINES = { error = C.MR_BAD_ERROR, skip = C.MR_BAD_SKIP, keep = C.MR_BAD_KEEP }

--- What becomes of bad lines, as C has it.
---@param name string|nil
function reader.bad_lines(name)
  return BAD_LINES[name or "error"]
    or err.raise("bad_lines is %q, expected error, skip or keep", tostring(name))
end

--- A list of strings as C has it; the second value keeps it alive.
---@param list string|string[]
function reader.strings(list)
  if type(list) == "string" then list = { list } end
  local copy = {}
  for i, text in ipairs(list) do
    if type(text) ~= "string" then err.raise("expected a list of strings, got a %s in it", type(text)) end
    copy[i] = text
  end
  return ffi.new("const char *[?]", #copy + 1, copy), #copy, copy
end

---@class Batch
---@field n integer samples
---@field label table the labels, for losses and metrics; batch.weight likewise
local Batch = {}
Batch.__index = Batch
reader.Batch = Batch

--- What stands for the key of each sample in a field: of its first entry there, 0 where it has none.
--- Losses and metrics take it for groups and ids; as a tensor, [n], it holds equal numbers for equal
--- keys of the batch.
---@param field string|integer the name of a schema's field, or its number from 1; "qid": the group that
--- svmlight data gives to its samples (1 qid:7 ...)
---@return table
function Batch:keys(field)
  local keys = self.by_field[field]
  if keys then return keys end
  local number = reader.field(self.schema, field)
  keys = { batch = self, name = "keys", field = number - 1 }
  self.by_field[field] = keys
  return keys
end

-- The first of n numbers, at most `most`.
local function first(at, n, most)
  local words = {}
  for i = 0, math.min(n, most) - 1 do words[i + 1] = at(i) end
  if n > most then words[#words + 1] = "..." end
  return table.concat(words, " ")
end

function Batch:__tostring()
  local c, n = self.c, self.n
  local lines = { ("batch of %d samples, epoch %d, %d entries"):format(n, self.epoch, c.entries) }
  if n > 0 and c.label ~= nil then
    lines[#lines + 1] = "label  " .. first(function(i) return ("%.4g"):format(c.label[i]) end, n, 8)
  end
  if n > 0 and c.keys ~= nil and c.offsets ~= nil then
    lines[#lines + 1] = "keys of the first sample  " .. first(function(i)
      return tostring(c.keys[c.offsets[0] + i]):gsub("ULL", "")
    end, c.offsets[1] - c.offsets[0], 2)
  end
  return table.concat(lines, "\n  ")
end

--- A batch around what a reader, or a test, fills.
---@param c ffi.cdata* mr_batch
---@param schema? Schema whose fields have names
---@return Batch
function reader.batch(c, schema)
  local batch = setmetatable({ c = c, n = c.n, epoch = 1, last_of_epoch = false, by_field = {},
    schema = schema }, Batch)
  batch.label = { batch = batch, name = "label" }
  batch.weight = { batch = batch, name = "weight" }
  return batch
end

--- The number of a field, from 1, by its name in a schema or as it is.
---@param schema Schema|nil
---@param field string|integer
---@return integer
function reader.field(schema, field)
  if type(field) == "number" then return field end
  if field == "qid" and not (schema and schema.c) then return 0 end -- C's field -1: the group
  local names = {}
  for i = 0, schema and schema.c and C.mr_schema_fields(schema.c) - 1 or -1 do
    names[i + 1] = ffi.string(err.check(C.mr_schema_field_name(schema.c, i)))
    if names[i + 1] == field then return i + 1 end
  end
  if #names == 0 then
    err.raise("field %q: the data has no schema that names fields; give its number, from 1",
      tostring(field))
  end
  err.raise("schema %s has no field %q, only %s", schema.name, tostring(field),
    table.concat(names, ", "))
end

local SPLIT = { fraction = true, fold = true, folds = true, part = true }

--- Writes which records are read, by a hash of their numbers: { fraction = 0.1, part = "train" |
--- "valid" } or { fold = 1, folds = 5, part = }; "valid" is what is held out.
---@param split table|nil nil: all
---@param c ffi.cdata* mr_reader_options
function reader.write_split(split, c)
  if not split then return end
  if type(split) ~= "table" then
    err.raise("split: expected { fraction = } or { fold =, folds = }, got %s", err.show(split))
  end
  for name in pairs(split) do
    if not SPLIT[name] then err.raise("split has no option %q", tostring(name)) end
  end
  local fold, folds = split.fold, split.folds
  if folds then
    if type(folds) ~= "number" or folds < 2 or folds % 1 ~= 0 then
      err.raise("split: folds is %s, expected a whole number from 2", tostring(folds))
    end
    if type(fold) ~= "number" or fold < 1 or fold > folds or fold % 1 ~= 0 then
      err.raise("split: fold is %s, expected a whole number from 1 to %d", tostring(fold), folds)
    end
    c.split_from, c.split = (fold - 1) / folds, fold / folds
  else
    if type(split.fraction) ~= "number" then
      err.raise("split: fraction is a %s, expected a number", type(split.fraction))
    end
    c.split = split.fraction
  end
  c.part = split.part == "valid" and 2 or 1
end

---@class Batches an iterator of batches: `for batch in it do`
---@field batch Batch the one batch, filled again and again
---@field epochs integer passes over the data
---@field on_next? fun(it: Batches, batch: Batch) called with each batch before it is given
local Batches = {}
Batches.__index = Batches

--- The next batch, or nil at the end.
function Batches:__call()
  local c = self.c
  handle.idle("batches", "the next one is asked for")
  local n = C.mr_reader_next(c)
  if n < 0 then err.check(n) end
  if n == 0 then
    if self.at_end then self.at_end() end
    return nil
  end
  if self.ahead then self.ahead(c) end
  local batch = self.batch
  local view = batch.c
  batch.n = n
  batch.epoch = self.epoch
  batch.last_of_epoch = view.last_of_epoch == 1
  if batch.last_of_epoch then self.epoch = self.epoch + 1 end
  if self.on_next then self:on_next(batch) end
  return batch
end

function Batches:__tostring()
  local part = self:progress()
  return ("batches: epoch %d of %d%s"):format(math.min(self.epoch, self.epochs), self.epochs,
    part and (", %d %% of all"):format(math.floor(part * 100)) or "")
end

--- Stops reading. The last batch is gone.
function Batches:close()
  handle.idle("batches", "they are closed")
  if self.at_close then self.at_close() end
  handle.close(self.batch, "batch: its iterator was closed; use a batch before that")
  handle.close(self, "batches: they were closed; open them again to read on", C.mr_reader_close)
end

--- Bad lines so far, and the first of them.
---@return integer
---@return string
function Batches:skipped()
  return C.mr_reader_skipped(self.c), ffi.string(err.check(C.mr_reader_first_bad(self.c)))
end

--- Where a sample of the batch stands, for messages: "new.ffm:21".
---@param i integer its number in the batch, from 1
---@return string
function Batches:where(i)
  return ffi.string(err.check(C.mr_reader_where(self.c, i - 1)))
end

--- How far the batches given out have come in all epochs, from 0 to 1; nil where that is not known.
---@return number|nil
function Batches:progress()
  local part = C.mr_reader_progress(self.c)
  return part >= 0 and part or nil
end

handle.public(Batches, "batches", {})

---@class Data files in one format
local Data = {}
Data.__index = Data

local DATA = { files = true, format = true, fields = true, task = true, normalize = true }

--- Data that needs no schema: libsvm, libffm, libfm or bin.
---@param options { files?: string|string[], format?: string, fields?: integer, task?: string,
--- normalize?: "sample"|"key" } fields: the j-th entry of a sample is of field j, and there are this many;
--- normalize: models divide values by the norm of their sample, or by the largest of their key so far
---@return Data
function reader.data(options)
  local o = options or {}
  for name in pairs(o) do
    if not DATA[name] then err.raise("mr.data has no option %q", tostring(name)) end
  end
  normalize.check("mr.data", o.normalize)
  local fields = o.fields
  if o.format == "bin" then fields = fields or 39 end
  return setmetatable({ files = o.files, format = o.format, fields = fields, task = o.task,
    normalize = o.normalize }, Data)
end

function Data:__tostring()
  local files = self.files or "no files of its own"
  return ("data: %s%s"):format(self.format and self.format .. ", " or "",
    type(files) == "table" and table.concat(files, ", ") or files)
end

local counted

--- Number of fields of a sample, which libffm's entries name; 0 where samples are sets of keys.
function Data:fields_count()
  if not self.fields and self.files and (not self.format or self.format == "libffm") then
    self.fields = counted(self)
  end
  return self.fields or 0
end

-- The number of fields that the entries of files name, by a pass over them; nil where they name none, or can
-- be read only once.
function counted(data)
  local files = type(data.files) == "string" and { data.files } or data.files
  for _, path in ipairs(files) do
    local kind = C.mr_path_kind(path)
    if kind == C.MR_PATH_ONCE or kind < 0 then return nil end
  end
  local most = -1
  local batches = reader.open(files, { size = 4096, epochs = 1, labels = false, bad_lines = "skip" },
    { format = data.format, fields = 65535 })
  local ok = pcall(function() -- of libsvm every line is a bad one
    for batch in batches do
      local c = batch.c
      if c.field == nil then break end
      for e = 0, c.entries - 1 do
        if c.field[e] > most then most = c.field[e] end
      end
    end
  end)
  batches:close()
  if not ok then return nil end
  return most >= 0 and most + 1 or nil
end

--- What a store keeps of it: mr.data makes the same of that.
---@private
function Data:describe()
  return { format = self.format, fields = self.fields, task = self.task, normalize = self.normalize }
end

local OPTIONS = { size = true, epochs = true, shuffle = true, window = true, seed = true, from = true,
  split = true, bad_lines = true, follow = true, max_wait = true, memory = true, own = true, labels = true,
  skip = true, limit = true, bytes = true, stream = true, running = true, task = true,
  sizes = true }

--- Samples that a reader's options mix: 0 none, -1 all of them.
---@private
function reader.window(o)
  local shuffle = o.shuffle
  if shuffle == "full" then return -1 end
  if type(shuffle) == "number" then return shuffle end
  if shuffle == true or (shuffle == nil and o.window) then return o.window or WINDOW end
  return 0
end

-- What C reads while a reader is opened.
local held -- luacheck: ignore held

-- Files of directories that are not read are named once.
local told = {}
---@private
function reader.tell_left_out(names)
  if names == "" or told[names] then return end
  told[names] = true
  io.stderr:write("moonrock: not read, because of their names (_x, x~, x.bak, x.tmp and the like): ", names,
    "\n")
end

--- Batches of files.
---@param files string|string[] paths; "-" is standard input
---@param options table|nil size (256), epochs (1), shuffle (true, a number of samples, "full" or
--- false), window, seed, from = { epoch = , sample = }, split = { fraction =, part = "train" |
--- "valid" } or { fold =, folds =, part = }, bad_lines = "error" | "skip" | "keep" (an empty sample for
--- each bad line), follow, stream (batches are handed out as they come), max_wait (seconds that a sample
--- of a stream waits at most for its batch to fill; 0: a batch is what is there), memory, own (true:
--- batches may be changed, as by C.mr_batch_draw; else they may be the data in memory itself), labels
--- (false: not read), skip, limit
---@param format table { format =, fields =, schema =, task = }
---@return Batches
function reader.open(files, options, format)
  local o = options or {}
  for name in pairs(o) do
    if not OPTIONS[name] then err.raise("batches have no option %q", tostring(name)) end
  end
  local c = ffi.new "mr_reader_options"
  local list, count, texts = reader.strings(files) -- which C copies
  c.files, c.files_n = list, count
  c.format = format.format
  c.schema = format.schema
  c.fields = format.fields or 0
  c.size = o.size or 256
  c.task = TASKS[o.task or format.task or "binary"] or err.raise("task %q is unknown", tostring(o.task))
  c.labels = o.labels == false and C.MR_LABELS_IGNORED or C.MR_LABELS_REQUIRED
  c.bad_lines = reader.bad_lines(o.bad_lines)
  c.follow = o.follow and 1 or 0
  c.stream = (o.stream or o.follow or o.max_wait) and 1 or 0
  c.memory = o.memory == nil and -1 or o.memory and 1 or 0
  c.own = o.own and 1 or 0
  c.running = o.running and 1 or 0
  reader.write_split(o.split, c)
  c.epochs = o.epochs or 1
  c.window = reader.window(o)
  c.skip, c.limit = o.skip or 0, o.limit or 0
  c.seed = o.seed or 0
  local from = o.from or {}
  c.from.epoch, c.from.sample = from.epoch or 0, from.sample or 0
  c.max_wait = o.max_wait or -1
  c.bytes = o.bytes or 0
  local sizes = o.sizes and ffi.new("double[?]", count, o.sizes)
  c.sizes = sizes
  held = { list, texts, sizes }
  local opened = err.check(C.mr_reader_open(c))
  held = nil
  reader.tell_left_out(ffi.string(C.mr_reader_left_out(opened)))
  local batch = reader.batch(C.mr_reader_batch(opened), format.owner)
  batch.iterator = setmetatable({ c = ffi.gc(opened, C.mr_reader_close), batch = batch, schema = format.owner,
    epoch = (from.epoch or 0) + 1, epochs = o.epochs or 1 }, Batches) -- which lives as long as its batch
  return batch.iterator
end

--- The paths behind a part, or files as they are.
---@private
function Data:paths(files)
  if files == nil or files == "train" and self.files then files = self.files end
  if not files then err.raise("mr.data: no files were given") end
  return files
end

--- Batches of files, or of those that the data was made with.
function Data:batches(files, options) return reader.open(self:paths(files), options, self)
end

--- Raw formats have nothing to fit.
---@private
function Data.fitted() return true end

handle.public(Data, "data", { fitted = true })

return reader

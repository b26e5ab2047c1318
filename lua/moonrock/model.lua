--- Models: named state (tables, params), a function of a batch, and the store that keeps both.
-- `mr.model(name, build)` makes a definition; calling that with options makes a Model.
local ffi = require "ffi"
local json = require "moonrock.json"
local C = require "moonrock.ffi"
local clip = require "moonrock.clip"
local commit = require "moonrock.commit"
local err = require "moonrock.error"
local handle = require "moonrock.handle"
local layout = require "moonrock.layout"
local normalize = require "moonrock.normalize"
local objective = require "moonrock.objective"
local optim = require "moonrock.optim"
local planned = require "moonrock.planned"
local position = require "moonrock.position"
local Param = require "moonrock.param"
local schedule = require "moonrock.schedule"
local kinds = require "moonrock.settings"
local show = require "moonrock.show"
local shrink = require "moonrock.shrink"
local size = require "moonrock.size"
local source = require "moonrock.source"
local Start = require "moonrock.start"
local Store = require "moonrock.store"
local Table = require "moonrock.table"
local tape = require "moonrock.tape"

local Model = { backwards = 0 } -- backward passes since the last step
Model.__index = Model

local Definition = {}
Definition.__index = Definition

-- Options that are the runtime's; all others are handed to the model's own function as `opt`.
local OWN = { store = true, schema = true, seed = true, threads = true, memory = true,
  read_only = true, commit_every = true, commit_seconds = true, data = true, on_notice = true,
  follow = true, allow_drop = true, clock = true, cold = true, detached = true,
  command = true }
Model.own_options = OWN

-- Options of the model's tables and steps, which a store keeps.
local ROW_OPTIONS = { "ttl", "admit", "max_rows", "precision", unpack(clip.names) }

local BATCH = ffi.typeof "mr_batch" -- and pointers to it

local SEED = 42
local COMMIT_SECONDS = 30

--- Defines a model. `build(m, opt)` declares its tables and params and returns a function from a
--- batch to scores [n, 1]; and, if training goes down another loss than one of score and label, a
--- function of those scores and the batch that returns it.
---@param name string
---@param build fun(m: table, opt: table): fun(x: table): table
---@param settings table|nil { loss = "bce" | "huber" | { name = "quantile", q = 0.9 } ... (see
--- moonrock.objective), optim = default optimizer, stream_size = samples of a batch of a stream (1),
--- options = { dim = "count", ... }, kinds of all of the model's own options, which are then checked, and of
--- which 0, no and off are false where a boolean is expected (see moonrock.settings) }
---@return table definition
---@private
function Model.define(name, build, settings)
  if type(name) ~= "string" or type(build) ~= "function" then
    err.raise("mr.model: expected a name and a function, got %s and %s", type(name), type(build))
  end
  return setmetatable({ name = name, build = build, settings = settings or {},
    source = source.of(build) }, Definition)
end

-- What a value stands for takes its place in the options; all of an optimizer that has a default of its own.
local function check_options(definition, opt)
  for name, kind in pairs(kinds.of(definition, opt)) do
    if opt[name] ~= nil and (opt[name] or kind == "boolean") then -- false: as if it were not given
      opt[name] = kinds.check("model " .. definition.name, name, opt[name], kind)
      if type(kind) == "table" and kinds.is_optimizer(kind) then
        opt[name] = err.call(("model %s: %s"):format(definition.name, name), optim.over, opt[name], kind)
      end
    end
  end
end

--- The optimizer of all columns and params that name none: with these options, or the definition's.
---@param opt table lr, optim
---@return table
function Definition:default_optim(opt)
  local rule = optim.over(opt.optim, self.settings.optim or "adam")
  return opt.lr and optim.with_lr(rule, opt.lr) or rule
end

-- The scales of the model's values, as its data or its store has them.
local function scales_of(m)
  local kept = m.kept and m.kept.data and m.kept.data.normalize or nil
  local how = m.data and m.data.normalize
  if m.kept and m.kept.data and how and how ~= kept then
    err.raise("store %s: its model was made with %s, not normalize = %q", m.directory,
      kept and ("normalize = %q"):format(kept) or "values as they are", how)
  end
  if m.data and kept and not how then m.data = setmetatable({ normalize = kept }, { __index = m.data }) end
  how = how or kept
  return how and normalize.new(how) or nil
end

local function build(definition, m, opt)
  local forward, own_loss = err.call(m.subject, definition.build, m, opt)
  if type(forward) ~= "function" then
    err.raise_at(definition.build, "%s: its function returned %s, expected a function of a batch", m.subject,
      forward == nil and "nothing" or "a " .. type(forward))
  end
  return forward, own_loss
end

function Definition:__tostring()
  return ("definition of model %s: call it with options to make one"):format(self.name)
end

--- Makes the model: opens its store, or keeps it in memory without one.
---@param options table|nil store, memory (that the process may use: bytes, or "500MB"), schema, seed,
--- threads, read_only, follow, commit_seconds, commit_every, lr, optim, schedule (of the learning rate; see
--- moonrock.schedule), clip_norm, clip_each, clip_value (see moonrock.clip), loss (in place of the
--- definition's), and the model's own
---@return table model
function Definition:__call(options)
  options = options or {}
  local opt = {}
  for name, value in pairs(options) do
    if type(name) ~= "string" then
      err.raise("model %s: options are named, got %s", self.name, tostring(name))
    end
    if not OWN[name] then opt[name] = value end
  end
  err.check(C.mr_threads_set(options.threads or 0))
  if options.memory then
    local bytes, problem = size(options.memory)
    if not bytes then err.raise("model %s: memory: %s", self.name, problem) end
    err.check(C.mr_memory_limit_set(bytes))
  end
  local m = setmetatable({
    name = self.name, subject = "model " .. self.name, definition = self, opt = opt, schema = options.schema,
    data = options.data or options.schema,
    seed = options.seed or SEED, step_number = 0, tables = {}, params = {}, by_name = {},
    read_only = options.read_only or options.follow, position = ffi.new("mr_position"), fit = {},
    reached_at = ffi.new("mr_position"), reached = false,
    clock = options.clock, cold = options.cold, lr_factor = 1, commit_every = options.commit_every,
    commit_seconds = options.commit_seconds or COMMIT_SECONDS, batches_since = 0,
    objective = objective.new("model " .. self.name, opt.loss or self.settings.loss or "bce"),
    kept = options.detached, data_sets = {}, said = {}, command = options.command,
    notice = options.on_notice or function(text) io.stderr:write("moonrock: ", text, "\n") end,
  }, Model)
  m.loss_name = m.objective.name
  if m.data and not m.data.task and m.objective.link ~= C.MR_LOGIT then -- labels are any numbers
    m.data = setmetatable({ task = "regression" }, { __index = m.data })
  end
  m.training = not m.read_only
  if options.store then
    m.store = Store.open(options.store, options.follow and "follow" or m.read_only and "read" or "create")
    m.store.owner = m
    m.directory = options.store
  end
  local ok, problem = pcall(function()
    if m.store then
      m.kept_text = m.store:get("model")
      m.kept = m.kept_text and json.decode(m.kept_text)
      m.described = m.kept_text
      if m.kept and options.seed == nil then m.seed = m.kept.seed end
      local data = m.data and m.data ~= m.schema and not m.data.fields and (m.kept or {}).data
      if data then m.data.fields = data.fields end
      if m.kept and opt.loss == nil and (m.kept.options or {}).loss then
        opt.loss = m.kept.options.loss
        m.objective = objective.new("model " .. self.name, opt.loss)
        m.loss_name = m.objective.name
        if m.data and not m.data.task and m.objective.link ~= C.MR_LOGIT then
          m.data = setmetatable({ task = "regression" }, { __index = m.data })
        end
      end
      for _, name in ipairs(m.kept and ROW_OPTIONS or {}) do -- those of the store go on to hold
        if opt[name] == nil then opt[name] = (m.kept.options or {})[name] end
      end
    end
    m.normalize = scales_of(m)
    check_options(self, opt)
    m.default_optim = err.call(m.subject, Definition.default_optim, self, opt)
    if opt.schedule then m:set_schedule(opt.schedule) end
    local _, found = source.collect(function() m.forward, m.own_loss = build(self, m, opt) end)
    m.found = found
    for name, value in pairs(m.store and opt or {}) do
      if optim.in_lua(value) then
        err.raise("model %s: %s is an optimizer in Lua: give it in the model's file, which the store keeps",
          self.name, name)
      end
    end
    m.limits = shrink.limits(m)
    m.clip = clip.of("model " .. self.name, opt)
    m.train_tape = tape.new { seed = m.seed }
    m.train_tape.owner = m
    m.eval_tape = tape.new { seed = m.seed }
    m.eval_tape.owner = m
    local floor, limit = C.mr_memory_floor(), C.mr_memory_limit()
    if floor > limit then
      err.raise("model %s: %.0f MB of memory are less than it needs: at least %.0f MB (--memory)",
        self.name, limit / 1e6, math.ceil(floor / 1e6))
    end
    m.start = Start.new(m)
    if m.store then commit.resume(m, options) end
  end)
  if not ok then
    m:close()
    error(problem, 0)
  end
  m.committed_at = C.mr_clock()
  return m
end

local function take_name(m, kind, name)
  if m.forward then
    err.raise("model %s: %s %s comes too late: declare it in the model's function, before it returns", m.name,
      kind, err.show(name))
  end
  if type(name) ~= "string" or not name:match("^[%w_./-]+$") then
    err.raise("model %s: %s name %q, expected letters, digits and . _ / -", m.name, kind,
      tostring(name))
  end
  if m.by_name[name] then err.raise("model %s: the name %q is taken", m.name, name) end
  m.by_name[name] = true
end

--- Declares a table; see moonrock.table.
---@param name string
---@param columns table
---@param options table|nil ttl, admission, max_rows, shrink_every, clip_each
---@return table
function Model:table(name, columns, options)
  take_name(self, "table", name)
  local id = layout.id(self.kept and self.kept.layout, self.tables, name)
  local t = Table.new(name, id, self.seed, columns, self.default_optim, options, self.opt)
  -- Rows change in steps only: what a commit finds in the middle of one is the state of the last.
  t.owner = self
  t.relieve = self.store and self.training and function() self:commit() end or nil
  self.tables[#self.tables + 1] = t
  return t
end

--- The number of fields of a sample, for models that need one.
---@return integer
function Model:fields()
  local n = self.data and self.data:fields_count() or 0
  if n == 0 then
    err.raise("model %s: it needs samples of fields; give a schema, or the number of fields "
      .. "(--fields)", self.name)
  end
  return n
end

local PARAM_OPTIONS = { init = true, optim = true, trainable = true, clip_each = true }

--- Declares a dense weight; see moonrock.param.
---@param name string
---@param shape integer[]
---@param options table|nil init, optim, trainable, clip_each
---@return table
function Model:param(name, shape, options)
  take_name(self, "param", name)
  options = options or {}
  for key in pairs(options) do
    if not PARAM_OPTIONS[key] then
      err.raise("param %q has no option %q, expected init, optim, trainable or clip_each", name,
        tostring(key))
    end
  end
  if options.trainable ~= nil then
    kinds.check(("param %q"):format(name), "trainable", options.trainable, "boolean")
  end
  local rule = err.call(("param %q"):format(name), optim.over, options.optim or self.opt.dense_optim,
    self.default_optim)
  local p = Param.new(name, self.seed, shape, { init = options.init, optim = rule,
    trainable = kinds.boolean(options.trainable), clip_each = options.clip_each })
  self.params[#self.params + 1] = p
  return p
end

-- Every learning rate is the one it was made with times a factor.
local function apply_lr(self, factor)
  for i = 1, #self.tables do self.tables[i]:scale_lr(factor) end
  for i = 1, #self.params do self.params[i]:scale_lr(factor) end
end

--- Multiplies every learning rate by a factor of the one it was made with, and by the schedule's.
---@param factor number
function Model:scale_lr(factor)
  self.lr_factor = factor
  apply_lr(self, factor)
end

--- Lets every learning rate follow a schedule from now on, which the store keeps with the options.
---@param value Schedule|string such as "cosine(1000)"
function Model:set_schedule(value)
  self.schedule = schedule.of(value)
  self.opt.schedule = self.schedule.text
end

local function nothing(self)
  err.raise_at(self.forward, "%s: its function of a batch returned nothing, expected scores [n, 1]",
    self.subject)
end

-- The next step is of this batch and all that came before it: its position is what a commit then records.
-- It is noted here, since the reader may have filled the batch anew by the time of the step.
local function reach(self, batch)
  if batch ~= self.own_batch then return end
  ffi.copy(self.reached_at, batch.c.position, 16)
  if self.running then self.schema:mark() end
  self.reached = true
end

--- Notes that a batch was dealt with, though the model was not called with it.
---@param batch table
---@private
function Model:pass(batch) reach(self, batch) end

--- Applies the model to a batch: logits [n, 1]. In training it records for `backward`; after
--- `model:eval()` it only computes, and creates no rows.
---@param batch table
---@return table tensor
function Model:__call(batch)
  if type(batch) ~= "table" or not ffi.istype(BATCH, batch.c) then
    err.raise("model %s: expected a batch, got %s", self.name, type(batch))
  end
  handle.idle(self.subject, "it is called")
  if not self.forward then err.raise("%s: it is called before it is made", self.subject) end
  if self.training then
    if not self.open then
      self.train_tape:begin(true, self.step_number + 1)
      self.open = true
    end
    self.batch = batch
    reach(self, batch)
    if self.start then self.start:see(batch) end
    tape.current = self.train_tape
  else
    self.eval_tape:begin(false, self.step_number)
    tape.current = self.eval_tape
  end
  if self.normalize then self.normalize:apply(tape.current, batch) end
  local logits = err.call(self.subject, self.forward, batch)
  local shift = self.shift
  if shift and not self.training then return logits + shift end
  return logits or nothing(self)
end

local function say_once(self, what, format, ...)
  if self.said[what] then return end
  self.said[what] = true
  self.notice(format:format(...))
end

-- Gradients that no step made use of. Training loops of the library step for themselves.
local function say_unused(self)
  if self.backwards == 0 or self.manual_commits or self.broken then return end
  say_once(self, "unused", "%s: nothing is learned from the last %d %s: loss:backward() adds up gradients, "
    .. "model:step() after it makes use of them", self.subject, self.backwards,
    self.backwards == 1 and "batch" or "batches")
end

-- A learning rate that is next to nothing, and stays so.
local function say_flat(self)
  local t, text = self.step_number, self.schedule.text
  if not self.schedule:over(t) then return end
  say_once(self, "flat", "%s: its schedule %s has run out: from step %d on the learning rate is 0 and "
    .. "nothing is learned any more; a longer schedule goes on (%s)", self.subject, text, t,
    self.command and "--schedule" or "schedule =")
end

--- Computes without learning from now on, until `train()`.
function Model:eval()
  if self.backwards > 0 and self.read_out then say_unused(self) end
  self.training = false
end
function Model:train() self.training = true end

-- Forgets the gradients since the last step.
local function drop(self)
  self.open = false
  self.backwards = 0
  if self.start then self.start:drop() end
  for _, t in ipairs(self.tables) do C.mr_table_drop(t.c) end
  for _, p in ipairs(self.params) do C.mr_param_zero(p.c) end
end

local function names(list)
  local words = {}
  for i, item in ipairs(list) do words[i] = item.name end
  return table.concat(words, ", ")
end

--- Stops for good: raises a problem with the position of the batch and the tables of the model, none
--- of which will be committed any more.
---@param problem string such as "the loss is nan"
---@private
function Model:give_up(problem)
  self.broken = problem
  drop(self)
  local batch = self.batch
  local where = ""
  if batch then
    where = (" (epoch %d, the batch of %d samples that ends at sample %d)"):format(batch.epoch,
      batch.n, tonumber(batch.c.position.sample))
  end
  if #self.tables > 0 then where = ("%s, tables %s"):format(where, names(self.tables)) end
  err.raise("model %s: step %d: %s%s; nothing of it is committed. A smaller learning rate may "
    .. "help", self.name, self.step_number + 1, problem, where)
end

-- An optimizer in Lua: if it raises, the step is done in part, and the model is never committed.
local function in_lua(self, what, update)
  self.broken = "its optimizer failed"
  update(what)
  self.broken = nil
end

-- Whether all gradients are finite: then a step cannot stop half way.
local function finite(self)
  for i = 1, #self.tables do
    if C.mr_table_finite(self.tables[i].c) < 0 then return false end
  end
  for i = 1, #self.params do
    if C.mr_param_finite(self.params[i].c) < 0 then return false end
  end
  return true
end

-- What was reached is done with.
local function advance(self)
  self.open = false
  self.backwards = 0
  self.train_tape:reset()
  if self.reached then
    ffi.copy(self.position, self.reached_at, 16)
    if self.running then self.schema:advance() end
    self.reached = false
  end
  self.batches_since = self.batches_since + 1
end

--- Goes on behind the batch at hand without learning from it: no row or param changes.
function Model:skip()
  handle.idle(self.subject, "a step")
  drop(self)
  if self.own_batch then reach(self, self.own_batch) end
  advance(self)
end

--- A loss that is not finite: an error, or false with `model.on_nan = "skip"`.
---@param loss number
---@private
function Model:refuse(loss)
  if self.on_nan == "skip" then return false end
  self:give_up(("the loss is %s"):format(loss ~= loss and "nan" or "infinite"))
end

--- Multiplies the gradients since the last step by a factor.
---@param factor number
function Model:scale_gradients(factor)
  for i = 1, #self.tables do C.mr_table_scale(self.tables[i].c, factor) end
  for i = 1, #self.params do C.mr_param_scale(self.params[i].c, factor) end
end

--- Updates every row and param by the gradients since the last step, each once. One that is not finite
--- is an error after which the model commits nothing more; with `model.on_nan = "skip"` the step is
--- left out.
---@return boolean stepped false: left out
function Model:step()
  handle.idle(self.subject, "a step")
  if self.broken then err.raise("model %s: it stopped: %s", self.name, self.broken) end
  if self.own_batch and self.batch == self.own_batch and handle.closed(self.own_batch) then
    err.raise("model %s: step: the iterator of its batch was closed before: step first, then close it",
      self.name)
  end
  if self.on_nan == "skip" and not finite(self) then
    self:skip()
    return false
  end
  local step = self.step_number + 1
  if self.backwards == 0 then
    say_once(self, "idle", "%s: step %d changes nothing: no loss:backward() came before it", self.subject,
      step)
  end
  if self.schedule then
    local factor = self.schedule.at(self.step_number)
    apply_lr(self, self.lr_factor * factor)
    if factor < self.schedule.NOTHING then say_flat(self) end
  end
  if not clip.apply(self) then self:give_up(ffi.string(C.mr_error())) end
  for i = 1, #self.tables do
    local t = self.tables[i]
    if C.mr_table_push(t.c, step) < 0 then self:give_up(ffi.string(C.mr_error())) end
    if t.updates then in_lua(self, t, t.update) end
  end
  for i = 1, #self.params do
    local p = self.params[i]
    local updates = C.mr_param_updates(p.c)
    if C.mr_param_step(p.c, step) < 0 then self:give_up(ffi.string(C.mr_error())) end
    if p.update and C.mr_param_updates(p.c) > updates then in_lua(self, p.c, p.update) end
  end
  if self.start and self.start:step() then self.start = nil end
  self.step_number = step
  advance(self)
  if self.limits then shrink.enforce(self, self.limits) end
  if self.store and not self.manual_commits and self:commit_due() then self:commit_behind() end
  return true
end

-- From here on a signal ends the loop after the batch at hand: with a commit, and an error that the
-- program turns into its exit status.
local function own_iterator(self, it)
  self.own_batch, self.reached, self.read_out = it.batch, false, false
  local tables = self.tables
  local statistics = self.running and self.schema
  it.ahead = function(reader)
    if statistics and self.own_batch == it.batch then statistics:observe(it.batch) end
    for i = 1, #tables do
      local n = 0
      repeat
        local batch = C.mr_reader_coming(reader, n)
        local more = batch ~= nil and C.mr_table_ahead(tables[i].c, batch) or 0
        if more < 0 then err.check(-1) end
        n = n + 1
      until more == 0
    end
  end
  it.at_close = function()
    self.read_out = true
    for i = 1, #tables do
      if not handle.closed(tables[i]) then C.mr_table_ahead_drop(tables[i].c) end
    end
  end
  C.mr_interrupt_catch()
  it.at_end = function()
    self.read_out = true
    local signal = C.mr_interrupted()
    if signal == 0 then return end
    if self.store then self:commit() end
    error({ interrupted = signal }, 0)
  end
  return it
end

--- Training batches from the last commit's position on; commits record how far they went.
---@param part string a part of the schema's files ("train"), or a file
---@param options table|nil size, epochs, shuffle, window ...; see moonrock.reader
function Model:batches(part, options)
  if not self.data then err.raise("model %s: it was given no schema or data", self.name) end
  local o = {}
  for name, value in pairs(options or {}) do o[name] = value end
  o.seed = o.seed or self.seed
  if self.read_only then -- learns nothing, so it begins at the start
    o.from = nil
    return self.data:batches(part, o)
  end
  local parts, reason = position.plan(self, "train", part, o)
  if reason then self.notice(reason) end
  if #parts == 1 then
    position.begin(self, parts[1])
    return self:part(parts[1], o)
  end
  return planned.batches(self, parts, function(p) return self:part(p, o) end)
end

--- The batches of one part of a plan, at which the model is.
---@private
function Model:part(p, o)
  local given = position.reader_options(self, p, o)
  if p.set.kind == "train" and self.schema and not self.schema:fitted() then
    self.schema:fit { files = p.files, split = o.split, bad_lines = o.bad_lines }
  end
  self.streaming = p.set.kind == "learn"
  self.running = self.streaming and self.schema and self.schema:run() or false
  given.running = self.running
  return own_iterator(self, self.data:batches(p.files, given))
end

--- The batches of a stream: "-", a file, or one that grows (`follow = true`).
function Model:stream(from, options)
  local o = {}
  for name, value in pairs(options or {}) do o[name] = value end
  o.epochs, o.stream = 1, true
  if self.read_only then
    o.from = nil
    return self.data:batches(from, o)
  end
  local function plan(again)
    local given = setmetatable({ from = not again and o.from or nil }, { __index = o })
    if again then given.from = nil end
    local parts, reason = position.plan(self, "learn", from, given)
    if #parts > 0 then parts[#parts].follow = o.follow end
    return parts, reason
  end
  local parts, reason = plan()
  local batches = planned.batches(self, parts, function(p) return self:part(p, o) end,
    function() return plan(true) end)
  batches.reason = reason
  if reason and not self.command then self.notice(reason) end
  return batches
end

-- What goes to the store and comes from it.
Model.commit_behind, Model.commit_due = commit.write_behind, commit.due
Model.restore, Model.checkpoint, Model.refresh = commit.restore, commit.copy, commit.follow
Model.shrink = shrink.run

--- Writes everything as one atomic commit, which is durable when this returns.
function Model:commit()
  if self.backwards > 0 and self.read_out then say_unused(self) end
  commit.write(self)
end

-- Where the memory goes: bytes held by and promised to each part; the rest of what is resident is the
-- program, batches and dense weights.
local function memory()
  local parts, held, promise = {}, ffi.new "double[1]", ffi.new "double[1]"
  for i = 0, 1000 do
    local name = C.mr_memory_part(i, held, promise)
    if name == nil then break end
    name = ffi.string(name)
    local part = parts[name] or { held = 0, promise = 0 }
    part.held, part.promise = part.held + held[0], part.promise + promise[0]
    parts[name] = part
  end
  return { limit = C.mr_memory_limit(), resident = C.mr_memory_resident(), peak = C.mr_memory_peak(),
    floor = C.mr_memory_floor(), parts = parts }
end

--- Everything there is to say about the model and its store.
---@return table
function Model:info()
  local rows, tables = 0, {}
  for i, t in ipairs(self.tables) do
    local n = t:rows()
    rows = rows + n
    tables[i] = { name = t.name, rows = n, columns = t:layout(), layouts = t.layouts and #t.layouts or 1,
      resident = C.mr_table_resident(t.c) == 1, cached = C.mr_table_cached(t.c),
      dirty = C.mr_table_dirty(t.c), missed = C.mr_table_missed(t.c) }
  end
  local params = {}
  for i, p in ipairs(self.params) do
    params[i] = { name = p.name, shape = p.shape }
  end
  local info = {
    model = self.name, seed = self.seed, step = self.step_number, table_rows = rows, tables = tables,
    params = params, options = commit.options(self), schema = self.schema and self.schema.name or nil,
    position = { epoch = tonumber(self.position.epoch), samples = tonumber(self.position.sample) },
    data = position.list(self),
  }
  info.memory = memory()
  if self.store then
    for name, value in pairs(self.store:info()) do
      if info[name] == nil then info[name] = value end
    end
    info.digest = self.store:digest()
  end
  return info
end

function Model:__tostring()
  local lines = { ("model %s: step %d%s"):format(self.name, self.step_number,
    self.store and ", store " .. self.directory or ", in memory") }
  for _, t in ipairs(self.tables) do lines[#lines + 1] = tostring(t) end
  for _, p in ipairs(self.params) do
    lines[#lines + 1] = ("param %q %s"):format(p.name, show.shape(p.shape))
  end
  return (table.concat(lines, "\n"):gsub("\n", "\n  "))
end

--- Closes the store and frees the tables. What was not committed is gone.
function Model:close()
  local problem = self.subject .. ": it was closed; make it again to go on"
  say_unused(self)
  if self.train_tape then self.train_tape:free() end
  if self.eval_tape then self.eval_tape:free() end
  if self.store and not handle.closed(self.store) then C.mr_commit_wait(self.store.c) end
  for _, t in ipairs(self.tables) do
    if not handle.closed(t) then handle.close(t, ("%s: %s"):format(t.subject, problem), C.mr_table_free) end
  end
  if self.store and not handle.closed(self.store) then
    handle.close(self.store, ("store %s: %s"):format(self.store.dir, problem), C.mr_store_close)
  end
  self.tables, self.params = {}, {}
  handle.close(self, problem, nil, "store", "train_tape", "eval_tape")
end

Definition.__call = err.public("mr.model", Definition.__call)
handle.public(Model, "model", { define = true, step = true, skip = true, train = true, eval = true,
  commit_due = true, refuse = true },
  { close = "it is closed", commit = "a commit", commit_behind = "a commit", checkpoint = "a copy",
    restore = "going back to another state", refresh = "going on to another state", shrink = "dropping rows",
    batches = "other batches", stream = "other batches" })

return Model

--- What a model and its store exchange: the commits of all there is (rows, params, counters, position,
-- fitted statistics, the description of the model), and their way back.
local json = require "moonrock.json"
local C = require "moonrock.ffi"
local compiled = require "moonrock.compiled"
local err = require "moonrock.error"
local layout = require "moonrock.layout"
local position = require "moonrock.position"
local shrink = require "moonrock.shrink"
local source = require "moonrock.source"
local Start = require "moonrock.start"
local Store = require "moonrock.store"

local trust = require "moonrock.trust"

local commit = {}

--- Those of a model's options that are plain data, which its store keeps.
---@param m table
---@return table
function commit.options(m)
  local kept = {}
  for name, value in pairs(m.opt) do
    local kind = type(value)
    if kind == "number" or kind == "string" or kind == "boolean" or kind == "table" then
      kept[name] = value
    end
  end
  return kept
end

-- The text of modules that the model requires, and of models that are parts of it.
local function modules_of(m)
  if m.definition.stored_modules then return m.definition.stored_modules end
  local modules = source.modules()
  for path, text in pairs(m.found or {}) do modules[path] = text end
  return modules
end

local function describe(m)
  local schema = m.schema
  return Store.encode {
    name = m.name, seed = m.seed, layout = layout.of(m), options = commit.options(m),
    loss = m.loss_name, module = m.definition.source.module, source = m.definition.source.text,
    modules = modules_of(m),
    schema = schema and { name = schema.name, module = schema.module, source = schema.source_text,
      compiled = schema.given and compiled.of(schema) or nil,
      statistics = schema.statistics and schema:statistics() or nil } or nil,
    data = m.data and m.data ~= schema and m.data.describe and m.data:describe() or nil,
  }
end

-- Signs the code that a store is about to keep, unless it is another's that was opened by `trust = true`.
local told = {} -- problems that were said
function commit.sign(m, store, description)
  if m.definition.foreign then return end
  local signature, problem = trust.sign(json.decode(description))
  if signature then
    store:put("signature", signature)
  elseif not told[problem] then
    told[problem] = true
    io.stderr:write(("moonrock: stores are not signed as yours, so other commands will ask for --trust: %s "
      .. "(MOONROCK_CONFIG=DIR names another place for the key)\n"):format(problem))
  end
end

-- ---- commits ---------------------------------------------------------------------------------

-- Whether no commit is being written. One that failed may have had the description to write.
local function settled(m)
  local described = m.described
  m.described = nil
  local done = m.store:poll()
  m.described = described
  return done
end

--- Whether the next commit is due: by batches or by time, or because many rows changed. Not while
--- one is being written.
---@param m table
---@return boolean
function commit.due(m)
  if not m.store or not settled(m) then return false end
  for i = 1, #m.tables do
    if C.mr_table_pressed(m.tables[i].c) == 1 then return true end
  end
  if m.commit_every then return m.batches_since >= m.commit_every end
  return C.mr_clock() - m.committed_at >= m.commit_seconds
end

-- Puts everything into a commit.
local function prepare(m)
  local store = m.store
  if not store then err.raise("model %s: it has no store to commit to", m.name) end
  if m.broken then err.raise("model %s: it stopped: %s", m.name, m.broken) end
  local description, described = describe(m), m.described
  m.described = nil -- should the commit before have failed
  if m.clock then C.mr_commit_time(store.c, m.clock()) end
  store:begin()
  m.described = described
  local ok, problem = pcall(function()
    if m.dropped then
      for _, t in ipairs(m.dropped.tables) do
        store:drop_table(t.name, t.id)
        for _, c in ipairs(t.layouts[#t.layouts]) do store:remove(("rates/%s/%s"):format(t.name, c.name)) end
        m.dropped_ids = m.dropped_ids or {}
        m.dropped_ids[#m.dropped_ids + 1] = t.id
      end
      for name in pairs(m.dropped.params) do store:remove("param/" .. name) end
      description = describe(m)
    end
    for _, t in ipairs(m.tables) do
      store:put_table(t)
      t:save_rates(store)
    end
    local function put_params()
      for _, p in ipairs(m.params) do
        store:put("param/" .. p.name, C.mr_param_bytes(p.c), tonumber(C.mr_param_len(p.c)))
      end
    end
    if m.start then m.start:save(put_params) else put_params() end
    if description ~= m.described then
      store:put("model", description)
      if m.schema and m.schema.parts then store:put("files", Store.encode(m.schema.parts)) end
      commit.sign(m, store, description)
    end
    local state = { step = m.step_number, lr_factor = m.lr_factor, shift = m.shift,
      start = m.start and m.start.sums }
    local data_sets = position.save(m, state)
    if data_sets then store:put("data_sets", Store.encode(data_sets)) end
    store:put("state", Store.encode(state))
    if m.watch then store:put("watch", m.watch:save()) end
    if m.normalize then m.normalize:save(store, m.described == nil) end
    if m.schema and m.schema.running and m.schema:running() then
      store:put("statistics", m.schema:running_bytes())
    end
  end)
  if not ok then
    store:abort()
    error(problem, 0)
  end
  m.dropped = nil
  return description
end

local function write(m, finish)
  local description = prepare(m)
  m.store[finish](m.store, m.step_number)
  m.described = description
  m.files_changed = nil
  m.committed_at = C.mr_clock()
  m.batches_since = 0
end

--- Writes everything as one atomic commit, which is durable when this returns.
---@param m table
function commit.write(m) write(m, "finish") end

--- The same while training goes on: what there is now is what is committed. A failure is raised by
--- the next step or commit.
---@param m table
function commit.write_behind(m) write(m, "finish_behind") end

--- Commits what describes the model and its data, if it is not what the store has.
---@param m table
function commit.write_description(m)
  if m.store and m.described ~= describe(m) then m:commit() end
end

-- ---- and back --------------------------------------------------------------------------------

--- Reads the rows of a model's tables, if they fit; cold: each when it is looked up.
---@param m table
---@param cold boolean|nil
function commit.load_tables(m, cold)
  for _, t in ipairs(m.tables) do
    C.mr_table_clear(t.c)
    m.store:load(t, cold)
    t:load_rates(m.store)
  end
end

-- Reads rows, dense weights, counters and position from the store.
local function load(m, state)
  m.open, m.reached = false, false
  m.train_tape:reset() -- what was looked up is over
  m.eval_tape:reset()
  commit.load_tables(m, m.cold)
  for _, p in ipairs(m.params) do
    local bytes = not (m.dropped and m.dropped.params[p.name]) and m.store:get("param/" .. p.name)
    if bytes then p:load(bytes) end
  end
  m.step_number = state.step
  local data_sets = m.store:get("data_sets")
  position.load(m, state, data_sets and json.decode(data_sets))
  m.start = (state.start or state.step == 0) and Start.new(m, state.start) or nil
  m.shift = state.shift
  m.watch_bytes = m.store:get("watch")
  if m.normalize then m.normalize:load(m.store) end
  local statistics = m.schema and m.store:get("statistics")
  if statistics then m.schema:restore_running(statistics) end
  m:scale_lr(state.lr_factor or 1)
  if m.limits and not m.read_only then shrink.enforce(m, m.limits) end
end

local function state_of(m) return json.decode(m.store:get("state")) end

-- Refuses to go on with what the store was not made with.
local function check_same(m, kept)
  if kept.name ~= m.name then
    err.raise("store %s: it was made by model %q, not %q", m.directory, kept.name, m.name)
  end
  if kept.seed ~= m.seed then
    err.raise("store %s: it was made with seed %d, not %d", m.directory, kept.seed, m.seed)
  end
  local now, before = m.schema or {}, kept.schema or {}
  if now.name and before.name and now.name ~= before.name then
    err.raise("store %s: it was made with schema %q, not %q", m.directory, before.name, now.name)
  end
  local loss, made_with = Store.encode { m.opt.loss or m.loss_name }, Store.encode {
    kept.options and kept.options.loss or kept.loss }
  if kept.loss ~= m.loss_name or m.opt.loss and kept.options and kept.options.loss and loss ~= made_with then
    err.raise("store %s: it was made with the loss %s, not %s", m.directory, kept.loss, m.loss_name)
  end
  local same = not (now.source_text and before.source) or now.source_text == before.source
  if now.given and before.compiled then same = compiled.same(compiled.of(now), before.compiled) end
  if not same then
    err.raise("store %s: its schema %q differs from the one given: features would get other keys. "
      .. "%s to go on with the store's, or give another store", m.directory, now.name,
      m.command and "Leave --schema out" or "Use the schema it was made with (moonrock show --source)")
  end
end

--- Reads the state of the last commit into a model that was just made, or makes the first one.
---@param m table
---@param options table read_only, allow_drop, on_notice
function commit.resume(m, options)
  local kept = m.kept
  if not kept then
    if m.read_only then err.raise("store %s: holds no model", m.directory) end
    for _, t in ipairs(m.tables) do m.store:load(t) end
    return
  end
  check_same(m, kept)
  m.dropped = layout.adapt(m, kept.layout, options)
  if m.schema and kept.schema and kept.schema.statistics then m.schema:restore(kept.schema.statistics) end
  local state, text = state_of(m), m.definition.source.text
  if not m.read_only and kept.source and text and kept.source ~= text then
    m.edited = true
    if options.on_notice then
      options.on_notice(("model %s was edited since the last commit; its tables and params are the "
        .. "same, so it goes on from step %d"):format(m.name, state.step))
    end
  end
  load(m, state)
end

--- Restores the state that `store:checkpoint(name)` kept.
---@param m table
---@param name string
function commit.restore(m, name)
  m.store:restore(name)
  load(m, state_of(m))
end

--- A copy of the store, by hard links where it can: a store of its own, in a directory that is not
--- there yet. What was not committed is committed first.
---@param m table
---@param dir string
function commit.copy(m, dir)
  if not m.store then err.raise("model %s: it has no store to copy", m.name) end
  if m.batches_since > 0 and not m.read_only then m:commit() end
  m.store:copy(dir)
end

--- Goes on to the last commit of the process that trains, in a model opened with `follow = true`.
---@param m table
---@return boolean newer whether there was one
function commit.follow(m)
  if not m.store then err.raise("model %s: it has no store to follow", m.name) end
  if not m.store:follow() and not m.stale then return false end
  m.stale = true -- until all is loaded
  m.eval_tape:reset()
  local directory = m.directory
  local function changed()
    err.raise("store %s: the description of its model changed; reopen it", directory)
  end
  if m.store:get("model") ~= m.kept_text then
    m.forward = changed
    changed()
  end
  load(m, state_of(m))
  m.stale = nil
  return true
end

return commit

--- How far a model has come in each of the data that it met. A data set of training, or a source of
-- learning, is known by its files' names, sizes and first and last bytes (runtime/data/files.c). Each has a
-- position of its own, a part of every commit: `state` has that of the data at hand,
-- `data_sets` all there are.
--
-- What is to be read of some files becomes a plan: a list of parts, each the whole of one known or new data
-- set. A file that was trained before is not trained again; one that grew is read on behind what it had.
local ffi = require "ffi"
local C = require "moonrock.ffi"
local err = require "moonrock.error"
local reader = require "moonrock.reader"

local position = {}

local MOST = 10000 -- data sets that are remembered

---@class DataSet what a model knows of some data
---@field kind "train"|"learn"
---@field files table[] { name, path, size, hash, identity }
---@field skip? integer records at the beginning that are another data set's
---@field epoch integer epochs that were read
---@field sample integer records of the epoch at hand that were read
---@field epochs? integer how many were asked for
---@field order? string in which records are read: a position in one is none in another
---@field ended? boolean a source that was read to its end
---@field finished? table why nothing more of it is trained: { why =, step =, ... }
---@field run table what a training loop needs to go on
---@field trained? integer the step at which other data took its turn

---@class Part
---@field set DataSet
---@field files string[] names for a reader
---@field sizes number[] bytes of them
---@field label string for messages

-- ---- files ------------------------------------------------------------------------------------

local function described(list)
  reader.tell_left_out(ffi.string(C.mr_files_left_out(list)))
  local files = {}
  for i = 1, tonumber(C.mr_files_count(list)) do
    local f = C.mr_files_get(list, i - 1)
    files[i] = { name = ffi.string(f.name), path = ffi.string(f.path), size = f.size, changed = f.changed,
      identity = ffi.string(f.identity) }
  end
  C.mr_files_free(ffi.gc(list, nil))
  return files
end

local function find(paths, grows)
  local strings, n = reader.strings(paths)
  return described(ffi.gc(err.check(C.mr_files_find(strings, n, grows and 1 or 0)), C.mr_files_free))
end

local function beside(path) return described(ffi.gc(err.check(C.mr_files_beside(path)), C.mr_files_free)) end

local hex = ffi.new "char[17]"

-- The hash of the first `bytes` bytes of a file, false if it has fewer.
local function hash(f, bytes)
  f.hashes = f.hashes or {}
  if f.hashes[bytes] == nil then
    f.hashes[bytes] = err.check(C.mr_file_hash(f.path, bytes, hex)) == 1 and ffi.string(hex) or false
  end
  return f.hashes[bytes]
end

local function base(path) return path:match "[^/]*$" end

-- A name without the ending of a packed file; nil for others.
local function unpacked_name(path) return path:match "(.+)%.gz$" or path:match "(.+)%.zst$" end

local plain_size = ffi.new "double[1]"

-- Whether a packed file holds the bytes that a known one had, "same", or these and more, "grown".
local function packed_relation(f, known)
  if not unpacked_name(f.path) or f.size < 0 or known.size <= 0 then return nil end
  local key = "packed " .. known.size
  f.hashes = f.hashes or {}
  if f.hashes[key] == nil then
    local has = err.check(C.mr_file_hash_unpacked(f.path, known.size, hex, plain_size)) == 1
    f.hashes[key] = has and { ffi.string(hex), plain_size[0] } or false
  end
  local found = f.hashes[key]
  if not found or found[1] ~= known.hash then return nil end
  return found[2] == known.size and "same" or "grown"
end

-- What a file is to a known one: "same", "grown" (with more behind the same bytes), "once" (a pipe of that
-- name), "changed" (of that name, with other bytes), or nil.
local function relation(f, known)
  local named = f.path == known.path
  if f.size < 0 or known.size < 0 then return named and f.size < 0 and known.size < 0 and "once" or nil end
  local kin = named or f.identity ~= "" and f.identity == known.identity
  if f.size >= known.size and (kin or f.size == known.size and base(f.path) == base(known.path))
    and hash(f, known.size) == known.hash then
    return f.size == known.size and "same" or "grown"
  end
  if unpacked_name(base(f.path)) == base(known.path) and packed_relation(f, known) then
    return packed_relation(f, known)
  end
  return named and "changed" or nil
end

-- A file as a data set remembers it.
local function remember(f)
  return { name = f.name, path = f.path, size = f.size, hash = f.size >= 0 and hash(f, f.size) or nil,
    identity = f.identity }
end

local function shown(name) return name == "-" and "standard input" or name end

-- "a.csv", "a.csv and b.csv", "7 files (a.csv to g.csv)".
local function label(files)
  local n = #files
  if n == 1 then return shown(files[1].name) end
  if n == 2 then return ("%s and %s"):format(files[1].name, files[2].name) end
  return ("%d files (%s to %s)"):format(n, files[1].name, files[n].name)
end

local function plural(n, word) return ("%d %s%s"):format(n, word, n == 1 and "" or "s") end

-- ---- what a model remembers ---------------------------------------------------------------------

--- An option as the user would write it.
---@param m table
---@param name string
---@param value any
---@return string
function position.option(m, name, value)
  if m.command then return ("--%s %s"):format(name, value) end
  return ("%s = %s"):format(name, type(value) == "string" and ("%q"):format(value) or value)
end

-- Epochs of a data set that are done; a loop that validates counts an epoch only then.
local function done(set) return set.run.done or set.epoch end

local function half_way(set)
  if set.kind == "learn" then return not set.ended and set.sample > 0 end
  if set.finished then return false end
  return set.sample > 0 or done(set) < (set.epochs or 0)
end

-- "epoch 2, record 17920".
local function place(set)
  if set.kind == "learn" then return ("record %d"):format(set.sample) end
  return ("epoch %d, record %d"):format(set.epoch + 1, set.sample)
end

-- What is at hand, from the model into its data set.
local function put_back(m)
  local set = m.data_set
  if not set then return end
  set.epoch, set.sample = tonumber(m.position.epoch), tonumber(m.position.sample)
  set.run = m.fit
end

-- The positions of the data that is not at hand, as one number: a part of the digest.
local function others(m)
  local words = {}
  for i, set in ipairs(m.data_sets) do
    if set ~= m.data_set then
      words[#words + 1] = ("%d %s %d %d"):format(i, set.kind, set.epoch, set.sample)
    end
  end
  local text = table.concat(words, "\n")
  return #words > 0 and bit.tohex(tonumber(C.mr_hash(text, #text, 0) % 2 ^ 32)) or nil
end

local function index_of(m)
  for i, set in ipairs(m.data_sets) do
    if set == m.data_set then return i end
  end
end

-- A source's file has grown meanwhile, or been read on by a name.
local function refresh(m)
  local set = m.data_set
  local known = set and set.kind == "learn" and set.files[1]
  if not known or known.size < 0 then return end
  local ok, found = pcall(find, { known.path }, true)
  local f = ok and found[1]
  if not f or f.identity ~= known.identity or f.size <= known.size or hash(f, known.size) ~= known.hash then
    return
  end
  known.size, known.hash = f.size, hash(f, f.size)
  m.files_changed = true
end

--- A file or stream that was learned from has come to its end, unless a followed one goes on in another.
---@param m table
---@param p Part
function position.ended(m, p)
  put_back(m)
  p.set.ended = true
  m.files_changed = true
  refresh(m)
  if p.follow then p.set.ended = nil end
end

--- What a commit records: into its `state`, and the record `files` if that changed.
---@param m table
---@param state table
---@return table|nil files
function position.save(m, state)
  put_back(m)
  refresh(m)
  state.epoch, state.sample = tonumber(m.position.epoch), tonumber(m.position.sample)
  state.fit, state.data, state.others = m.fit, index_of(m), others(m)
  local set = m.data_set
  if set then state.finished, state.ended = set.finished, set.ended end
  return m.files_changed and m.data_sets or nil
end

--- Takes back what was saved.
---@param m table
---@param state table
---@param files table|nil
function position.load(m, state, files)
  m.data_sets = files or {}
  m.data_set = state.data and m.data_sets[state.data] or nil
  m.position.epoch, m.position.sample = state.epoch, state.sample
  m.fit = state.fit or {}
  local set = m.data_set
  if set then
    set.finished, set.ended = state.finished, state.ended
    put_back(m)
  end
  m.files_changed = nil
end

-- Makes a data set, at its start.
local function add(kind, files, settings)
  local set = { kind = kind, files = {}, epoch = 0, sample = 0, run = {} }
  for i, f in ipairs(files) do set.files[i] = remember(f) end
  for name, value in pairs(settings or {}) do set[name] = value end
  return set
end

local function part(set, files)
  local p = { set = set, files = {}, sizes = {}, label = label(files) }
  for i, f in ipairs(files) do
    p.files[i] = f.name
    p.sizes[i] = set.kind == "train" and set.files[i].size or 0
  end
  return p
end

-- Some paths are what they were no more: their data sets, or their parts of them, are forgotten.
local function forget(m, kind, files)
  local gone = {}
  for _, f in ipairs(files) do gone[f.path] = true end
  local kept = {}
  for _, set in ipairs(m.data_sets) do
    local left = {}
    for _, known in ipairs(set.files) do
      if not (set.kind == kind and gone[known.path]) then left[#left + 1] = known end
    end
    local whole = #left == #set.files
    if not whole and set.kind == kind then m.files_changed = true end
    if whole or #left > 0 and not half_way(set) then
      set.files = left
      kept[#kept + 1] = set
    elseif set == m.data_set then
      m.data_set = nil
    end
  end
  m.data_sets = kept
end

--- Makes the data of a part the one at hand.
---@param m table
---@param p Part
function position.begin(m, p)
  put_back(m)
  local set, before = p.set, m.data_set
  if before ~= set then
    m.files_changed = true
    if before then before.trained = m.step_number end
    if before and not half_way(before) then before.run.valid, before.run.best_valid = nil, nil end
    -- What was reduced on other data is not on this; a factor that the caller gave stays.
    if set.run.lr_factor or m.step_number > 0 then m:scale_lr(set.run.lr_factor or 1) end
  end
  m.data_set = set
  if not index_of(m) then
    m.data_sets[#m.data_sets + 1] = set
    for i, old in ipairs(m.data_sets) do
      if #m.data_sets <= MOST then break end
      if old ~= set and not half_way(old) then table.remove(m.data_sets, i) end
    end
  end
  -- Other data since: the best state is not this run's.
  if before ~= set and set.trained and set.trained ~= m.step_number then
    set.run.best, set.run.best_valid, set.run.best_step, set.run.best_epoch = nil, nil, nil, nil
    set.run.waited = nil
  end
  set.ended = nil
  m.position.epoch, m.position.sample = set.epoch, set.sample
  m.fit = set.run
  if p.note then m.notice(p.note) end
end

-- ---- what there is to train ---------------------------------------------------------------------

-- Why a data set is not to be trained further, or nil. A run that ended before it went back to its best state
-- has that left to do.
local function finished(m, set, o)
  local f = set.finished
  if f and f.why == "early" then
    if o.patience and o.patience <= f.patience and (o.monitor or f.monitor) == f.monitor then return f end
  elseif f and f.why == "epochs" then
    if o.epochs <= f.epochs then return f end
  elseif f then
    return f
  end
  local best = set == m.data_set and o.best and set.run.best_step
  if best and best ~= m.step_number then return nil end
  return done(set) >= o.epochs and { why = "epochs", epochs = o.epochs } or nil
end

-- How many records the first bytes of a file are.
local function count_records(m, f, bytes)
  local list, n = reader.strings(f.name)
  local c = ffi.new "mr_reader_options"
  local sizes = ffi.new("double[1]", bytes)
  c.files, c.files_n, c.sizes, c.size, c.epochs = list, n, sizes, 1, 1
  c.format, c.fields, c.schema = m.data.format, m.data.fields_count and m.data:fields_count() or 0, m.data.c
  local records = err.check(C.mr_records_count(c))
  return tonumber(records), sizes, list -- which C reads until here
end

local function say_finished(m, sets, o)
  local list = {}
  for _, s in ipairs(sets) do
    local f, of = s.finished, label(s.set.files)
    if f.why == "early" then
      list[#list + 1] = ("%s stopped early after epoch %d, went back to step %d, and is not trained further; "
        .. "%s goes on with it"):format(of, f.epochs, f.step, position.option(m, "patience", f.patience * 2))
    elseif f.why == "epochs" then
      list[#list + 1] = ("%d of %d epochs of %s are done; %s trains one more"):format(
        math.max(f.epochs, o.epochs), o.epochs, of, position.option(m, "epochs", f.epochs + 1))
    else
      list[#list + 1] = ("%s was ended by %s at step %d; %s trains on it anew"):format(of, f.why, f.step,
        position.option(m, "from", "start"))
    end
  end
  local more = #list - 3
  if more > 0 then list = { list[1], list[2], list[3], ("and so are %d more data sets"):format(more) } end
  return "finished: " .. table.concat(list, "; ")
end

-- A known file has other bytes than before.
local function changed(m, set, f, known)
  local how = f.size < known.size and ("has shrunk from %.0f to %.0f bytes"):format(known.size, f.size)
    or "was replaced: its bytes are others"
  if half_way(set) then
    err.raise("%s: %s, and training is half-way through it (%s). Bring back what it was, or %s trains on "
      .. "what it has now", f.name, how, place(set), position.option(m, "from", "start"))
  end
  return ("%s %s since it was trained: it is new data"):format(f.name, how)
end

-- Files that have the bytes of others that were trained, under another name: they may be meant.
local function tell_twins(m, new)
  local by_hash = {}
  for _, set in ipairs(m.data_sets) do
    for _, known in ipairs(set.kind == "train" and set.files or {}) do
      if known.hash and known.size > 0 then by_hash[known.hash] = known.name end
    end
  end
  for _, f in ipairs(next(by_hash) and new or {}) do
    local twin = f.size > 0 and by_hash[hash(f, f.size)]
    if twin then m.notice(("%s holds the same as %s, which was trained before"):format(f.name, twin)) end
  end
end

-- Without those that are given twice.
local function distinct(m, found)
  local list, seen = {}, {}
  for _, f in ipairs(found) do
    local key = f.identity ~= "" and f.identity or f.path
    if seen[key] and f.size >= 0 then
      m.notice(seen[key] == f.name and ("%s is given twice: it is read once"):format(f.name)
        or ("%s is %s, given twice: it is read once"):format(f.name, seen[key]))
    else
      list[#list + 1] = f
    end
    seen[key] = seen[key] or f.name
  end
  return list
end

local function plan_train(m, found, o)
  local parts, over, replaced, covered, grown = {}, {}, {}, {}, {}
  local order = o.order
  local function consider(set, files)
    local why = finished(m, set, o)
    if why then
      over[#over + 1] = { set = set, finished = why }
      return
    end
    if set.sample > 0 and set.order ~= order then
      err.raise("%s: training is half-way through it (%s) in the order %s, not %s. Go on with the same, or "
        .. "%s trains on it anew", label(set.files), place(set), set.order or "of before", order,
        position.option(m, "from", "start"))
    end
    set.order = order
    if set.finished then
      set.note = ("%s was stopped before; goes on from step %d"):format(label(set.files), m.step_number)
      set.finished, set.run.waited, set.run.ended = nil, 0, nil
    end
    local p = part(set, files)
    local resumed = half_way(set) and (set.sample > 0 or done(set) > 0)
      and ("%s: goes on where it was left, at %s, step %d"):format(label(files), place(set), m.step_number)
    p.note, set.note = set.note or resumed or nil, nil
    parts[#parts + 1] = p
  end
  for _, set in ipairs(m.data_sets) do
    if set.kind == "train" then
      local files, all = {}, true
      for i, known in ipairs(set.files) do
        for _, f in ipairs(found) do
          local r = relation(f, known)
          local again = r == "once" and not half_way(set) -- what is read once is other data each time
          if r == "changed" then
            replaced[f] = { set = set, known = known }
          elseif r and not again then
            replaced[f] = nil
            files[i] = f
            if r == "grown" and f.size < known.size then
              err.raise("%s: holds what %s had when it was trained, and more: unpack it, so that it can be "
                .. "read on from there", f.name, known.name)
            end
            if r == "grown" then grown[f] = math.max(grown[f] or 0, known.size) else grown[f] = -1 end
            break
          end
        end
        all = all and files[i] ~= nil
      end
      if all then
        for _, f in ipairs(files) do covered[f] = true end
        consider(set, files)
      elseif next(files) and done(set) == 0 and set.sample > 0 then
        local _, f = next(files)
        err.raise("%s: training is half-way through %s (%s), in the order of them all. Give them all to go "
          .. "on, or %s trains on %s anew", f.name, label(set.files), place(set),
          position.option(m, "from", "start"), f.name)
      elseif next(files) and done(set) > 0 then -- some files of those trained together
        local some = {}
        for i in ipairs(set.files) do
          if files[i] then
            some[#some + 1] = files[i]
            covered[files[i]] = true
          end
        end
        local epoch = done(set)
        consider(add("train", some, { epoch = epoch, run = { done = epoch } }), some)
      end
    end
  end
  local new = {}
  for _, f in ipairs(found) do
    local before = replaced[f]
    if before and not covered[f] then m.notice(changed(m, before.set, f, before.known)) end
    if not covered[f] then new[#new + 1] = f end
  end
  forget(m, "train", (function()
    local list = {}
    for f in pairs(replaced) do
      if not covered[f] then list[#list + 1] = f end
    end
    return list
  end)())
  for _, f in ipairs(found) do
    local before = covered[f] and grown[f] or -1
    if before >= 0 then
      local records = count_records(m, f, before)
      local p = part(add("train", { f }, { skip = records, order = order }), { f })
      p.label = ("%s from record %d on"):format(f.name, records)
      p.note = ("%s has grown since it was trained: what is behind record %d is new to this store")
        :format(f.name, records)
      parts[#parts + 1] = p
    end
  end
  if #new > 0 then
    local p = part(add("train", new, { order = order }), new)
    tell_twins(m, new)
    if m.step_number > 0 or #m.data_sets > 0 then
      local rest = #found - #new
      local known = rest > 0 and (" (%s known)"):format(rest == 1 and "1 other is" or rest .. " others are")
      p.note = ("%s %s new to this store%s: goes on from step %d"):format(p.label,
        #new == 1 and "is" or "are", known or "", m.step_number)
    end
    parts[#parts + 1] = p
  end
  for _, p in ipairs(parts) do p.set.epochs = o.epochs end
  if #parts == 0 then return parts, say_finished(m, over, o) end
  return parts
end

-- ---- what there is to learn ---------------------------------------------------------------------

-- Where the file that a source was is now, if it was renamed, and those that came between it and the new one.
local function renamed(f, known)
  local old, between
  for _, g in ipairs(beside(f.path)) do
    if g.size >= known.size and known.size > 0 and hash(g, known.size) == known.hash
      or packed_relation(g, known) then
      old = g
    end
  end
  if not old then return nil, {} end
  between = {}
  local name = base(f.path)
  for _, g in ipairs(beside(f.path)) do
    local ending = base(unpacked_name(g.path) or g.path):sub(#name + 1)
    if g.path ~= old.path and g.size > 0 and g.changed >= old.changed and ending:find "^[._-]%d[%d._-]*$" then
      between[#between + 1] = g
    end
  end
  table.sort(between, function(a, b)
    if a.changed ~= b.changed then return a.changed < b.changed end
    local x = tonumber((unpacked_name(a.path) or a.path):match "%d+$") or 0
    local y = tonumber((unpacked_name(b.path) or b.path):match "%d+$") or 0
    return x > y
  end)
  return old, between
end

local function plan_learn(m, found, o)
  local parts, over = {}, {}
  local function read_on(set, f)
    local p = part(set, { f })
    parts[#parts + 1] = p
    return p
  end
  for i, f in ipairs(found) do
    local set, r, other
    for _, s in ipairs(m.data_sets) do
      local now = s.kind == "learn" and relation(f, s.files[1])
      if now == "changed" then other = s elseif now then set, r = s, now end
    end
    if set then
      if r == "same" and set.ended and not (o.follow and i == #found) then
        over[#over + 1] = set
      else
        if r == "grown" then set.files[1] = remember(f) end
        local p = read_on(set, f)
        if set.sample > 0 then
          p.note = ("%s: goes on behind record %d, step %d"):format(shown(f.name), set.sample, m.step_number)
          if f.size < 0 then p.note = ("%s; its first record is taken for the next"):format(p.note) end
        end
      end
    else
      local note
      if other then
        local known = other.files[1]
        if f.identity == known.identity then
          err.raise("%s: %s since it was read up to record %d: it was truncated, and what was written to it "
            .. "since then may be lost. %s goes on with what it has now", f.name,
            f.size < known.size and ("has shrunk from %.0f to %.0f bytes"):format(known.size, f.size)
              or "was overwritten", other.sample, position.option(m, "from", "start"))
        end
        local old, between = renamed(f, known)
        local record = other.sample
        if old then
          other.files[1] = remember(old)
          old.name = old.path
          read_on(other, old).note = ("%s was rotated: goes on in %s behind record %d"):format(f.name,
            old.path, record)
          for _, g in ipairs(between) do
            g.name = g.path
            read_on(add("learn", { g }), g).note = ("then in %s from its start"):format(g.path)
          end
          note = ("then in %s from its start"):format(f.name)
        else
          forget(m, "learn", { f })
          note = ("%s is another file than the one that was read up to record %d: begins at its start")
            :format(f.name, record)
        end
      elseif m.step_number > 0 or #m.data_sets > 0 then
        note = ("%s is new to this store: goes on from step %d"):format(shown(f.name), m.step_number)
      end
      read_on(add("learn", { f }), f).note = note
    end
  end
  if #parts > 0 then return parts end
  local records = 0
  for _, set in ipairs(over) do records = records + set.sample end
  local files = {}
  for i, set in ipairs(over) do files[i] = set.files[1] end
  return parts, ("finished: %s of %s %s learned, nothing is new; %s learns from %s again"):format(
    plural(records, "record"), label(files), records == 1 and "is" or "are",
    position.option(m, "from", "start"), #files == 1 and "it" or "them")
end

-- ---- plans ------------------------------------------------------------------------------------

-- The order of records by the options of a reader.
local function order_of(o)
  local words = {}
  local window = reader.window(o)
  words[1] = window == 0 and "as they come" or window < 0 and "of a full shuffle"
    or ("of a window of %d"):format(window)
  if o.split then
    words[2] = o.split.folds and ("without fold %d of %d"):format(o.split.fold, o.split.folds)
      or ("without %g held out"):format(o.split.fraction)
  end
  return table.concat(words, " ")
end

--- What is to be read of some files, from where on. Says what was left half-way.
---@param m table
---@param kind "train"|"learn"
---@param files string|string[] a part of the schema ("train"), or files
---@param o table epochs, patience, monitor, from = "start", follow, and those of a reader
---@return Part[] parts none: nothing is left of them
---@return string|nil reason why there is none
function position.plan(m, kind, files, o)
  if not m.data then err.raise("model %s: it was given no schema or data", m.name) end
  local found = distinct(m, find(m.data:paths(files), o.follow))
  put_back(m)
  if o.from == "start" then forget(m, kind, found) end
  local settings = setmetatable({ epochs = o.epochs or 1, order = kind == "train" and order_of(o) or nil },
    { __index = o })
  local parts, reason = (kind == "train" and plan_train or plan_learn)(m, found, settings)
  local here, left = {}, {}
  for _, p in ipairs(parts) do here[p.set] = true end
  for _, set in ipairs(m.data_sets) do
    if #parts > 0 and set.kind == kind and not here[set] and half_way(set) then left[#left + 1] = set end
  end
  for i = math.max(1, #left - 2), #left do
    local set = left[i]
    m.notice(("%s: left half-way, at %s; given as data again, training goes on there"):format(
      label(set.files), place(set)))
  end
  return parts, reason
end

--- The options of a reader for a part, which starts where the model is in it.
---@param m table
---@param p Part
---@param o table of a reader, and those of a plan
---@return table
function position.reader_options(m, p, o)
  local options = {}
  for name, value in pairs(o) do options[name] = value end
  options.patience, options.monitor = nil, nil
  options.sizes, options.skip = p.sizes, p.set.skip or o.skip
  options.from = { epoch = tonumber(m.position.epoch), sample = tonumber(m.position.sample) }
  options.follow = p.follow
  return options
end

-- ---- for people ---------------------------------------------------------------------------------

--- The data that a model has met, for people.
---@param m table
---@return table[]
function position.list(m)
  put_back(m)
  local list = {}
  for i, set in ipairs(m.data_sets) do
    list[i] = { name = label(set.files), kind = set.kind, epoch = set.kind == "train" and set.epoch or nil,
      samples = set.sample, finished = set.finished and set.finished.why or nil }
  end
  return list
end

return position

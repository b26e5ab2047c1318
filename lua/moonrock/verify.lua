--- Reads all of a store, and of the states kept in it, and names what is wrong (runtime/exchange/verify.c).
local ffi = require "ffi"
local json = require "moonrock.json"
local C = require "moonrock.ffi"
local err = require "moonrock.error"
local export = require "moonrock.export"
local Store = require "moonrock.store"

-- Calls work(...) and keeps what it raises as a problem.
local function try(problems, work, ...)
  local ok, result = pcall(work, ...)
  if ok then return result end
  problems[#problems + 1] = (tostring(result):gsub("^moonrock/[%w_/]+%.lua:%d+: ", ""))
end

local function each(read, v)
  local i = -1
  return function()
    i = i + 1
    local text = read(v, i)
    if text ~= nil then return ffi.string(text) end
  end
end

-- Named records against the model: those of params, and what the state says of the step.
local function check_names(store, kept, v, problems)
  local params = {}
  for _, p in ipairs(kept.layout.params) do params[p.name] = "missing" end
  for name in each(C.mr_verification_name, v) do
    local param = name:match("^param/(.*)$")
    if param and not params[param] then
      problems[#problems + 1] = ("store %s: record %s: belongs to no param of the model"):format(
        store.dir, name)
    elseif param then
      params[param] = "there"
    end
  end
  for _, p in ipairs(kept.layout.params) do
    if params[p.name] == "missing" then
      problems[#problems + 1] = ("store %s: param %s of the model has no record"):format(store.dir, p.name)
    end
  end
  local state, step = json.decode(store:get "state" or ""), store:info().commit.step
  if type(state) ~= "table" then
    problems[#problems + 1] = ("store %s: record state: cannot be read"):format(store.dir)
  elseif state.step ~= step then
    problems[#problems + 1] = ("store %s: record state: is of step %s, the last commit of step %d"):format(
      store.dir, tostring(state.step), step)
  end
end

-- Verifies the store of one directory; tables: its tables, or nil: by its description.
local function verify_one(dir, report, tables)
  local problems = report.problems
  local store = try(problems, Store.open, dir, "read")
  if not store then return end
  local info = store:info()
  report.commit, report.bytes = info.commit, info.bytes
  local kept
  if not tables then
    kept = try(problems, function()
      if info.commit.number > 0 or store:get "model" then return export.description(store) end
    end)
    tables = kept and try(problems, export.tables, kept)
  end
  local list, n = export.pointers(tables or {})
  local v = try(problems, function() return err.check(C.mr_store_verify(store.c, list, n)) end)
  if v then
    report.commits = C.mr_verification_commits(v)
    report.tables = {}
    for i, t in ipairs(tables or {}) do
      report.tables[i] = { name = t.name, rows = C.mr_verification_rows(v, t.id) }
    end
    for text in each(C.mr_verification_problem, v) do
      local told = not kept and not tables and text:match("belongs to") -- no description, said already
      if not told then problems[#problems + 1] = text end
    end
    if kept and tables then try(problems, check_names, store, kept, v, problems) end
    C.mr_verification_free(v)
  end
  if kept and tables then export.free(tables) end
  store:close()
end

-- Directories of the states that are kept: of one name, the one with the largest number counts.
local function kept_states(dir)
  local latest, order = {}, {}
  for path in each(C.mr_store_kept, dir) do
    local name, number = path:match("([^/]+)%.(%d+)$")
    if name then
      if not latest[name] then order[#order + 1] = name end
      if not latest[name] or tonumber(number) > latest[name].number then
        latest[name] = { number = tonumber(number), path = path }
      end
    end
  end
  local i = 0
  return function()
    i = i + 1
    if order[i] then return order[i], latest[order[i]].path end
  end
end

--- Verifies a store. Others may train meanwhile.
---@param dir string
---@param tables table[]|nil its tables, if its model does not tell
---@return table { problems = string[], tables =, commits =, commit =, bytes =, kept = }
return function(dir, tables)
  if type(dir) ~= "string" then err.raise("mr.verify: expected a directory, got %s", err.show(dir)) end
  local report = { store = dir, problems = {}, kept = {} }
  verify_one(dir, report, tables)
  for name, path in kept_states(dir) do
    local kept = { name = name, problems = report.problems }
    verify_one(path, kept, tables)
    kept.problems = nil
    report.kept[#report.kept + 1] = kept
  end
  return report
end

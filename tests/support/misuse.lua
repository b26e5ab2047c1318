-- luacheck: no max line length
--- Scripts that misuse the library, a line each: what it is called, the line, and what its error says after
-- "misuse.lua:2: " (`true`: it is legal, and ends well). They run after `prelude`, beside a.libsvm (300
-- samples), uneven.libffm (few samples of many entries, then many of one; 5 fields), cat.csv and cat.lua.
local misuse = {}

misuse.prelude = [[
io.stdout:setvbuf "no"
mr = require "moonrock"
STORE = arg[0] .. ".store"
function declare(m)
  local t = m:table("t", { w = { dim = 1 }, v = { dim = 4, init = mr.init.normal(0.1) } })
  local p = m:param("b", { 1 })
  return function(x) local r = t(x) return p + r.w:sum() + mr.fm(r.v) end
end
function new(o, f) return mr.model("M", f or declare)(o or {}) end
function stored(o) o = o or {} o.store, o.data = STORE, mr.data { files = "a.libsvm" } return new(o) end
function kept() local m = stored() m:commit() m:close() end
function batches(o) return mr.data { files = "a.libsvm" }:batches(nil, o or { size = 100 }) end
function train(m, b) local l = mr.bce(m(b), b.label) l:backward() m:step() return l end
function op(forward, backward) return mr.operation { name = "mine", forward = forward, backward = backward } end
function rule(update, state)
  local o = mr.optimizer { name = "mine", lr = 1, state = state or 1, update = update }
  return new({}, function(m)
    local t = m:table("t", { w = { dim = 4, optim = o } })
    return function(x) return t(x).w:sum():sum(2) end
  end)
end
function dense(update)
  local o = mr.optimizer { name = "mine", lr = 1, update = update }
  return new({}, function(m)
    local t, p = m:table("t", { w = { dim = 1 } }), m:param("p", { 1 }, { optim = o })
    return function(x) return t(x).w:sum() * p + p end
  end)
end
function collect() for _ = 1, 4 do collectgarbage() end end
function metatable(x) return debug.getmetatable(x) end
]]

local function group(title, list)
  for _, s in ipairs(list) do
    misuse[#misuse + 1] = { name = title .. ": " .. s[1], code = s[2], expected = s[3], anywhere = s[4] }
  end
end

local CLOSED = "batches: they were closed; open them again"
local OVER = "batch: its iterator was closed"
local GONE = "model M: it was closed; make it again"

group("batches", {
  { "a batch after close", "local m, it = new(), batches() local b = it() it:close() m(b)", OVER },
  { "its label", "local m, it = new(), batches() local b = it() local y = m(b) it:close() mr.bce(y, b.label)",
    OVER },
  { "its label, taken before", "local m, it = new(), batches() local b = it() local y, l = m(b), b.label "
    .. "it:close() mr.bce(y, l)", OVER },
  { "backward after close", "local m, it = new(), batches() local b = it() local l = mr.bce(m(b), b.label) "
    .. "it:close() l:backward()", "its batch is over" },
  { "a step after close", "local m, it = new(), batches() local b = it() local l = mr.bce(m(b), b.label) "
    .. "l:backward() it:close() m:step()", true },
  { "a score after close", "local m, it = new(), batches() local y = m(it()) it:close() print(y:get(1, 1))", true },
  { "its keys", "local it = batches() local b = it() it:close() b:keys(1)", OVER },
  { "batch.weight", "local m, it = new(), batches() local b = it() local y = m(b) it:close() mr.bce(y, b.weight)",
    OVER },
  { "the next one after close", "local it = batches() it:close() it()", CLOSED },
  { "a loop that goes on after close", "local it = batches() for b in it do it:close() end", CLOSED },
  { "close twice", "local it = batches() it:close() it:close()", true },
  { "skipped after close", "local it = batches() it:close() it:skipped()", CLOSED },
  { "progress after close", "local it = batches() it:close() it:progress()", CLOSED },
  { "where after close", "local it = batches() it() it:close() it:where(1)", CLOSED },
  { "where beyond", "local it = batches() it() it:where(1e9)", "of a batch of 100" },
  { "a batch whose iterator is collected", "local m = new() local b = (function() return batches()() end)() "
    .. "collect() for _ = 1, 100 do local _ = ('y'):rep(1e5) end m(b) print(b.n)", true },
  { "a batch whose schema is collected", "local m = new() local b = (function() local s = dofile 'cat.lua' "
    .. "return s:batches('cat.csv')() end)() collect() m(b) b:keys 'c'", true },
  { "the next one before backward", "local m = new({}, function(m) local t = m:table('t', { v = { dim = 4 } }) "
    .. "return function(x) return t(x).v:max():sum(2, true) end end) "
    .. "local it = mr.data { files = 'uneven.libffm', fields = 5 }:batches(nil, { size = 10 }) "
    .. "local b = it() local l = mr.bce(m(b), b.label) it() l:backward()", "its batch is over" },
  { "pooling after the next one", "local r local m = new({}, function(m) local t = m:table('t', { v = { dim = 4 } }) "
    .. "return function(x) r = t(x) return r.v:sum():sum(2, true) end end) "
    .. "local it = batches() m(it()) it() r.v:sum()", "its batch is over" },
  { "pooling after close", "local r local m = new({}, function(m) local t = m:table('t', { v = { dim = 4 } }) "
    .. "return function(x) r = t(x) return r.v:sum():sum(2, true) end end) "
    .. "local it = batches() m(it()) it:close() r.v:max()", "its batch is over" },
  { "the batch after the end", "local m, it, b = new(), batches() for x in it do b = x end m(b)", true },
  { "accumulation over batches", "local m, it = new(), batches() for b in it do mr.bce(m(b), b.label):backward() "
    .. "end m:step()", true },
  { "a number for a batch", "new()(5)", "model M: expected a batch, got number" },
  { "nil for a batch", "new()(nil)", "model M: expected a batch, got nil" },
  { "an iterator for a batch", "new()(batches())", "expected a batch, got table" },
  { "a batch made up", "new()({ c = 5, n = 1 })", "expected a batch" },
  { "a batch without a batch", "new()({ c = {}, n = 1 })", "expected a batch" },
  { "a label made up", "local m, it = new(), batches() local b = it() mr.bce(m(b), { batch = {}, name = 'label' })",
    "NULL" },
  { "keys of a field that is not there", "local it = batches() local b = it() local m = new() local y = m(b) "
    .. "mr.metrics({ group = 99 }):add(y, b.label)", "field" },
  { "a size of 0", "batches { size = 0 }", "batch size: 0 is out of range" },
  { "a huge size", "batches { size = 1e9 }", "batch size: 1000000000 is out of range" },
  { "a size that is no number", "batches { size = 'x' }", "cannot convert" },
  { "a negative window", "batches { window = -5, shuffle = true }", "window" },
  { "a huge window", "local n = 0 for b in batches { window = 2^62, shuffle = true } do n = n + b.n end print(n)",
    "" },
  { "a negative skip", "local it = batches { skip = -5 } it()", "" },
  { "negative epochs", "batches { epochs = -1 }", "epochs" },
  { "a split that is none", "batches { split = 5 }", "split" },
  { "a position that is none", "batches { from = 5 }", "" },
  { "files that are a number", "mr.data { files = 5 }:batches()", "" },
  { "files that are a table of tables", "mr.data { files = { {} } }:batches()", "expected a list of strings" },
  { "no files", "mr.data {}:batches()", "no files were given" },
  { "an empty list of files", "mr.data { files = {} }:batches()", "" },
  { "a file that is not there", "mr.data { files = 'nothing' }:batches()()", "nothing" },
  { "negative fields", "mr.data { files = 'a.libsvm', fields = -5 }:batches()()", "fields" },
  { "huge fields", "mr.data { files = 'a.libsvm', fields = 1e9 }:batches()()", "fields" },
})

group("models", {
  { "called after close", "local m, it = new(), batches() m:close() m(it())", GONE },
  { "stepped after close", "local m = new() m:close() m:step()", GONE },
  { "info after close", "local m = new() m:close() m:info()", GONE },
  { "committed after close", "local m = stored() m:close() m:commit()", GONE },
  { "batches after close", "local m = stored() m:close() m:batches('train', {})", GONE },
  { "restored after close", "local m = stored() m:close() m:restore('x')", GONE },
  { "shrunk after close", "local m = stored() m:close() m:shrink { min_count = 2 }", GONE },
  { "exported after close", "local m = stored() m:close() m:export('x.tsv')", "" },
  { "a field set after close", "local m = new() m:close() m.on_nan = 'skip'", GONE },
  { "closed twice", "local m = stored() m:close() m:close()", true },
  { "closed within a step", "local m, it = new(), batches() local b = it() local l = mr.bce(m(b), b.label) m:close() "
    .. "l:backward()", "" },
  { "a score after close", "local m, it = new(), batches() local y = m(it()) m:close() y:value()",
    "step that is over" },
  { "iterator closed after its model", "local m = stored() local it = m:batches('train', {}) it() m:close() "
    .. "it:close()", true },
  { "iterator goes on after its model", "local m = stored() local it = m:batches('train', {}) it() m:close() it()",
    GONE },
  { "collected with all it has", "do local m = stored() train(m, batches()()) m:commit_behind() end collect()", true },
  { "collected, its tensor kept", "local y = (function() local m = new() return m(batches()()) end)() collect() "
    .. "print(y:get(1, 1))", true },
  { "collected before its iterator", "local it = (function() return stored():batches('train', {}) end)() collect() "
    .. "it() collect() it() it:close()", true },
  { "a step without a batch", "new():step()", true },
  { "a step twice", "local m = new() train(m, batches()()) m:step()", true },
  { "backward twice", "local m, b = new(), batches()() local l = mr.bce(m(b), b.label) l:backward() l:backward() "
    .. "m:step()", true },
  { "backward after its step", "local m = new() local l = train(m, batches()()) l:backward()", "step that is over" },
  { "skip without a batch", "new():skip()", true },
  { "a table declared late", "new():table('late', { w = { dim = 1 } })", "comes too late" },
  { "a param declared late", "new():param('late', { 1 })", "comes too late" },
  { "a name taken", "new({}, function(m) m:param('a', { 1 }) m:param('a', { 1 }) end)", "the name \"a\" is taken" },
  { "a name that is none", "new({}, function(m) m:table(nil, {}) end)", "table name \"nil\"" },
  { "a function that returns nothing", "new({}, function() end)", "its function returned nothing", 1 },
  { "closed while it is made", "new({}, function(m) m:close() return function() end end)", GONE },
  { "called while it is made", "new({}, function(m) m(batches()()) return function() end end)", "before it is made" },
  { "stepped while it is made", "new({}, function(m) m:step() return function() end end)", "" },
  { "closed in its function", "local m m = new({}, function(n) local t = n:table('t', { w = { dim = 1 } }) "
    .. "return function(x) local r = t(x) m:close() return r.w:sum() end end) m(batches()())", "" },
  { "stepped in its function", "local m m = new({}, function(n) local t = n:table('t', { w = { dim = 1 } }) "
    .. "return function(x) local r = t(x) m:step() return r.w:sum() end end) m(batches()())", "look it up again" },
  { "called in its function", "local m m = new({}, function(n) local t = n:table('t', { w = { dim = 1 } }) "
    .. "return function(x) return t(x).w:sum() + m(x) end end) m(batches()())", "stack overflow", 1 },
  { "its iterator closed in its function", "local it = batches() local m = new({}, function(n) "
    .. "local t = n:table('t', { w = { dim = 1 } }) return function(x) local r = t(x) it:close() "
    .. "return r.w:sum() end end) m(it())", "its batch is over" },
  { "the next batch in its function", "local it = batches() local m = new({}, function(n) "
    .. "local t = n:table('t', { w = { dim = 1 } }) return function(x) local r = t(x) it() "
    .. "return r.w:sum() end end) m(it())", "its batch is over" },
  { "options that are none", "mr.model('M', declare)(5)", "" },
  { "an option without a name", "mr.model('M', declare) { 5 }", "options are named" },
  { "negative threads", "new { threads = -5 }", "threads" },
  { "huge threads", "new { threads = 1e9 }", "threads" },
  { "no memory", "new { memory = 1 }", "less than it needs" },
  { "memory that is none", "new { memory = {} }", "memory" },
  { "a store that is a number", "new { store = 5 }", "expected a directory" },
  { "a store that is a file", "new { store = 'a.libsvm' }", "a.libsvm" },
  { "a seed that is none", "new { seed = {} }", "" },
  { "a schedule that is none", "new { schedule = {} }", "" },
  { "an optimizer that is none", "new { optim = 5 }", "expected an optimizer" },
  { "a rate that is none", "new { lr = {} }", "lr is" },
  { "a loss that is none", "new { loss = 5 }", "loss" },
  { "scale_lr of nothing", "new():scale_lr()", "" },
  { "tapes freed by hand", "local m = new() m.train_tape:free() m(batches()())", "tapes" },
  { "tapes reset by hand", "local m, b = new(), batches()() local l = mr.bce(m(b), b.label) l:backward() "
    .. "m.train_tape:reset() m:step() m(b)", true },
  { "restore of nothing", "stored():restore()", "restore" },
  { "restore of a number", "stored():restore(5)", "restore" },
  { "restore outside of it", "stored():restore('../..')", "expected letters" },
  { "restore of what is not kept", "stored():restore('none')", "no state is kept as none" },
  { "restore within a step", "local m, b = stored(), batches()() m:commit() m.store:checkpoint 'k' local l = mr.bce(m(b), "
    .. "b.label) m:restore('k') l:backward()", "step that is over" },
  { "checkpoint before a commit", "stored().store:checkpoint 'k'", "holds no commit yet" },
  { "steps after restore", "local m, b = stored(), batches()() m:commit() m.store:checkpoint 'k' train(m, b) m:restore('k') "
    .. "train(m, b) m:commit()", true },
  { "a copy to nowhere", "stored():checkpoint()", "copy: expected a text, got nil" },
  { "a copy to nothing", "stored():checkpoint('')", "" },
  { "a copy onto itself", "stored():checkpoint(STORE)", "" },
  { "a copy that cannot be", "stored():checkpoint('/proc/x')", "/proc" },
  { "refresh of what is not followed", "stored():refresh()", "follow" },
  { "shrink by nothing", "stored():shrink(5)", "" },
  { "shrink by nonsense", "stored():shrink { min_count = {} }", "" },
})

group("tables", {
  { "rows after the model's close", "local m = new() local t = m.tables[1] m:close() t:rows()", GONE },
  { "looked up after the model's close", "local m, b = new(), batches()() local t = m.tables[1] m:close() t(b)",
    GONE },
  { "peeked into after the model's close", "local m = new() local t = m.tables[1] m:close() t:peek(1, 'w')", GONE },
  { "freed by hand", "new().tables[1]:free()", "which frees it when it is closed" },
  { "freed by hand, within a step", "local m, b = new(), batches()() mr.bce(m(b), b.label):backward() "
    .. "m.tables[1]:free()", "which frees it" },
  { "looked up outside of a model", "local m = new() m.tables[1](batches()())", "outside of a model's function" },
  { "looked up with a number", "local t new({}, function(m) t = m:table('t', { w = { dim = 1 } }) "
    .. "return function() return t(5) end end)(batches()())", "expected a batch, got number" },
  { "a column that is not there", "new().tables[1]:peek(1, 'zz')", "has no column" },
  { "a key that is none", "new().tables[1]:peek({}, 'w')", "" },
  { "a column of a step that is over", "local r local m = new({}, function(m) local t = m:table('t', { w = { dim = 1 "
    .. "} }) return function(x) r = t(x) return r.w:sum() end end) local it = batches() train(m, it()) r.w:sum()",
    "look it up again" },
  { "arithmetic on a column", "local m = new({}, function(m) local t = m:table('t', { w = { dim = 1 } }) "
    .. "return function(x) return t(x).w + 1 end end) m(batches()())", "pool it first" },
  { "a column made up", "local r local m = new({}, function(m) local t = m:table('t', { w = { dim = 1 } }) "
    .. "return function(x) r = t(x).w return r:sum() end end) m(batches()()) "
    .. "setmetatable({ tape = r.tape, generation = r.generation, lookup = 1e6, index = 0 }, getmetatable(r)):sum()",
    "lookup" },
  { "a place of a column made up", "local r local m = new({}, function(m) local t = m:table('t', { w = { dim = 1 } }) "
    .. "return function(x) r = t(x).w return r:sum() end end) m(batches()()) "
    .. "setmetatable({ tape = r.tape, generation = r.generation, lookup = 0, index = 99 }, getmetatable(r)):sum()",
    "column 99" },
  { "a sequence of a negative length", "local m = new({}, function(m) local t = m:table('t', { w = { dim = 1 } }) "
    .. "return function(x) return t(x).w:sequence(1, -5) end end) "
    .. "m(mr.data { files = 'uneven.libffm', fields = 5 }:batches()())", "" },
  { "a huge sequence", "local m = new({}, function(m) local t = m:table('t', { w = { dim = 1 } }) "
    .. "return function(x) return t(x).w:sequence(1, 2^31 - 1) end end) "
    .. "m(mr.data { files = 'uneven.libffm', fields = 5 }:batches()())", true },
  { "a sequence of a field that is not there", "local m = new({}, function(m) local t = m:table('t', { w = { dim = 1 "
    .. "} }) return function(x) return t(x).w:sequence(99, 5) end end) "
    .. "m(mr.data { files = 'uneven.libffm', fields = 5 }:batches()())", "field 99" },
  { "columns that are a number", "new({}, function(m) m:table('t', 5) end)", "expected columns" },
  { "a column that is a number", "new({}, function(m) m:table('t', { w = 5 }) end)", "is a number" },
  { "a dim of 0", "new({}, function(m) m:table('t', { w = { dim = 0 } }) end)", "dim 0" },
  { "a dim that is none", "new({}, function(m) m:table('t', { w = { dim = 0 / 0 } }) end)", "dim" },
  { "a huge dim", "new({}, function(m) m:table('t', { w = { dim = 1e9 } }) end)", "dim 1000000000" },
  { "a column without a name", "new({}, function(m) m:table('t', { { dim = 1 } }) end)", "" },
  { "too many columns", "local c = {} for i = 1, 40 do c['c' .. i] = { dim = 1 } end "
    .. "new({}, function(m) m:table('t', c) end)", "40 columns" },
  { "an initializer that is none", "new({}, function(m) m:table('t', { w = { dim = 1, init = 5 } }) end)",
    "expected an initializer" },
  { "an initializer made up", "new({}, function(m) m:table('t', { w = { dim = 1, init = { kind = 99, a = 1, b = 2 } } "
    .. "}) end)", "initializer 99 is unknown" },
  { "values that are not there", "new({}, function(m) m:table('t', { w = { dim = 1, init = { kind = 4, a = 0, b = 0 "
    .. "} } }) end)", "without the values" },
  { "an initializer of no numbers", "new({}, function(m) m:table('t', { w = { dim = 1, init = mr.init.normal(0 / 0) "
    .. "} }) end)", "" },
  { "admission that is none", "new({}, function(m) m:table('t', { w = { dim = 1, admit = -1 } }) end)", "count is -1" },
  { "admission of too many keys", "new({}, function(m) m:table('t', { w = { dim = 1, admit = 3 } }, { admission = { "
    .. "keys = 1e18 } }) end)", "" },
  { "a negative time to live", "new({}, function(m) m:table('t', { w = { dim = 1 } }, { ttl = -5 }) end)", "ttl" },
})

group("params", {
  { "a weight below the first", "new().params[1]:weight(0)", "weight 0, expected a number from 1 to 1" },
  { "a weight beyond the last", "new().params[1]:weight(1e9)", "weight 1000000000, expected" },
  { "a weight that is no number", "new().params[1]:weight({})", "expected a number from 1 to 1" },
  { "a weight of a shape changed by hand", "local p = new().params[1] p.shape[1] = 1e6 p:weight(5)", "from 1 to 1" },
  { "gradcheck of a shape changed by hand", "local p = new().params[1] p.shape[1] = 1e6 "
    .. "mr.gradcheck(function(x) return x:sum() end, { p })", "from 1 to 1" },
  { "loaded from nothing", "new().params[1]:load()", "expected bytes" },
  { "loaded from rubbish", "new().params[1]:load('x')", "param b: 1 bytes" },
  { "a shape of nothing", "new({}, function(m) m:param('p', {}) end)", "expected a shape" },
  { "a shape of 0", "new({}, function(m) m:param('p', { 0 }) end)", "dimension 1 is 0" },
  { "a huge shape", "new({}, function(m) m:param('p', { 1e6, 1e6 }) end)", "too large" },
  { "a shape beyond memory", "new({ memory = '1GB' }, function(m) m:param('p', { 1e9 }) end)", "MB at once" },
  { "a shape of too many", "new({}, function(m) m:param('p', { 1, 1, 1, 1, 1 }) end)", "expected a shape" },
  { "a shape of no numbers", "new({}, function(m) m:param('p', { 'x' }) end)", "dimension 1" },
  { "a name that is none", "new({}, function(m) m:param({}, { 1 }) end)", "param name" },
  { "kept after its model", "local p = (function() return new().params[1] end)() collect() print(p:weight(1))", true },
  { "used without a tape", "local p = new().params[1] print(p + 1)", "" },
})

group("stores", {
  { "closed by hand", "stored().store:close()", "which closes it when it is closed" },
  { "info after close", "local m = stored() local s = m.store m:close() s:info()", GONE },
  { "closed twice", "local m = stored() local s = m.store m:close() s:close() s:close()", true },
  { "get after close", "local m = stored() local s = m.store m:close() s:get('model')", GONE },
  { "get of nothing", "stored().store:get()", "" },
  { "put without a commit", "stored().store:put('a', 'b')", "no commit was begun" },
  { "put of more than there is", "local s = stored().store s:begin() s:put('a', 'b', 1e6)", "of a string of 1" },
  { "put of less than nothing", "local s = stored().store s:begin() s:put('a', 'b', -1)", "of a string of 1" },
  { "put of nothing", "local s = stored().store s:begin() s:put('a')", "expected a name and bytes" },
  { "a table that is none", "local s = stored().store s:begin() s:put_table({})", "NULL" },
  { "a tensor for a table", "local m = stored() m.store:begin() m.store:put_table(m.params[1])", "cannot convert" },
  { "another store's table", "local m = stored() local n = mr.model('N', declare) { store = STORE .. '2' } "
    .. "m.store:begin() m.store:put_table(n.tables[1])", "another store" },
  { "a commit that is never ended", "local s = stored().store s:begin() s:put('a', 'b')", true },
  { "a closed model's table in a commit", "local m = stored() local n = new() local t = n.tables[1] n:close() "
    .. "m.store:begin() m.store:put_table(t)", GONE },
  { "checkpoint outside of it", "stored().store:checkpoint('../x')", "expected letters" },
  { "checkpoint of no name", "stored().store:checkpoint()", "" },
  { "opened from nothing", "require('moonrock.store').open()", "expected a directory" },
  { "opened in no mode", "require('moonrock.store').open(STORE, 'zz')", "zz" },
  { "exported from nothing", "mr.export()", "expected a directory" },
  { "exported to nothing", "kept() mr.export(STORE)", "" },
  { "exported to a number", "kept() mr.export(STORE, 5)", "" },
  { "exported in no format", "kept() mr.export(STORE, 'x', { format = 'zz' })", "zz" },
  { "exported to a directory", "kept() mr.export(STORE, '.')", "" },
  { "exported since never", "kept() mr.export(STORE, 'o.bin', { since = {} })", "" },
  { "exported tables that are none", "kept() mr.export(STORE, 'o.bin', { tables = { 'x' } })",
    'has no table "x"' },
  { "imported from nothing", "mr.import(STORE)", "" },
  { "verified: nothing", "mr.verify()", "expected a directory" },
  { "verified: a number", "print(mr.verify(5))", "expected a directory" },
  { "reopened from nothing", "mr.reopen()", "expected a directory" },
  { "reopened from what is none", "mr.reopen('nothing')", "nothing" },
})

group("tensors", {
  { "used after its step", "local m, it = new(), batches() local y = m(it()) m:step() y:value()",
    "step that is over" },
  { "its array after its step", "local m, it = new(), batches() local d = m(it()):data() m:step() print(d[0])",
    "used after the call or step" },
  { "its array after its model", "local m, it = new(), batches() local d = m(it()):data() m:close() print(d[0])",
    "used after the call or step" },
  { "its array kept over steps", "local m, p = new(), nil for b in batches() do local y = m(b) "
    .. "if p then local s = 0 for i = 0, 1e5 do s = s + p[i] end end p = y:data() train(m, b) end",
    "used after the call or step" },
  { "its array beyond its end", "local d = new()(batches()()):data() local s = 0 for i = 0, 1e5 do s = s + d[i] end",
    "place 100 of an array of 100" },
  { "its array before its start", "local d = new()(batches()()):data() print(d[-1])", "place -1" },
  { "its array written", "local d = new()(batches()()):data() d[0] = 1", "read only" },
  { "its array after its model is collected", "local d = (function() return new()(batches()()):data() end)() "
    .. "require('moonrock.tape').current = nil collect() print(d[0])", "used after the call or step" },
  { "a number made up", "local y = new()(batches()()) local f = setmetatable({ tape = y.tape, id = 1e6, "
    .. "generation = y.generation }, getmetatable(y)) print(f + y)", "node 1000000" },
  { "a negative number", "local y = new()(batches()()) local f = setmetatable({ tape = y.tape, id = -5, "
    .. "generation = y.generation }, getmetatable(y)) f:sum()", "this is no tensor" },
  { "no number", "local y = new()(batches()()) local f = setmetatable({ tape = y.tape, id = 0 / 0, "
    .. "generation = y.generation }, getmetatable(y)) f:sum()", "this is no tensor" },
  { "a text for a number", "local y = new()(batches()()) local f = setmetatable({ tape = y.tape, id = 'x', "
    .. "generation = y.generation }, getmetatable(y)) f:sum()", "this is no tensor" },
  { "a tape made up", "local y = new()(batches()()) local f = setmetatable({ tape = { generation = y.generation }, "
    .. "id = 0, generation = y.generation }, getmetatable(y)) f:relu()", "NULL" },
  { "an object that lifts itself", "local y = new()(batches()()) print(y + { lift = function() return -7 end })",
    "this is no tensor" },
  { "an object that lifts itself too far", "local y = new()(batches()()) "
    .. "print(y + { lift = function() return 1e9 end })", "node" },
  { "of two models", "local b = batches()() print(new()(b) + new()(b))", "tensors of two models" },
  { "get beyond", "print(new()(batches()()):get(1e9, 1))", "place 1000000000 of dimension 1" },
  { "get of no number", "print(new()(batches()()):get({}, 1))", "get" },
  { "get of a half", "print(new()(batches()()):get(1.5, 1))", "get" },
  { "dim of no number", "print(new()(batches()()):dim('x'))", "dim" },
  { "dim beyond", "print(new()(batches()()):dim(9))", "no dimension 9" },
  { "reshape to a huge shape", "print(new()(batches()()):reshape(1e5, 1e5, 1e5))", "reshape" },
  { "reshape to a text", "print(new()(batches()()):reshape(1, 'x'))", "reshape" },
  { "slice beyond", "print(new()(batches()()):slice(1, -5, 1e9))", "slice" },
  { "slice of texts", "print(new()(batches()()):slice(1, 'a', 'b'))", "slice" },
  { "sum along no axis", "print(new()(batches()()):sum(99))", "sum" },
  { "transpose of no axis", "print(new()(batches()()):transpose(1, -3))", "transpose" },
  { "a slope that is none", "print(new()(batches()()):leaky_relu({}))", "leaky_relu" },
  { "a tensor and a text", "print(new()(batches()()) + 'x')", "expected a tensor" },
  { "a tensor and nil", "print(new()(batches()()) + nil)", "expected a tensor" },
  { "matmul with a table", "print(new()(batches()()):matmul({}))", "expected a tensor" },
  { "concat of nothing", "print(mr.concat())", "" },
  { "concat of a list with a hole", "local y = new()(batches()()) print(mr.concat { y, 5, {} })", "expected a tensor" },
  { "stack of numbers", "print(mr.stack({ {}, {} }, 1))", "" },
  { "softmax with a mask that is none", "print(new()(batches()()):softmax('x'))", "expected a tensor" },
  { "a gradient beyond", "local y = new()(batches()()) print(y:gradient(1e9))", true },
  { "backward of many", "new()(batches()()):backward()", "expected a loss of shape [1]" },
  { "backward in evaluation", "local m, b = new(), batches()() m:eval() mr.bce(m(b), b.label):backward()",
    "does not train" },
  { "a method of no tensor", "local y = new()(batches()()) y.relu(5)", true },
  { "a tape freed twice", "local t = require('moonrock.tape').new() t:free() t:free()", true },
  { "a tape used after it was freed", "local t = require('moonrock.tape').new() t:free() t:begin(true, 1)",
    "tape: it was freed" },
  { "a tape's tensor after it was freed", "local t = require('moonrock.tape').new() t:begin(true, 1) "
    .. "local a = mr.tensor({ 1 }, { 1 }) t:free() print(a:value())", "step that is over" },
  { "a tensor of another shape", "local t = require('moonrock.tape').new() t:begin(true, 1) "
    .. "mr.tensor({ 5 }, { 1 })", "numbers for a shape" },
  { "a tensor of a huge shape", "local t = require('moonrock.tape').new() t:begin(true, 1) "
    .. "mr.tensor({ 1e9, 1e9 }, { 1 })", "numbers for a shape" },
  { "a tensor of no shape", "local t = require('moonrock.tape').new() t:begin(true, 1) mr.tensor(5, { 1 })", "" },
})

group("operations", {
  { "written beyond the result", "op(function(out, a, n) for i = 0, n * 1e5 do out[i] = 1 end end)"
    .. "(new()(batches()()))", "operation mine: place 100 of an array of 100" },
  { "written before an input", "op(function(out, a) a[-1] = 1 end)(new()(batches()()))", "operation mine: place -1" },
  { "written beyond a gradient", "op(function(out) out[0] = 1 end, function(g, out, a, da) da[1e6] = 1 end)"
    .. "(new()(batches()())):sum():backward()", "operation mine: place 1000000" },
  { "an array kept", "local k op(function(out, a) k = a end)(new()(batches()())) print(k[0])",
    "used after the call or step" },
  { "the next batch inside", "local m, it = new(), batches() op(function() it() end)(m(it()))",
    "the next one is asked for inside of operation mine" },
  { "its batches closed inside", "local m, it = new(), batches() op(function() it:close() end)(m(it()))",
    "they are closed inside of operation mine" },
  { "closes the model", "local m = new() op(function() m:close() end)(m(batches()()))",
    "it is closed inside of operation mine" },
  { "closes the model in backward", "local m = new() op(function(out) out[0] = 0 end, function() m:close() end)"
    .. "(m(batches()())):sum():backward()", "it is closed inside of operation mine" },
  { "frees the tape in backward", "local m = new() op(function() end, function() m.train_tape:free() end)"
    .. "(m(batches()())):sum():backward()", "it is freed inside of operation mine" },
  { "begins a step", "local m = new() op(function() m.train_tape:begin(true, 1) end)(m(batches()()))",
    "a step is begun inside of operation mine" },
  { "steps", "local m = new() op(function() end, function() m:step() end)(m(batches()())):sum():backward()",
    "a step inside of operation mine" },
  { "calls the model", "local m, b = new(), batches()() op(function() m(b) end)(m(b))",
    "it is called inside of operation mine" },
  { "goes backward inside backward", "local l l = op(function() end, function() l:backward() end)"
    .. "(new()(batches()())):sum() l:backward()", "backward inside of operation mine" },
  { "calls itself", "local y local f f = op(function() f(y) end) y = new()(batches()()) f(y)",
    "it is called inside of itself" },
  { "raises", "op(function() error('mine', 0) end)(new()(batches()()))", "mine", 1 },
  { "goes on after an error", "local m, b = new(), batches()() pcall(op(function() error 'x' end), m(b)) m:skip() "
    .. "train(m, b)", true },
  { "no backward", "op(function() end)(new()(batches()())):sum():backward()", "operation mine: it has no backward" },
  { "a shape that closes the model", "local m = new() mr.operation { name = 'mine', shape = function() m:close() "
    .. "return 1 end, forward = function(out) out[0] = 1 end }(m(batches()()))", "" },
  { "a huge shape", "mr.operation { name = 'mine', shape = function() return 1e5, 1e5 end, "
    .. "forward = function() end }(new()(batches()()))", "" },
  { "a shape beyond memory", "mr.operation { name = 'mine', shape = function() return 2^31 - 1 end, "
    .. "forward = function() end }(new { memory = '500MB' }(batches()()))", "more than the 500 MB" },
  { "a negative shape", "mr.operation { name = 'mine', shape = function() return -1 end, "
    .. "forward = function() end }(new()(batches()()))", "" },
  { "a number of inputs", "op(function() end)(5, 5)", "" },
  { "an operation of nothing", "mr.operation()", "expected { name =" },
  { "an element of nothing", "mr.operation { name = 'e', element = function() end }", "element takes 0 arguments" },
  { "an element in an element", "mr.operation { name = 'e', element = function(x) mr.operation { name = 'f', "
    .. "element = function(y, z) return y * z end } return x * 2 end }", true },
})

group("optimizers", {
  { "written beyond a row", "local m = rule(function(w, g, s, n) for i = 0, n * 2e5 do w[i] = 1 end end) "
    .. "train(m, batches()())", "optimizer mine: place 4 of an array of 4" },
  { "state beyond", "local m = rule(function(w, g, s, n) s[n * 5] = 1 end) train(m, batches()())",
    "optimizer mine: place 20 of an array of 4" },
  { "closes the model", "local m m = rule(function() m:close() end) train(m, batches()())",
    "it is closed inside of optimizer mine" },
  { "steps", "local m m = rule(function() m:step() end) train(m, batches()())", "inside of optimizer mine" },
  { "calls the model", "local m m = rule(function() m(batches()()) end) train(m, batches()())",
    "inside of optimizer mine" },
  { "frees the table", "local m m = rule(function() m.tables[1]:free() end) train(m, batches()())",
    "inside of optimizer mine" },
  { "the next batch inside", "local it = batches() local m = rule(function() it() end) train(m, it())",
    "inside of optimizer mine" },
  { "an array kept", "local k local m = rule(function(w) k = w end) train(m, batches()()) m:close() collect() "
    .. "print(k[0])", "used after the call or step" },
  { "a dense weight beyond", "local m = dense(function(w) w[7] = 1 end) train(m, batches()())",
    "optimizer mine: place 7 of an array of 1" },
  { "closes the model at a dense weight", "local m m = dense(function() m:close() end) train(m, batches()())",
    "inside of optimizer mine" },
  { "steps after an error", "local m = rule(function() error('mine', 0) end) pcall(train, m, batches()()) m:step()",
    "its optimizer failed" },
  { "too much state", "mr.optimizer { name = 'mine', lr = 1, state = 1e9, update = print }", "state is 1000000000" },
  { "no update", "mr.optimizer { name = 'mine', lr = 1 }", "update is a nil" },
  { "no name", "mr.optimizer { update = print, lr = 1 }", "name is nil" },
  { "no table", "mr.optimizer(5)", "" },
})

group("functions", {
  { "fit of nothing", "mr.fit()", "expected a model" },
  { "fit of a closed model", "local m = stored() m:close() mr.fit(m, { train = 'train' })", GONE },
  { "the model closed by on_epoch", "local m m = stored() mr.fit(m, { train = 'train', on_epoch = function() m:close() "
    .. "end })", "" },
  { "the model closed by on_batch", "local m m = stored() mr.fit(m, { train = 'train', on_batch = function() m:close() "
    .. "end })", "" },
  { "the model closed by on_step", "local m m = stored() mr.fit(m, { train = 'train', on_step = function() m:close() "
    .. "end })", "" },
  { "evaluate of nothing", "mr.evaluate()", "" },
  { "evaluate of closed batches", "local it = batches() it:close() mr.evaluate(new(), it)", CLOSED },
  { "predict that closes its batches", "local it = batches() mr.predict(new(), it, function() it:close() end)", CLOSED },
  { "predict that closes its model", "local m = new() mr.predict(m, batches(), function() m:close() end)", GONE },
  { "learn from nothing", "mr.learn(new())", "" },
  { "metrics of nothing", "mr.metrics():add()", "" },
  { "metrics of other samples", "local m, it = new(), batches() local y = m(it()) "
    .. "local b = batches { size = 7 }() mr.metrics():add(y, b.label)", "100 logits for 7 samples" },
  { "metrics of a batch changed by hand", "local m, it = new(), batches() local b = it() local y = m(b) "
    .. "local c = batches { size = 7 }() c.n = 100 mr.metrics { group = 1 }:add(y, c.label)", "100 logits for 7" },
  { "metrics of huge bins", "mr.metrics { bins = 2^30 }", "bins" },
  { "metrics of negative bins", "mr.metrics { bins = -1 }", "bins" },
  { "metrics of a huge k", "mr.metrics { group = 1, k = 1e18 }", "" },
  { "a watch of a huge window", "mr.watch { window = 1e18 }", "window" },
  { "a watch of no window", "mr.watch { window = -1 }", "window" },
  { "a watch loaded from rubbish", "mr.watch():load('x')", "" },
  { "a watch loaded from nothing", "mr.watch():load()", "" },
  { "a schema of nothing", "mr.schema()", "expected { fields" },
  { "a field of nothing", "mr.schema { fields = { mr.category() } }", "expected a column's name" },
  { "a cross of nothing", "mr.schema { fields = { mr.cross() } }", "" },
  { "a cross of itself", "mr.schema { fields = { mr.cross { 'a', 'a' } } }:batches('cat.csv')()", "" },
  { "edges that are none", "mr.schema { fields = { mr.bucket('c', { edges = { 'x' } }) } }", "" },
  { "edges that fall", "mr.schema { fields = { mr.bucket('c', { edges = { 3, 1 } }) } }", "" },
  { "negative quantiles", "mr.schema { fields = { mr.bucket('c', { quantiles = -5 }) } }", "" },
  { "huge quantiles", "mr.schema { label = 'y', fields = { mr.bucket('c', { quantiles = 2^31 }) } }", "" },
  { "a schema restored from rubbish", "dofile('cat.lua'):restore('x')", "" },
  { "a schema restored from nothing", "dofile('cat.lua'):restore()", "" },
  { "batches of no part", "dofile('cat.lua'):batches()", "" },
  { "a field of another schema", "local b = dofile('cat.lua'):batches('cat.csv')() b:keys('zz')", "has no field" },
  { "gradcheck of nothing", "mr.gradcheck()", "" },
  { "gradcheck of a shape that changes", "local s = { 2 } mr.gradcheck(function(x) s[1] = 1e7 return x:sum() end, "
    .. "{ s })", true },
  { "gradcheck of a huge leaf", "mr.gradcheck(function(x) return x:sum() end, { { 1e15 } })", "" },
  { "a layer of no model", "mr.linear()", "" },
  { "a huge layer", "new({}, function(m) mr.linear(m, 'l', 1e9, 1e9) end)", "too large" },
  { "a layer of a negative width", "new({}, function(m) mr.linear(m, 'l', -1, 1) end)", "" },
  { "a schedule of nothing", "mr.schedule.cosine()", "" },
  { "an initializer that closes the model", "local m m = new() mr.init.quantile(function(u) m:close() return u end)",
    true },
  { "C functions with nothing", "local C = require 'moonrock.ffi' for _, n in ipairs { 'mr_table_free', "
    .. "'mr_tape_free', 'mr_param_free', 'mr_reader_close', 'mr_store_close', 'mr_schema_free', 'mr_metrics_free' } "
    .. "do C[n](nil) end print(C.mr_table_rows(nil), C.mr_tape_nodes(nil))", true },
})

return misuse

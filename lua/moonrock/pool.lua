--- Columns: what a lookup of a table returns, a named vector for each entry of a batch, and the
-- ways to pool the entries of a sample (runtime/tensor/op_pool.c, op_pick.c, op_fm.c, op_ffm.c).
local C = require "moonrock.ffi"
local err = require "moonrock.error"
local tape = require "moonrock.tape"

local pool = {}

---@class Column
---@field table string name of its table
---@field name string
---@field dim integer
local Column = {}
Column.__index = Column
pool.Column = Column
Column.kind = "column, which is pooled first: :sum(), :mean(), :fields() or mr.fm(column)"

--- A handle of column `index` (from 0) of a table; tables make them.
---@return Column
function pool.column(table_name, column_name, index, dim)
  return setmetatable({ table = table_name, name = column_name, index = index, dim = dim,
    tape = false, lookup = -1, generation = -1 }, Column)
end

--- Makes it stand for a lookup of the step under way.
---@param column Column
---@param t Tape
---@param lookup integer number of the lookup on the tape
function pool.bind(column, t, lookup)
  column.tape, column.lookup, column.generation = t, lookup, t.generation
end

local function tape_of(column)
  local t = column.tape
  if not t or column.generation ~= t.generation then
    err.raise("table %q: column %q was looked up in a step that is over; look it up again",
      column.table, column.name)
  end
  return t
end

function Column:__tostring()
  return ("column %q of table %q, dim %d"):format(self.name, self.table, self.dim)
end

local function pooled(self, how, by_field)
  local t = tape_of(self)
  return tape.handle(t, C.mr_tape_pool(t.c, self.lookup, self.index, how, by_field))
end

--- The sum over each sample's entries, x_e v_e, of value and vector: [n, dim].
---@return Tensor
function Column:sum() return pooled(self, C.MR_POOL_SUM, 0) end

--- The same, divided by the number of the sample's entries; 0 for a sample without any.
---@return Tensor
function Column:mean() return pooled(self, C.MR_POOL_MEAN, 0) end

--- The sum divided by sqrt(sum x_e^2), which is the root of the number of entries if they have no
--- values; 0 where that is 0.
---@return Tensor
function Column:sqrtn() return pooled(self, C.MR_POOL_SQRTN, 0) end

--- The sum divided by sum x_e; 0 where that is 0.
---@return Tensor
function Column:weighted_mean() return pooled(self, C.MR_POOL_WEIGHTED_MEAN, 0) end

--- The largest x_e v_ek over each sample's entries, for each k: [n, dim]; 0 for a sample without
--- entries. The gradient goes to the first of the largest.
---@return Tensor
function Column:max() return pooled(self, C.MR_POOL_MAX, 0) end

local HOW = { sum = C.MR_POOL_SUM, mean = C.MR_POOL_MEAN, sqrtn = C.MR_POOL_SQRTN,
  weighted_mean = C.MR_POOL_WEIGHTED_MEAN, max = C.MR_POOL_MAX }

--- The entries of each field, pooled by the method of that name: [n, fields, dim]. The batch must have
--- fields.
---@param how? "sum"|"mean"|"sqrtn"|"weighted_mean"|"max" sum
---@return Tensor
function Column:fields(how)
  local code = HOW[how or "sum"]
  if not code then
    err.raise("fields: table %q, column %q: %q is none of sum, mean, sqrtn, weighted_mean and max",
      self.table, self.name, tostring(how))
  end
  return pooled(self, code, 1)
end

--- The entries of a field, x_e v_e, in their order, the first `length` of a sample at most: [n, L, dim],
--- 0 behind the last; and the mask of those there are: [n, L] of 1 and 0. L is that of the longest in
--- the batch, from 1 to `length`, so that what is computed of them is not computed of empty places; padded
--- it is `length` always, as a layer needs that takes all places side by side.
---@param field integer from 1
---@param length integer
---@param padded? boolean false
---@return Tensor
---@return Tensor mask
function Column:sequence(field, length, padded)
  local t = tape_of(self)
  if type(field) ~= "number" or type(length) ~= "number" then
    err.raise("sequence: table %q, column %q: expected the number of a field and a length, got %s and %s",
      self.table, self.name, tostring(field), tostring(length))
  end
  local rows = tape.handle(t, C.mr_tape_sequence(t.c, self.lookup, self.index, field - 1, length,
    padded and 1 or 0))
  return rows,
    tape.handle(t, C.mr_tape_sequence_mask(t.c, self.lookup, self.index, field - 1, rows:dim(2)))
end

---@private
function Column:lift(_, operation)
  err.raise("%s: table %q, column %q: pool it first, with :sum(), :mean(), :fields() or mr.fm()",
    operation, self.table, self.name)
end

local function refuse(a, b)
  local column = getmetatable(a) == Column and a or b
  column:lift(nil, "arithmetic")
end
Column.__add, Column.__sub, Column.__mul, Column.__div, Column.__unm = refuse, refuse, refuse,
  refuse, refuse

local function known(operation, column)
  if getmetatable(column) ~= Column then
    err.raise("%s: expected a column of a table, got a %s", operation, type(column))
  end
  return column
end

--- The interactions of a factorization machine, 1/2 sum_k ((sum_e x_e v_ek)^2 - sum_e
--- (x_e v_ek)^2): [n, 1]. Rendle, "Factorization Machines", ICDM 2010, lemma 3.1.
---@param column Column
---@return Tensor
function pool.fm(column)
  local t = tape_of(known("fm", column))
  return tape.handle(t, C.mr_tape_pool_fm(t.c, column.lookup, column.index))
end

--- The same as a vector, without the sum over k: [n, dim]. He and Chua, "Neural Factorization Machines
--- for Sparse Predictive Analytics", SIGIR 2017, equation (4).
---@param column Column
---@return Tensor
function pool.bi_interaction(column)
  local t = tape_of(known("bi_interaction", column))
  return tape.handle(t, C.mr_tape_pool_bi(t.c, column.lookup, column.index))
end

--- The interactions of a field-aware FM, the sum over a sample's pairs of entries i, j of
--- <v_i at f_j, v_j at f_i> x_i x_j: [n, 1]. The column, of `fields` times as many floats as a vector has,
--- holds a key's vectors for each field one behind another; a field may have any number of entries.
--- Juan et al., "Field-aware Factorization Machines for CTR Prediction", RecSys 2016, equation (4).
---@param column Column
---@param fields integer that the column was made for: m:fields()
---@return Tensor
function pool.ffm(column, fields)
  local t = tape_of(known("ffm", column))
  if type(fields) ~= "number" then
    err.raise("ffm: fields is a %s, expected a number", type(fields))
  end
  return tape.handle(t, C.mr_tape_pool_ffm(t.c, column.lookup, column.index, fields))
end

return pool

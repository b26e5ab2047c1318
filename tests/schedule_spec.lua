-- Schedules: their values against a table of the formulas, their text, and what follows them.
local mr = require "moonrock"
local raises = require "tests.support.raises"
local json = require "dkjson"
local Store = require "moonrock.store"
local shell = require "tests.support.shell"

local STEPS = { 0, 1, 50, 99, 100, 150, 1000 }

-- By the formulas in another language, in float64. step, exponential, cosine (up to its end) and
-- one_cycle are also what PyTorch's schedulers give; its one_cycle ends a step earlier.
local EXPECTED = {
  { "constant(0.5)", 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5 },
  { "step(50, 0.5)", 1, 1, 0.5, 0.5, 0.25, 0.125, 9.53674316406e-07 },
  { "exponential(100, 0.5)", 1, 0.993092495437, 0.707106781187, 0.503477775028, 0.5, 0.353553390593,
    0.0009765625 },
  { "natural_exponential(100, 2)", 1, 0.980198673307, 0.367879441171, 0.138069237311, 0.135335283237,
    0.0497870683679, 2.06115362244e-09 },
  { "inverse_time(100, 3)", 1, 0.970873786408, 0.4, 0.251889168766, 0.25, 0.181818181818,
    0.0322580645161 },
  { "polynomial(100, 0.1, 2)", 1, 0.98209, 0.325, 0.10009, 0.1, 0.1, 0.1 },
  { "cosine(100, 0.1)", 1, 0.999777952165, 0.55, 0.100222047835, 0.1, 0.1, 0.1 },
  { "linear_cosine(100, 1.5, 0.1, 0.001)", 1.101, 1.08858127071, 0.301, 0.00124409194683, 0.001, 0.001,
    0.001 },
  { "warmup(100)", 0.01, 0.02, 0.51, 1, 1, 1, 1 },
  { "warmup(100, exponential(100, 0.5), 0.2)", 0.208, 0.216, 0.608, 1, 1, 0.707106781187, 0.001953125 },
  { "warmup(20, warmup(50, cosine(100)))", 0.05, 0.1, 0.62, 0.806453526826, 0.793892626146,
    0.0954915028125, 0 },
  { "one_cycle(150, 0.2, 0.1, 0.01)", 0.1, 0.102465147084, 0.933682574873, 0.389444544891,
    0.376884572674, 0.01, 0.01 },
}

describe("the schedule", function()
  for _, row in ipairs(EXPECTED) do
    it(row[1] .. " has the values of its formula", function()
      local s = mr.schedule.of(row[1])
      for i, t in ipairs(STEPS) do
        -- the table has 12 digits
        assert.near(row[i + 1], s.at(t), 1e-11 * math.max(1, row[i + 1]))
        assert.equal(s.at(t), mr.schedule.of(tostring(s)).at(t))
      end
    end)
  end

  it("made in Lua is the one of its text", function()
    local s = mr.schedule.warmup(10, mr.schedule.step(5, 1 / 3))
    assert.equal("warmup(10, step(5, 0.33333333333333331), 0)", tostring(s))
    assert.equal(s, mr.schedule.of(s))
    assert.equal(s.at(21), mr.schedule.of(tostring(s)).at(21))
  end)

  it("is refused by name where its text or a number is wrong", function()
    for text, message in pairs {
      ["cosin(3)"] = 'schedule "cosin(3)": "cosin" is unknown, expected one of constant, cosine, ',
      ["cosine"] = "schedule cosine: steps is nil, expected a number from 0",
      ["cosine(3.5)"] = "schedule cosine: steps is 3.5, expected a whole number from 1",
      ["cosine(0)"] = "schedule cosine: steps is 0, expected a whole number from 1",
      ["step(3, -1)"] = "schedule step: factor is -1, expected a number from 0",
      ["step(3, cosine(2))"] = "schedule step: factor is cosine(2, 0), expected a number from 0",
      ["cosine(3, 0, 0)"] = "schedule cosine: 3 arguments, expected at most 2",
      ["cosine(3"] = 'schedule "cosine(3": expected , or ) at ""',
      ["cosine(3) 4"] = 'schedule "cosine(3) 4": "4" stands behind its end',
      ["warmup(3,,2)"] = 'schedule "warmup(3,,2)": expected a name at ",2)"',
      ["step(3, 1x)"] = 'schedule "step(3, 1x)": "1x" is no number',
      [""] = 'schedule "": expected a name at ""',
    } do
      local ok, problem = pcall(mr.schedule.of, text)
      assert.is_false(ok)
      assert.truthy(problem:find(message, 1, true), problem)
      assert.matches("^tests/schedule_spec.lua:%d+: ", problem)
    end
    raises('expected a schedule such as mr.schedule.cosine(1000) or "cosine(1000)", got number', mr.schedule.of, 3)
  end)
end)

describe("a model with a schedule", function()
  local dir = shell.directory()
  local path = shell.write(dir .. "/a.svm", ("1 1:1\n"):rep(6))

  local line = mr.model("line", function(m)
    local row = m:table("t", { w = { dim = 1 } })
    local b = m:param("b", { 1 })
    return function(x) return row(x).w:sum() + b end
  end, { loss = "mse", optim = mr.optim.sgd { lr = 0.5 } })

  -- The weight and the bias after every step, by the definition of both.
  local function expect(factors)
    local w, list = 0, {}
    for i, factor in ipairs(factors) do
      w = w - 0.5 * factor * 2 * (2 * w - 1) -- w + b, which are the same
      list[i] = w
    end
    return list
  end

  local function run(model, options)
    local list = {}
    options.train, options.size, options.shuffle = path, 1, false
    options.on_batch = function() list[#list + 1] = model.tables[1]:peek(1, "w")[1] end
    mr.fit(model, options)
    list[#list + 1] = model.tables[1]:peek(1, "w")[1]
    table.remove(list, 1) -- on_batch comes before the step
    assert.equal(list[#list], model.params[1]:weight(1))
    return list
  end

  local function same(expected, list)
    assert.equal(#expected, #list)
    for i, w in ipairs(expected) do assert.near(w, list[i], 1e-6) end -- float32
  end

  it("scales rows and params, as an option of the model and of mr.fit", function()
    local data = mr.data { files = path, format = "libsvm", task = "regression" }
    local halves = expect { 1, 1, 0.5, 0.5, 0.25, 0.25 }
    same(halves, run(line { data = data, schedule = "step(2, 0.5)" }, {}))
    same(halves, run(line { data = data }, { schedule = mr.schedule.step(2, 0.5) }))
    local model = line { data = data, schedule = "warmup(2, step(2, 0.5))" }
    model:scale_lr(0.5) -- as `reduce` does: both multiply
    same(expect { 0.25, 0.5, 0.5, 0.5, 0.25, 0.25 }, run(model, {}))
  end)

  it("goes on in the next run where it was, and its store keeps the text", function()
    local data = mr.data { files = path, format = "libsvm", task = "regression" }
    local options = { data = data, store = dir .. "/store", schedule = "step(4, 0.5)" }
    local model = line(options)
    run(model, { epochs = 1 })
    model:close()
    model = line(options)
    assert.equal(6, model.step_number)
    local w = model.tables[1]:peek(1, "w")[1]
    run(model, { epochs = 2 })
    local list = expect { 1, 1, 1, 1, 0.5, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25, 0.25 }
    assert.near(list[6], w, 1e-6)
    assert.near(list[12], model.tables[1]:peek(1, "w")[1], 1e-6)
    model:close()
    local store = Store.open(dir .. "/store", "read")
    assert.equal("step(4, 0.5)", json.decode(store:get "model").options.schedule)
    store:close()
  end)

  it("is told by the command line, which names a schedule that is none", function()
    local status, _, errors = shell.moonrock("train", "lr", "--data", path, "--store", dir .. "/cli",
      "--schedule", "warmup(2, cosine(4))")
    assert.equal(0, status, errors)
    local store = Store.open(dir .. "/cli", "read")
    assert.equal("warmup(2, cosine(4, 0), 0)", json.decode(store:get "model").options.schedule)
    store:close()
    status, _, errors = shell.moonrock("train", "lr", "--data", path, "--store", dir .. "/other",
      "--schedule", "cosine(4.5)")
    assert.equal(2, status)
    assert.truthy(errors:find("--schedule: cosine: steps is 4.5, expected a whole number from 1", 1, true),
      errors)
  end)
end)

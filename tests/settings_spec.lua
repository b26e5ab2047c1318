-- Options of models and layers: what values they take, and what stands for a value.
local mr = require "moonrock"
local refused = require "tests.support.refused"
local settings = require "moonrock.settings"
local source = require "moonrock.source"
local shell = require "tests.support.shell"

local moonrock, run, write = shell.moonrock, shell.run, shell.write
local dir = shell.directory()

local lines = {}
for i = 1, 300 do lines[i] = ("%d 0:%d:1 1:%d:1"):format(i % 2, i % 7, 10 + i % 5) end
local DATA = write(dir .. "/a.ffm", table.concat(lines, "\n") .. "\n")

local function raises(why, work, ...)
  local arguments, n = { ... }, select("#", ...)
  refused(function() return work(unpack(arguments, 1, n)) end, why)
end

local stores = 0

-- Trains with `--set` and the like; the status, the store and what it said.
local function train(model, ...)
  stores = stores + 1
  local store = ("%s/s%d"):format(dir, stores)
  local status, _, errors = moonrock("train", model, "--data", DATA, "--fields", "2", "--store", store, ...)
  return status, store, errors
end

local function info(store) return select(2, moonrock("info", "--store", store)) end

local function norms(store) return select(2, info(store):gsub("%.norm%.gamma", "")) end

describe("an option that is true or false", function()
  it("is false by 0, no, off and false, true by 1, yes, on and true, in any case", function()
    for word, n in pairs { no = 0, ["0"] = 0, OFF = 0, ["1"] = 1, On = 1 } do
      local status, store, errors = train("deepfm", "--set", "batch_norm=" .. word, "--set", "hidden=4")
      assert.equal(0, status, errors)
      assert.equal(n, norms(store))
    end
    for _, case in ipairs { { false, false, 0, "false", "0", "no", "off", "False", "FALSE", "No", "OFF" },
      { true, true, 1, "true", "1", "yes", "on", "True", "TRUE", "Yes", "ON" } } do
      for i = 2, #case do
        local model = mr.find "deepfm" { hidden = 4, batch_norm = case[i], data = mr.data { format = "libffm",
          fields = 2 } }
        assert.equal(case[1], #model.params > 5)
        model:close()
      end
    end
  end)

  it("of any shipped model and layer is no other value", function()
    local asked = 0
    for _, name in ipairs(source.shipped) do
      local definition = mr.find(name)
      for option, kind in pairs(settings.of(definition, {})) do
        if kind == "boolean" then
          asked = asked + 1
          for _, value in ipairs { 2, "maybe", {}, -1 } do
            raises(("model %s: %s is "):format(name, option), definition, { [option] = value,
              data = mr.data { format = "libffm", fields = 3 } })
          end
        end
      end
    end
    assert.is_true(asked >= 10)
    local m = { param = function() return {} end }
    local cases = {
      { mr.mlp, { 8, { 4, 1 } }, { "batch_norm", "layer_norm", "bias" } },
      { mr.linear, { 8, 4 }, { "bias" } }, { mr.batch_norm, { 8 }, { "affine" } },
      { mr.layer_norm, { 8 }, { "affine" } },
      { mr.multi_head_attention, { 8 }, { "scale", "residual", "relu", "layer_norm" } },
    }
    for _, case in ipairs(cases) do
      for _, option in ipairs(case[3]) do
        for _, value in ipairs { 0, 1, "off", "false" } do
          local arguments = { m, "x", unpack(case[2]) }
          arguments[#arguments + 1] = { [option] = value }
          raises(("%s is %s, expected true or false"):format(option, settings.show(value)), case[1],
            unpack(arguments))
        end
      end
    end
    raises('trainable is "maybe", expected true or false', mr.model("p", function(own)
      own:param("b", { 1 }, { trainable = "maybe" })
    end), {})
  end)

  it("of a model of one's own goes by its words, or by its kind where that is given", function()
    local model = write(dir .. "/own.lua", [[
      local mr = require "moonrock"
      return mr.model("own", function(m, opt)
        local row = m:table("t", { w = { dim = opt.wide and 2 or 1 } })
        return function(x) return row(x).w:sum():sum(2, true) end
      end, KINDS)]])
    local text = shell.read(model)
    local plain = write(dir .. "/plain.lua", (text:gsub(", KINDS", "")))
    write(model, (text:gsub("KINDS", '{ options = { wide = "boolean" } }')))
    for _, case in ipairs { { plain, "off", 1 }, { plain, "Yes", 2 }, { model, "off", 1 }, { model, "0", 1 },
      { model, "1", 2 } } do
      local status, store, errors = train(case[1], "--set", "wide=" .. case[2])
      assert.equal(0, status, errors)
      assert.truthy(info(store):find("w dim " .. case[3], 1, true))
    end
  end)
end)

describe("a setting of another kind", function()
  it("is wrong usage that names the option and what is expected", function()
    for _, case in ipairs {
      { "dim=abc", "expected a whole number from 1" }, { "dim=-1", "expected a whole number from 1" },
      { "dim=2.5", "expected a whole number from 1" }, { "dim=true", "expected a whole number from 1" },
      { "dim=", "expected a whole number from 1" }, { "dim=nan", "expected a whole number from 1" },
      { "hidden=64,,32", "expected whole numbers from 1, as 64,32 or 64" },
      { "hidden=,64", "expected whole numbers from 1" }, { "hidden=64,x", "expected whole numbers from 1" },
      { "hidden=0", "expected whole numbers from 1" }, { "hidden=", "expected whole numbers from 1" },
      { "dropout=x", "expected a number from 0 to below 1" }, { "dropout=1", "from 0 to below 1" },
      { "dropout=-0.1", "from 0 to below 1" }, { "dropout=nan", "from 0 to below 1" },
      { "init=abc", "expected a number from 0" }, { "init=-1", "expected a number from 0" },
      { "batch_norm=maybe", "expected true or false" }, { "lr=abc", "expected a number above 0" },
      { "lr=0", "expected a number above 0" }, { "linear=adagrd", 'optimizer "adagrd" is unknown' },
      { "linear.lr=abc", 'lr is "abc", expected a number' }, { "linear.x=3", 'no setting "x"' },
      { "dense.beta=1", 'optimizer adam has no setting "beta"' }, { "optim=xx", 'optimizer "xx" is unknown' },
      { "dim.x=3", "dim is no table of settings" }, { "hidden.1=3", "hidden is no table of settings" },
      { "loss=foo", "expected bce, hinge, mse, mae, huber, quantile or poisson" },
      { "schedule=zz", '"zz" is unknown' }, { "ttl=zz", "no time such as 30d" },
      { "max_rows=0.5", "expected a whole number from 1" }, { "precision=half", "expected float32 or bf16" },
      { "clip_norm=-1", "expected a number above 0" }, { "store=x", "give --store" },
      { "read_only=1", "is no option of a model" }, { "cold=1", "is no option of a model" },
      { "activation=relu", "model deepfm has no such option; it has batch_norm, dense, dim" },
      { "droput=0.1", "did you mean dropout?" },
    } do
      local status, store, errors = train("deepfm", "--set", case[1])
      assert.equal(2, status, case[1] .. errors)
      assert.truthy(errors:find("--set " .. case[1] .. ": ", 1, true), errors)
      assert.truthy(errors:find(case[2], 1, true), errors)
      assert.is_nil(shell.read(store .. "/COMMIT"))
    end
    local status, _, errors = train("din", "--set", "activation=reluu")
    assert.equal(2, status)
    assert.truthy(errors:find("--set activation=reluu: expected none, relu, ", 1, true), errors)
    status, _, errors = moonrock("learn", "fm", "--source", DATA, "--store", dir .. "/l", "--set", "dim=abc")
    assert.equal(2, status)
    assert.truthy(errors:find("--set dim=abc: expected a whole number from 1", 1, true), errors)
  end)

  it("is an error in Lua, which names the model", function()
    local data = mr.data { format = "libffm", fields = 2 }
    raises('model fm: dim is "abc", expected a whole number from 1', mr.find "fm", { dim = "abc", data = data })
    raises('model deepfm: hidden is { 64, "x" }, expected whole numbers', mr.find "deepfm",
      { hidden = { 64, "x" }, data = data })
    raises('model fm: lr is "fast", expected a number above 0', mr.find "fm", { lr = "fast", data = data })
    raises('model ensemble: dim is 0, expected', mr.find "ensemble", { of = "fm", dim = 0, data = data })
    raises('mlp "x": dropout is 1, expected', mr.mlp, { param = function() return {} end }, "x", 4, { 2 },
      { dropout = 1 })
  end)
end)

describe("a number where a list is due", function()
  it("is a list of one", function()
    for _, case in ipairs { { "deepfm", "hidden", "64" }, { "deepfm", "hidden", "64," }, { "wide_deep", "hidden", "64" },
      { "xdeepfm", "cin", "8" }, { "mmoe", "hidden", "8" }, { "finalmlp", "gates", "8" }, { "autoint", "hidden", "8" },
      { "two_tower", "hidden", "8" } } do
      local status, store, errors = train(case[1], "--set", ("%s=%s"):format(case[2], case[3]))
      assert.equal(0, status, errors)
      local width = case[3]:gsub(",", "")
      assert.truthy(info(store):find(case[2] .. "%s+" .. width .. "\n"), info(store))
    end
    local model = mr.model("two", function(m)
      local row = m:table("t", { w = { dim = 3 } })
      local deep = mr.mlp(m, "deep", 3, 1)
      return function(x) return deep(row(x).w:sum()) end
    end) {}
    assert.same({ 3, 1 }, model.params[1].shape)
    model:close()
  end)
end)

describe("settings of an optimizer without its name", function()
  -- Of a table's column: its rule and learning rate.
  local function rules(store)
    local C = require "moonrock.ffi"
    local model, found = mr.reopen(store), {}
    for i, name in ipairs(model.tables[1].names) do
      local o = C.mr_table_optim(model.tables[1].c, i - 1)
      found[name] = { require("moonrock.optim").name(o.kind), tonumber(("%.6g"):format(o.lr)) }
    end
    for _, p in ipairs(model.params) do
      local o = C.mr_param_optim(p.c)
      found[p.name] = { require("moonrock.optim").name(o.kind), tonumber(("%.6g"):format(o.lr)) }
    end
    model:close()
    return found
  end

  it("change those of the rule that would be used: the model's, --optim's, or a layer's", function()
    local default = select(2, train("deepfm"))
    local was = rules(default)
    local _, store = train("deepfm", "--set", "linear.lr=0.125")
    local is = rules(store)
    assert.same({ was.w[1], 0.125 }, is.w)
    assert.same(was.v, is.v)
    assert.same(was["deep.1.w"], is["deep.1.w"])
    is = rules(select(2, train("deepfm", "--set", "linear.lr=0.125", "--optim", "ftrl", "--lr", "0.5")))
    assert.same({ "ftrl", 0.125 }, is.w)
    assert.same({ "ftrl", 0.5 }, is.v)
    is = rules(select(2, train("deepfm", "--set", "dense.lr=0.25")))
    assert.same({ was["deep.1.w"][1], 0.25 }, is["deep.1.w"])
    assert.same(was.w, is.w)
    is = rules(select(2, train("deepfm", "--set", "factors=sgd", "--set", "factors.lr=0.75")))
    assert.same({ "sgd", 0.75 }, is.v)
    is = rules(select(2, train("deepfm", "--set", "optim.lr=0.375")))
    assert.same({ was.w[1], 0.375 }, is.w)
  end)

  it("is resumed with", function()
    local _, store = train("fm", "--set", "linear.lr=0.125", "--epochs", "1")
    local once = select(2, moonrock("info", "--store", store, "--json")):match '"digest":"(%x+)"'
    assert.equal(0, (moonrock("train", "fm", "--data", DATA, "--fields", "2", "--store", store, "--set",
      "linear.lr=0.125", "--epochs", "1")))
    assert.equal(once, select(2, moonrock("info", "--store", store, "--json")):match '"digest":"(%x+)"')
  end)
end)

describe("a model's file", function()
  it("finds what it requires beside it, and the store keeps that", function()
    run(("mkdir -p %s/lib/parts"):format(dir))
    local model = write(dir .. "/lib/uses.lua", [[
      local mr, layers = require "moonrock", require "mylayers"
      return mr.model("uses", function(m)
        local row, bias = m:table("t", { w = { dim = 1 } }), m:param("bias", { 1 })
        return function(x) return layers.add(bias, row(x).w:sum()) end
      end)]])
    write(dir .. "/lib/mylayers.lua", [[return require "parts.sum"]])
    write(dir .. "/lib/parts/sum.lua", [[return { add = function(a, b) return a + b end }]])
    local status, store, errors, _ = train(model)
    assert.equal(0, status, errors)
    run(("mv %s/lib %s/gone"):format(dir, dir))
    status, _, errors = moonrock("eval", "--store", store, "--data", DATA)
    assert.equal(0, status, errors)
  end)

  it("of an ensemble's members is kept in the store too; --loss is theirs", function()
    local member = write(dir .. "/member.lua", [[
      local mr = require "moonrock"
      return mr.model("member", function(m)
        local row, bias = m:table("t", { w = { dim = 1 } }), m:param("bias", { 1 })
        return function(x) return bias + row(x).w:sum() end
      end, { optim = mr.optim.sgd { lr = 0.25 } })]])
    local status, store, errors = train("ensemble", "--set", "of=" .. member, "--set", "members=2", "--loss", "mse",
      "--optim", "sgd", "--lr", "0.25")
    assert.equal(0, status, errors)
    local one
    status, one, errors = train(member, "--loss", "mse", "--optim", "sgd", "--lr", "0.25")
    assert.equal(0, status, errors)
    os.remove(member)
    for _, of in ipairs { store, one } do
      status, _, errors = moonrock("eval", "--store", of, "--data", DATA)
      assert.equal(0, status, errors)
    end
    -- members that begin alike and see the same samples are the model itself
    local function predictions(of)
      local list = {}
      for line in select(2, moonrock("predict", "--store", of, "--data", DATA)):gmatch "[^\n]+" do
        list[#list + 1] = ("%.5f"):format(tonumber(line))
      end
      return list
    end
    assert.same(predictions(one), predictions(store))
  end)
end)

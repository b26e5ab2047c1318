-- What the shipped defaults reach: on the census data that ships, and on Frappe where
-- MOONROCK_FRAPPE names a directory with train.csv, valid.csv and test.csv.
local json = require "dkjson"

local shell = require "tests.support.shell"

-- The test metrics and seconds of a training run.
local function train(model, rest)
  local status, out, errors = shell.run(("%s train %s %s --store %s/store --json"):format(
    shell.program, model, rest, shell.directory()))
  assert.equal(0, status, errors)
  local result
  for line in out:gmatch("[^\n]+") do
    local event = json.decode(line)
    if event and event.event == "result" then result = event end
  end
  assert(result, out)
  return result
end

describe("the shipped defaults on census income", function()
  -- bounds: a logistic regression and an MLP of scikit-learn on the same features reach
  -- .9233 / .2845 and .9265 / .2788
  for model, bound in pairs { lr = { 0.921, 0.287 }, wide_deep = { 0.925, 0.281 } } do
    it(("reach an AUC of %.3f and a logloss of %.3f with %s, within 30 seconds"):format(bound[1],
      bound[2], model), function()
      local result = train(model, "--schema census")
      assert.equal(16281, result.test.rows)
      assert.is_true(result.test.auc >= bound[1], "auc " .. result.test.auc)
      assert.is_true(result.test.logloss <= bound[2], "logloss " .. result.test.logloss)
      assert.is_true(result.seconds < 30)
    end)
  end
end)

-- The mean of three seeds; published figures are in models/README.md. About two hours on two cores.
local FRAPPE = { lr = 0.935, fm = 0.969, ffm = 0.978, fwfm = 0.977, nfm = 0.9795, wide_deep = 0.9835, deepfm = 0.9835,
  dcn = 0.983, dcnv2 = 0.9838, xdeepfm = 0.9838, autoint = 0.9838, ensemble = 0.9861 }

local frappe = os.getenv "MOONROCK_FRAPPE"
if not frappe then
  it("the recipes on Frappe", function() pending "MOONROCK_FRAPPE names no directory of Frappe's files" end)
else
  describe("the recipes on Frappe", function()
    for model, bound in pairs(FRAPPE) do
      it(("reach a test AUC of %.4f with %s"):format(bound, model), function()
        local sum = 0
        for seed = 1, 3 do
          local result = train(model, ("--schema datasets/frappe.lua --data %s/train.csv --valid "
            .. "%s/valid.csv --test %s/test.csv --seed %d"):format(frappe, frappe, frappe, seed))
          assert.equal(28860, result.test.rows)
          print(("  %s, seed %d: %.5f / %.4f"):format(model, seed, result.test.auc, result.test.logloss))
          sum = sum + result.test.auc
        end
        assert.is_true(sum / 3 >= bound, "auc " .. sum / 3)
      end)
    end
  end)
end

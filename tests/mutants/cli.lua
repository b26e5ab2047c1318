-- Options that are declared and forgotten.
return {
  { "--clip-norm does nothing", find = "clip_norm = args.clip_norm, ", replace = "", tests = "options" },
  { "--ttl does nothing", find = "ttl = args.ttl, ", replace = "", tests = "options" },
  { "--admit does nothing", find = "admit = args.admit, ", replace = "", tests = "options" },
  { "--max-rows does nothing", find = "max_rows = args.max_rows,\n    precision = args.precision,",
    replace = "precision = args.precision,", tests = "options" },
  { "--precision does nothing", find = "precision = args.precision,\n", replace = "\n", tests = "options" },
  { "--schedule does nothing", find = "schedule = args.schedule, ", replace = "", tests = "options" },
  { "--lr does nothing", find = "lr = args.lr or recipe.lr, ", replace = "lr = recipe.lr, ", tests = "options" },
  { "--seed does nothing", find = "seed = args.seed, ", replace = "", tests = "options" },
  { "--age with steps does nothing", find = "age = given.steps, ", replace = "", tests = "options" },
  { "export's --min-count does nothing", find = "min_count = args.min_count, age = given.steps",
    replace = "age = given.steps", tests = "options" },
  { "shrink's --min-norm does nothing", find = "min_norm = args.min_norm, min_score", replace = "min_score",
    tests = "options" },
  { "--patience does nothing", find = "patience = args.patience,\n", replace = "\n", tests = "options" },
}

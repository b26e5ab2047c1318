-- Metrics and watch windows.
return {
  { "after a resume the samples of a window that is not full are overwritten from the oldest",
    find = "w->next = h.held == w->window ? 0 : h.held;", replace = "w->next = 0;", tests = "metrics" },
  { "a full window is saved as if it had never wrapped",
    find = "*from = w->held < w->window ? 0 : w->next;\n    *first = MIN(w->held, w->window - *from);",
    replace = "*from = 0;\n    *first = w->held;", tests = "metrics" },
}

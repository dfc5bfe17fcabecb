"""Table 2 of the paper: deterministic, ensemble and variational networks under attack."""

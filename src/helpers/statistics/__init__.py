"""Numbers in, numbers out: tests, effect sizes, resampling, linear models. Knows no people, parameters or tables."""

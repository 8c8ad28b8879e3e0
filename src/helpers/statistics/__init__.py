"""Numbers in, numbers out: tests, effects, resampling, linear models; no parameters, no tables."""

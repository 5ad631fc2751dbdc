"""Timings of nnx against naive NumPy: `pytest benchmarks`, or `python -m benchmarks.report` for one table of ratios."""

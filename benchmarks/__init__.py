"""Benchmarks: `python -m benchmarks` (or `make bench`) runs all of them, `python -m benchmarks NAME …` some.

To add one, write one file here with a function `run(quick)` that returns rows (a list of dicts). It is found by itself,
runs in a process of its own, and its rows become a table on standard output and results/NAME.json. See harness.py.
"""

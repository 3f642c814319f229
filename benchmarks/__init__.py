"""Benchmarks: `python -m benchmarks` (or `make bench`) runs all of them, `python -m benchmarks NAME …` some.

    codecs/     codecs by themselves, in NumPy
    training/   bytes against accuracy
    rounds/     what a round takes in TFF
    devices/    exported files in interpreters
    published/  results that papers report
    lib/        what benchmarks share
    results/    tables as JSON files, and curves

To add one, write one file in the folder of its theme with a function `run(quick)` that returns rows (a list of dicts).
It is found by itself, runs in a process of its own, and its rows become a table on standard output and
results/NAME.json. See lib/harness.py.
"""

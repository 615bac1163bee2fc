"""Benchmarks: speed, memory, recipes and cost growth; run as `python -m benchmarks.NAME`."""

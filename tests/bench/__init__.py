"""Benchmarks; `python -m tests.bench --help` lists them."""

"""Micro-benchmarks of the Python side, for pytest-benchmark; `make micro` runs them.

They are no part of the tests: pytest looks for those in tests/ only. Each checks its answer.
"""

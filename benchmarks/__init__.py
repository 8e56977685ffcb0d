"""The gateway measured beside others: ``python -m benchmarks.run``."""

"""Benchmarks of the gateway beside other servers: ``python -m benchmarks.run``."""

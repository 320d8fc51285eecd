"""Shared parts of the fault benchmarks: processes, environments, traffic, and the oracle."""

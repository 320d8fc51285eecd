"""Fault injection with real processes: kills and stops, wiped brokers, full disks, poison messages.

Run `make bench-faults`, or `python -m benchmarks.faults [NAME ...] [--short]`. docs/faults.md describes each benchmark.
`scenarios/` holds the benchmarks, `harness/` what they share: processes, traffic and the oracle.
"""

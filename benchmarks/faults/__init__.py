"""Faults injected for real: processes killed and stopped, brokers wiped, disks full, poison in the log.

`make bench-faults`, or `python -m benchmarks.faults [NAME ...] [--short]`; docs/faults.md says what each does.
"""

"""Benchmarks of the road of an event; each takes its data by argument."""

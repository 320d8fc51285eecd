"""Benchmark of previews: `make bench-preview`."""

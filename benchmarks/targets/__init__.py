"""Benchmark of exposure targets on simulated days, against other pacing strategies and the offline optimum."""

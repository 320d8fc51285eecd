"""Benchmarks of the page solver against an exact solver (HiGHS) and baselines from the literature."""

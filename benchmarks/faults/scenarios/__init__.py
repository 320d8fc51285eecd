"""The fault benchmarks, one module for each group of goals."""

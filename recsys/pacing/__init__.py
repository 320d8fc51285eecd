"""Exposure targets: goals of the whole audience, reached by prices."""

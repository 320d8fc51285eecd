"""Exposure targets on simulated days, against other ways to reach them and against hindsight."""

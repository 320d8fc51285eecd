"""Finds the best page under constraints, relaxing controls by priority where no page is feasible."""

"""Checks of a policy before publication; each problem is reported with the path of its field."""

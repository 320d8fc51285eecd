"""Checks a policy before publication and reports each problem with the path of its field."""

"""Checks a policy before it is published and explains each finding at its field."""

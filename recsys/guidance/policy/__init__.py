"""Policies of outlets: controls, profiles, inheritance from parent outlets, and the YAML text that editors write."""

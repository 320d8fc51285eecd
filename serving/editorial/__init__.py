"""Policies, exposure targets and previews for editors."""

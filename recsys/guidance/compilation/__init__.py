"""Compilation of policies into arrays over the catalog and into constraints on each page."""

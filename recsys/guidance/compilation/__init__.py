"""Turns policies into arrays and constraints for the items and requests at hand."""

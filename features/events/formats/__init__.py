"""Adapters from other event formats to CloudEvents."""

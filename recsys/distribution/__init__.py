"""Eligibility of items for a request, and the layouts of screens. Eligibility fails closed."""

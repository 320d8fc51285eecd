"""Retrieval and ranking models: bundles, served models, probabilities, and the fallback without a ranker."""

"""Benchmarks of event intake, folding, features and embeddings; data files are arguments."""

"""Models that serving loads from a bundle: the retrieval models by kind."""

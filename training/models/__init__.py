"""Training of retrieval models and rankers."""

"""Text embeddings of items: encoders and the process that refreshes embeddings."""

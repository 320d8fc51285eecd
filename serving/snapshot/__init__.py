"""What a serving process reads in the background: catalog, statistics, policies, model, embeddings."""

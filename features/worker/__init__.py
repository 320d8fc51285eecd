"""The worker: from the stream into the stores, exactly once in effect."""

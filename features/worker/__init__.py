"""The worker: reads events from the stream and folds them into the stores, exactly once in effect."""

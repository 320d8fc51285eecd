"""Retrieval: sources find catalog rows for a request, and the pipeline records which source found which row."""

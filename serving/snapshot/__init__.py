"""The in-memory snapshot of a serving process, and the pollers that refresh it in the background."""

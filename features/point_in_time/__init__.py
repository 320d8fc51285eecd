"""Features as they were at given times, read from the event log."""

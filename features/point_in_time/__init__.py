"""Point-in-time features: features as of given times, computed from the event log."""

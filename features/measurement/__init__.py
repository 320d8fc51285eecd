"""Reports over the event log."""

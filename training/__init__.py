"""Training: from the event log to a registered bundle. Layer 3 of the architecture; it never imports serving."""

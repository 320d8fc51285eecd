"""Floor 3: learn. From the event log to a registered bundle; never imports serving."""

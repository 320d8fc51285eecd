"""The command `recsys-train`: one run from the event log to the registry."""

"""Alembic migrations of the control plane, run by `features.control.connect.migrate` at start-up."""

"""Alembic migrations of the control plane, run by `serving.control.connect.migrate` at start-up."""

"""Runs inside the transaction that `serving.control.connect.migrate` opened, so a failed migration leaves nothing."""

from alembic import context

from serving.control.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transactional_ddl=True,
    transaction_per_migration=False,
)
context.run_migrations()

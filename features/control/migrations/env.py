"""The Alembic environment. It uses the transaction of `features.control.connect.migrate`: a failure rolls back all."""

from alembic import context

from features.control.tables import metadata

config = getattr(context, "config", None)
if config is not None:  # otherwise the file is only imported, by a test collector or a documentation tool
    context.configure(
        connection=config.attributes["connection"],
        target_metadata=metadata,
        transactional_ddl=True,
        transaction_per_migration=False,
    )
    context.run_migrations()

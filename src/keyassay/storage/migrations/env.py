"""What alembic runs: the connection comes from ``keyassay.storage.upgrading``, which also owns the transaction."""

from alembic import context

from keyassay.storage.schema import METADATA

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=METADATA,
    transactional_ddl=False,
    render_as_batch=True,
)
context.run_migrations()

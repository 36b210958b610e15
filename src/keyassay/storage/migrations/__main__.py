"""For maintainers: ``python -m keyassay.storage.migrations WORDS...`` writes the next migration.

It holds the difference between the tables that the migrations make and ``schema.py``; read it before you commit it.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from alembic.autogenerate import produce_migrations, render_python_code
from alembic.runtime.migration import MigrationContext

from keyassay.storage import upgrading
from keyassay.storage.database import Database
from keyassay.storage.schema import METADATA

_TEMPLATE = '''"""{words}."""

import sqlalchemy as sa
from alembic import op

revision = "{number:04}"
down_revision = {before}
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the change."""
    {body}
'''


def main(words: str) -> Path:
    """Write it.

    Returns:
        The new file.
    """
    before = upgrading.scripts().get_current_head()
    number = int(before or 0) + 1
    with tempfile.TemporaryDirectory() as folder:
        database = Database(f"sqlite:///{folder}/empty.db")
        if before:
            upgrading.upgrade(database)
        with database.read() as connection:
            context = MigrationContext.configure(connection, opts={"compare_type": False, "render_as_batch": True})
            operations = produce_migrations(context, METADATA).upgrade_ops
        database.close()
    assert operations is not None
    body = render_python_code(operations, render_as_batch=True)
    lines = [line for line in body.splitlines() if line.strip() and not line.strip().startswith("# ###")]
    name = "_".join(words.lower().split())
    path = upgrading.MIGRATIONS / "versions" / f"{number:04}_{name}.py"
    text = "\n".join(lines).strip()
    path.write_text(_TEMPLATE.format(words=words, number=number, before=f'"{before}"' if before else None, body=text))
    return path


if __name__ == "__main__":
    print(main(" ".join(sys.argv[1:])))  # noqa: T201  a tool for the terminal

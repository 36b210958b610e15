"""What changed about one certificate (or thing, or policy), without reading all changes of the account."""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the change."""
    op.create_index("ix_changes_account_resource", "changes", ["account_id", "resource_id", "revision"])

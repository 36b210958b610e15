"""What stores of compared keys have come to, of which the database has all verdicts."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the change."""
    op.create_table(
        "fleet_states",
        sa.Column("scope", sa.String(length=12), nullable=False),
        sa.Column("checks", sa.String(length=64), nullable=False),
        sa.Column("state", sa.LargeBinary(length=32), nullable=False),
        sa.Column("stored_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("scope", "checks", "state", name=op.f("pk_fleet_states")),
    )

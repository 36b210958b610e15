"""How far the steps of profile deep came on each key."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the change."""
    op.create_table(
        "deep_verdicts",
        sa.Column("spki_digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("catalogue", sa.String(length=64), nullable=False),
        sa.Column("budget", sa.Float(), nullable=False),
        sa.Column("complete", sa.Boolean(), nullable=False),
        sa.Column("failed", sa.Boolean(), nullable=False),
        sa.Column("steps", sa.JSON(), nullable=False),
        sa.Column("findings", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("stored_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("spki_digest", name=op.f("pk_deep_verdicts")),
    )

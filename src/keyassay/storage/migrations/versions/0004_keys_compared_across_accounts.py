"""Keys compared across accounts, and what checks of whole fleets have compared."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the change."""
    op.create_table(
        "fleet_comparisons",
        sa.Column("scope", sa.String(length=12), nullable=False),
        sa.Column("compared", sa.String(length=64), nullable=False),
        sa.Column("remarks", sa.JSON(), nullable=False),
        sa.Column("compared_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("scope", name=op.f("pk_fleet_comparisons")),
    )
    op.create_table(
        "server_verdicts",
        sa.Column("account_id", sa.String(length=12), nullable=False),
        sa.Column("spki_digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("check_id", sa.String(length=64), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("finding", sa.JSON(), nullable=False),
        sa.Column("stored_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_server_verdicts_account_id")),
        sa.PrimaryKeyConstraint("account_id", "spki_digest", "check_id", name=op.f("pk_server_verdicts")),
    )

"""Gates, who was connected, alerts, messages for devices, and replacements."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the change."""
    op.create_table(
        "alerts",
        sa.Column("account_id", sa.String(length=12), nullable=False),
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.String(length=64), nullable=False),
        sa.Column("occasion", sa.String(length=200), nullable=False),
        sa.Column("certificate_id", sa.String(length=64), nullable=True),
        sa.Column("thing_name", sa.String(length=128), nullable=True),
        sa.Column("details", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_alerts_account_id")),
        sa.PrimaryKeyConstraint("account_id", "id", name=op.f("pk_alerts")),
    )
    with op.batch_alter_table("alerts", schema=None) as batch_op:
        batch_op.create_index("ix_alerts_account_at", ["account_id", "at", "id"], unique=False)
        batch_op.create_index("uq_alerts_occasion", ["account_id", "occasion"], unique=True)
    op.create_table(
        "connections",
        sa.Column("account_id", sa.String(length=12), nullable=False),
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("gate", sa.String(length=64), nullable=False),
        sa.Column("certificate_id", sa.String(length=64), nullable=False),
        sa.Column("client_id", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("tls_version", sa.String(length=16), nullable=False),
        sa.Column("verdict", sa.String(length=32), nullable=False),
        sa.Column("started_at", sa.BigInteger(), nullable=False),
        sa.Column("seen_at", sa.BigInteger(), nullable=False),
        sa.Column("ended_at", sa.BigInteger(), nullable=True),
        sa.Column("recorded_at", sa.BigInteger(), nullable=True),
        sa.Column("bytes_in", sa.BigInteger(), nullable=True),
        sa.Column("sent_at", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_connections_account_id")),
        sa.PrimaryKeyConstraint("account_id", "id", name=op.f("pk_connections")),
    )
    with op.batch_alter_table("connections", schema=None) as batch_op:
        batch_op.create_index(
            "ix_connections_certificate", ["account_id", "certificate_id", "started_at"], unique=False
        )
        batch_op.create_index("ix_connections_client", ["account_id", "client_id", "started_at"], unique=False)
        batch_op.create_index(
            "ix_connections_open",
            ["account_id", "gate", "client_id"],
            unique=False,
            sqlite_where=sa.text("ended_at IS NULL"),
            postgresql_where=sa.text("ended_at IS NULL"),
        )
        batch_op.create_index(
            "ix_connections_open_certificate",
            ["account_id", "certificate_id"],
            unique=False,
            sqlite_where=sa.text("ended_at IS NULL"),
            postgresql_where=sa.text("ended_at IS NULL"),
        )
        batch_op.create_index("ix_connections_started", ["account_id", "started_at", "id"], unique=False)
    op.create_table(
        "counted_refusals",
        sa.Column("account_id", sa.String(length=12), nullable=False),
        sa.Column("gate", sa.String(length=64), nullable=False),
        sa.Column("digests", sa.LargeBinary(), nullable=False),
        sa.Column("counted_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_counted_refusals_account_id")),
        sa.PrimaryKeyConstraint("account_id", "gate", name=op.f("pk_counted_refusals")),
    )
    op.create_table(
        "device_messages",
        sa.Column("number", sa.BigInteger().with_variant(sa.INTEGER(), "sqlite"), nullable=False),
        sa.Column("account_id", sa.String(length=12), nullable=False),
        sa.Column("topic", sa.Text(), nullable=False),
        sa.Column("payload", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_device_messages_account_id")),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_device_messages")),
        sqlite_autoincrement=True,
    )
    with op.batch_alter_table("device_messages", schema=None) as batch_op:
        batch_op.create_index("ix_device_messages_account", ["account_id", "number"], unique=False)
        batch_op.create_index("ix_device_messages_expires", ["expires_at"], unique=False)
    op.create_table(
        "gates",
        sa.Column("account_id", sa.String(length=12), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("epoch", sa.String(length=32), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("details", sa.JSON(), nullable=False),
        sa.Column("started_at", sa.BigInteger(), nullable=False),
        sa.Column("reported_at", sa.BigInteger(), nullable=False),
        sa.Column("retired_at", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_gates_account_id")),
        sa.PrimaryKeyConstraint("account_id", "name", name=op.f("pk_gates")),
    )
    op.create_table(
        "issued_certificates",
        sa.Column("account_id", sa.String(length=12), nullable=False),
        sa.Column("issuer_id", sa.String(length=64), nullable=False),
        sa.Column("serial", sa.String(length=64), nullable=False),
        sa.Column("certificate_id", sa.String(length=64), nullable=False),
        sa.Column("revoked_at", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_issued_certificates_account_id")),
        sa.PrimaryKeyConstraint("account_id", "issuer_id", "serial", name=op.f("pk_issued_certificates")),
    )
    with op.batch_alter_table("issued_certificates", schema=None) as batch_op:
        batch_op.create_index("ix_issued_certificates_certificate", ["certificate_id"], unique=False)
        batch_op.create_index("ix_issued_certificates_revoked", ["account_id", "issuer_id", "revoked_at"], unique=False)
    op.add_column("issuers", sa.Column("followed", sa.BigInteger(), nullable=False, server_default=sa.text("0")))
    op.create_table(
        "refusals",
        sa.Column("account_id", sa.String(length=12), nullable=False),
        sa.Column("hour", sa.BigInteger(), nullable=False),
        sa.Column("gate", sa.String(length=64), nullable=False),
        sa.Column("certificate_id", sa.String(length=64), nullable=False),
        sa.Column("verdict", sa.String(length=32), nullable=False),
        sa.Column("source", sa.String(length=64), nullable=False),
        sa.Column("client_id", sa.Text(), nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.Column("first_at", sa.BigInteger(), nullable=False),
        sa.Column("last_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_refusals_account_id")),
        sa.PrimaryKeyConstraint(
            "account_id", "hour", "gate", "certificate_id", "verdict", "source", name=op.f("pk_refusals")
        ),
    )
    with op.batch_alter_table("refusals", schema=None) as batch_op:
        batch_op.create_index("ix_refusals_certificate", ["account_id", "certificate_id", "last_at"], unique=False)
    op.create_table(
        "replacement_proofs",
        sa.Column("account_id", sa.String(length=12), nullable=False),
        sa.Column("replacement_id", sa.String(length=40), nullable=False),
        sa.Column("thing_name", sa.String(length=128), nullable=False),
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("kind", sa.String(length=20), nullable=False),
        sa.Column("sealed_secret", sa.LargeBinary(), nullable=True),
        sa.Column("public_key", sa.LargeBinary(), nullable=True),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.Column("used_by", sa.String(length=64), nullable=True),
        sa.Column("used_at", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_replacement_proofs_account_id")),
        sa.PrimaryKeyConstraint("account_id", "replacement_id", "thing_name", "id", name=op.f("pk_replacement_proofs")),
    )
    with op.batch_alter_table("replacement_proofs", schema=None) as batch_op:
        batch_op.create_index("ix_replacement_proofs_id", ["account_id", "id"], unique=False)
    with op.batch_alter_table("former_certificates", schema=None) as batch_op:
        batch_op.create_index("ix_former_certificates_spki", ["account_id", "spki_digest"], unique=False)
    op.create_table(
        "replacement_steps",
        sa.Column("number", sa.BigInteger().with_variant(sa.INTEGER(), "sqlite"), nullable=False),
        sa.Column("account_id", sa.String(length=12), nullable=False),
        sa.Column("replacement_id", sa.String(length=40), nullable=False),
        sa.Column("old_certificate_id", sa.String(length=64), nullable=False),
        sa.Column("thing_name", sa.String(length=128), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("step", sa.String(length=32), nullable=False),
        sa.Column("evidence", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_replacement_steps_account_id")),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_replacement_steps")),
        sqlite_autoincrement=True,
    )
    with op.batch_alter_table("replacement_steps", schema=None) as batch_op:
        batch_op.create_index(
            "ix_replacement_steps_unit", ["account_id", "replacement_id", "thing_name", "number"], unique=False
        )
    op.create_table(
        "replacement_units",
        sa.Column("account_id", sa.String(length=12), nullable=False),
        sa.Column("replacement_id", sa.String(length=40), nullable=False),
        sa.Column("old_certificate_id", sa.String(length=64), nullable=False),
        sa.Column("thing_name", sa.String(length=128), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("open", sa.Boolean(), nullable=False),
        sa.Column("batch", sa.Integer(), nullable=False),
        sa.Column("request_id", sa.String(length=36), nullable=False),
        sa.Column("csr_digest", sa.String(length=64), nullable=True),
        sa.Column("new_certificate_id", sa.String(length=64), nullable=True),
        sa.Column("problem", sa.Text(), nullable=True),
        sa.Column("state_at", sa.BigInteger(), nullable=False),
        sa.Column("evidence", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_replacement_units_account_id")),
        sa.PrimaryKeyConstraint(
            "account_id", "replacement_id", "old_certificate_id", "thing_name", name=op.f("pk_replacement_units")
        ),
    )
    with op.batch_alter_table("replacement_units", schema=None) as batch_op:
        batch_op.create_index("ix_replacement_units_new", ["account_id", "new_certificate_id"], unique=False)
        batch_op.create_index(
            "ix_replacement_units_state", ["account_id", "replacement_id", "state", "batch"], unique=False
        )
        batch_op.create_index("ix_replacement_units_thing", ["account_id", "thing_name", "open"], unique=False)
        batch_op.create_index(
            "uq_replacement_units_open",
            ["account_id", "old_certificate_id", "thing_name"],
            unique=True,
            sqlite_where=sa.text("open = 1"),
            postgresql_where=sa.text("open"),
        )
    op.create_table(
        "replacements",
        sa.Column("account_id", sa.String(length=12), nullable=False),
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("status", sa.String(length=12), nullable=False),
        sa.Column("selection", sa.JSON(), nullable=False),
        sa.Column("settings", sa.JSON(), nullable=False),
        sa.Column("token", sa.String(length=64), nullable=False),
        sa.Column("problem", sa.Text(), nullable=True),
        sa.Column("started_at", sa.BigInteger(), nullable=False),
        sa.Column("ended_at", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_replacements_account_id")),
        sa.PrimaryKeyConstraint("account_id", "id", name=op.f("pk_replacements")),
    )
    with op.batch_alter_table("replacements", schema=None) as batch_op:
        batch_op.create_index("ix_replacements_account_started", ["account_id", "started_at", "id"], unique=False)
        batch_op.create_index("ix_replacements_status", ["status", "started_at"], unique=False)
        batch_op.create_index("uq_replacements_token", ["account_id", "token"], unique=True)
    op.create_table(
        "status_lists",
        sa.Column("account_id", sa.String(length=12), nullable=False),
        sa.Column("issuer_id", sa.String(length=64), nullable=False),
        sa.Column("kind", sa.String(length=8), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("entries", sa.Integer(), nullable=False),
        sa.Column("der", sa.LargeBinary(), nullable=False),
        sa.Column("this_update", sa.BigInteger(), nullable=False),
        sa.Column("next_update", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_status_lists_account_id")),
        sa.PrimaryKeyConstraint("account_id", "issuer_id", "kind", name=op.f("pk_status_lists")),
    )

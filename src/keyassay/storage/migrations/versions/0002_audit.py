"""audit."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the change."""
    op.create_table(
        "catalogues",
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("versions", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_catalogues")),
    )
    op.create_table(
        "key_verdicts",
        sa.Column("spki_digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("catalogue", sa.String(length=64), nullable=False),
        sa.Column("findings", sa.JSON(), nullable=True),
        sa.PrimaryKeyConstraint("spki_digest", name=op.f("pk_key_verdicts")),
    )
    op.create_table(
        "fleet_verdicts",
        sa.Column("account_id", sa.String(length=12), nullable=False),
        sa.Column("spki_digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("check_id", sa.String(length=64), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("finding", sa.JSON(), nullable=False),
        sa.Column("stored_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_fleet_verdicts_account_id")),
        sa.PrimaryKeyConstraint("account_id", "spki_digest", "check_id", name=op.f("pk_fleet_verdicts")),
    )
    op.create_table(
        "former_certificates",
        sa.Column("account_id", sa.String(length=12), nullable=False),
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("der", sa.LargeBinary(), nullable=False),
        sa.Column("spki_digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("left_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_former_certificates_account_id")),
        sa.PrimaryKeyConstraint("account_id", "id", name=op.f("pk_former_certificates")),
    )
    op.create_table(
        "audit_findings",
        sa.Column("account_id", sa.String(length=12), nullable=False),
        sa.Column("id", sa.String(length=128), nullable=False),
        sa.Column("task_id", sa.String(length=40), nullable=False),
        sa.Column("check_name", sa.String(length=128), nullable=False),
        sa.Column("task_started_at", sa.BigInteger(), nullable=False),
        sa.Column("found_at", sa.BigInteger(), nullable=False),
        sa.Column("severity", sa.String(length=8), nullable=False),
        sa.Column("resource_type", sa.String(length=32), nullable=False),
        sa.Column("resource_key", sa.String(length=400), nullable=False),
        sa.Column("resource", sa.JSON(), nullable=False),
        sa.Column("reason_code", sa.String(length=128), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("suppressed", sa.Boolean(), nullable=False),
        sa.Column("evidence", sa.JSON(), nullable=True),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_audit_findings_account_id")),
        sa.PrimaryKeyConstraint("account_id", "id", name=op.f("pk_audit_findings")),
    )
    with op.batch_alter_table("audit_findings", schema=None) as batch_op:
        batch_op.create_index("ix_audit_findings_account_found", ["account_id", "found_at", "id"], unique=False)
        batch_op.create_index(
            "ix_audit_findings_resource", ["account_id", "resource_key", "found_at", "id"], unique=False
        )
        batch_op.create_index(
            "uq_audit_findings_once",
            ["account_id", "task_id", "check_name", "resource_key", "reason_code"],
            unique=True,
        )
    op.create_table(
        "audit_related",
        sa.Column("account_id", sa.String(length=12), nullable=False),
        sa.Column("finding_id", sa.String(length=128), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("resource", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_audit_related_account_id")),
        sa.PrimaryKeyConstraint("account_id", "finding_id", "number", name=op.f("pk_audit_related")),
    )
    op.create_table(
        "audit_suppressions",
        sa.Column("account_id", sa.String(length=12), nullable=False),
        sa.Column("check_name", sa.String(length=128), nullable=False),
        sa.Column("resource_key", sa.String(length=400), nullable=False),
        sa.Column("resource", sa.JSON(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=True),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column("token", sa.String(length=64), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_audit_suppressions_account_id")),
        sa.PrimaryKeyConstraint("account_id", "check_name", "resource_key", name=op.f("pk_audit_suppressions")),
    )
    with op.batch_alter_table("audit_suppressions", schema=None) as batch_op:
        batch_op.create_index("ix_audit_suppressions_token", ["account_id", "token"], unique=False)
    op.create_table(
        "audit_task_checks",
        sa.Column("account_id", sa.String(length=12), nullable=False),
        sa.Column("task_id", sa.String(length=40), nullable=False),
        sa.Column("check_name", sa.String(length=128), nullable=False),
        sa.Column("status", sa.String(length=32), nullable=False),
        sa.Column("total", sa.BigInteger(), nullable=False),
        sa.Column("noncompliant", sa.BigInteger(), nullable=False),
        sa.Column("suppressed", sa.BigInteger(), nullable=False),
        sa.Column("error_code", sa.Text(), nullable=True),
        sa.Column("message", sa.Text(), nullable=True),
        sa.Column("position", sa.JSON(), nullable=True),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_audit_task_checks_account_id")),
        sa.PrimaryKeyConstraint("account_id", "task_id", "check_name", name=op.f("pk_audit_task_checks")),
    )
    op.create_table(
        "audit_tasks",
        sa.Column("account_id", sa.String(length=12), nullable=False),
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("type", sa.String(length=24), nullable=False),
        sa.Column("status", sa.String(length=12), nullable=False),
        sa.Column("scheduled_audit_name", sa.String(length=128), nullable=True),
        sa.Column("cancel", sa.Boolean(), nullable=False),
        sa.Column("started_at", sa.BigInteger(), nullable=False),
        sa.Column("ended_at", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_audit_tasks_account_id")),
        sa.PrimaryKeyConstraint("account_id", "id", name=op.f("pk_audit_tasks")),
    )
    with op.batch_alter_table("audit_tasks", schema=None) as batch_op:
        batch_op.create_index("ix_audit_tasks_account_started", ["account_id", "started_at", "id"], unique=False)
        batch_op.create_index("ix_audit_tasks_status", ["status", "started_at"], unique=False)
    op.create_table(
        "mitigation_actions",
        sa.Column("account_id", sa.String(length=12), nullable=False),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("type", sa.String(length=40), nullable=False),
        sa.Column("role_arn", sa.Text(), nullable=False),
        sa.Column("params", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("modified_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_mitigation_actions_account_id")),
        sa.PrimaryKeyConstraint("account_id", "name", name=op.f("pk_mitigation_actions")),
    )
    op.create_table(
        "mitigation_executions",
        sa.Column("account_id", sa.String(length=12), nullable=False),
        sa.Column("task_id", sa.String(length=128), nullable=False),
        sa.Column("finding_id", sa.String(length=128), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("check_name", sa.String(length=128), nullable=False),
        sa.Column("action_name", sa.String(length=128), nullable=False),
        sa.Column("action_id", sa.String(length=36), nullable=False),
        sa.Column("status", sa.String(length=12), nullable=False),
        sa.Column("started_at", sa.BigInteger(), nullable=False),
        sa.Column("ended_at", sa.BigInteger(), nullable=True),
        sa.Column("error_code", sa.Text(), nullable=True),
        sa.Column("message", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_mitigation_executions_account_id")),
        sa.PrimaryKeyConstraint(
            "account_id", "task_id", "finding_id", "position", name=op.f("pk_mitigation_executions")
        ),
    )
    op.create_table(
        "mitigation_tasks",
        sa.Column("account_id", sa.String(length=12), nullable=False),
        sa.Column("id", sa.String(length=128), nullable=False),
        sa.Column("status", sa.String(length=12), nullable=False),
        sa.Column("target", sa.JSON(), nullable=False),
        sa.Column("audit_task_id", sa.String(length=40), nullable=True),
        sa.Column("mapping", sa.JSON(), nullable=False),
        sa.Column("definitions", sa.JSON(), nullable=False),
        sa.Column("token", sa.String(length=64), nullable=False),
        sa.Column("cancel", sa.Boolean(), nullable=False),
        sa.Column("position", sa.JSON(), nullable=True),
        sa.Column("started_at", sa.BigInteger(), nullable=False),
        sa.Column("ended_at", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_mitigation_tasks_account_id")),
        sa.PrimaryKeyConstraint("account_id", "id", name=op.f("pk_mitigation_tasks")),
    )
    with op.batch_alter_table("mitigation_tasks", schema=None) as batch_op:
        batch_op.create_index("ix_mitigation_tasks_account_started", ["account_id", "started_at", "id"], unique=False)
        batch_op.create_index("ix_mitigation_tasks_status", ["status", "started_at"], unique=False)
        batch_op.create_index("uq_mitigation_tasks_token", ["account_id", "token"], unique=True)
    op.create_table(
        "outbox",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("account_id", sa.String(length=12), nullable=False),
        sa.Column("target", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("status", sa.String(length=10), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("due_at", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("delivered_at", sa.BigInteger(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("execution", sa.JSON(), nullable=True),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_outbox_account_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_outbox")),
    )
    with op.batch_alter_table("outbox", schema=None) as batch_op:
        batch_op.create_index("ix_outbox_account", ["account_id", "status", "created_at", "id"], unique=False)
        batch_op.create_index("ix_outbox_due", ["status", "target", "due_at"], unique=False)
    op.create_table(
        "revocation_lists",
        sa.Column("account_id", sa.String(length=12), nullable=False),
        sa.Column("issuer_digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("source", sa.String(length=400), nullable=False),
        sa.Column("der", sa.LargeBinary(), nullable=False),
        sa.Column("this_update", sa.BigInteger(), nullable=False),
        sa.Column("next_update", sa.BigInteger(), nullable=True),
        sa.Column("stored_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_revocation_lists_account_id")),
        sa.PrimaryKeyConstraint("account_id", "issuer_digest", "source", name=op.f("pk_revocation_lists")),
    )
    op.create_table(
        "scheduled_audits",
        sa.Column("account_id", sa.String(length=12), nullable=False),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("frequency", sa.String(length=10), nullable=False),
        sa.Column("day_of_month", sa.String(length=4), nullable=True),
        sa.Column("day_of_week", sa.String(length=3), nullable=True),
        sa.Column("checks", sa.JSON(), nullable=False),
        sa.Column("due_at", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_scheduled_audits_account_id")),
        sa.PrimaryKeyConstraint("account_id", "name", name=op.f("pk_scheduled_audits")),
    )
    with op.batch_alter_table("scheduled_audits", schema=None) as batch_op:
        batch_op.create_index("ix_scheduled_audits_due", ["due_at"], unique=False)

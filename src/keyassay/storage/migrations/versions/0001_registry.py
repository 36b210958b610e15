"""registry."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the change."""
    op.create_table(
        "accounts",
        sa.Column("id", sa.String(length=12), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("registration_code", sa.String(length=64), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_accounts")),
    )
    op.create_table(
        "changes",
        sa.Column("revision", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("account_id", sa.String(length=12), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("request_id", sa.Text(), nullable=False),
        sa.Column("operation", sa.Text(), nullable=False),
        sa.Column("resource_type", sa.String(length=32), nullable=False),
        sa.Column("resource_id", sa.Text(), nullable=False),
        sa.Column("details", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("revision", name=op.f("pk_changes")),
    )
    with op.batch_alter_table("changes", schema=None) as batch_op:
        batch_op.create_index("ix_changes_account_revision", ["account_id", "revision"], unique=False)
    op.create_table(
        "ended_transfers",
        sa.Column("certificate_id", sa.String(length=64), nullable=False),
        sa.Column("source_account", sa.String(length=12), nullable=False),
        sa.Column("target_account", sa.String(length=12), nullable=False),
        sa.Column("accepted_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("certificate_id", "source_account", name=op.f("pk_ended_transfers")),
    )
    op.create_table(
        "leases",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("holder", sa.Text(), nullable=False),
        sa.Column("fence", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_leases")),
    )
    op.create_table(
        "server",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("epoch", sa.String(length=32), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("token_secret", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_server")),
    )
    op.create_table(
        "access_keys",
        sa.Column("id", sa.String(length=128), nullable=False),
        sa.Column("account_id", sa.String(length=12), nullable=False),
        sa.Column("role", sa.String(length=16), nullable=False),
        sa.Column("sealed_secret", sa.LargeBinary(), nullable=False),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_access_keys_account_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_access_keys")),
    )
    with op.batch_alter_table("access_keys", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_access_keys_account_id"), ["account_id"], unique=False)
    op.create_table(
        "account_documents",
        sa.Column("account_id", sa.String(length=12), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("document", sa.JSON(), nullable=False),
        sa.Column("modified_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_account_documents_account_id")),
        sa.PrimaryKeyConstraint("account_id", "name", name=op.f("pk_account_documents")),
    )
    op.create_table(
        "authorities",
        sa.Column("account_id", sa.String(length=12), nullable=False),
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("status", sa.String(length=20), nullable=False),
        sa.Column("mode", sa.String(length=10), nullable=False),
        sa.Column("der", sa.LargeBinary(), nullable=False),
        sa.Column("subject_digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("spki_digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("auto_registration", sa.Boolean(), nullable=False),
        sa.Column("registration_config", sa.JSON(), nullable=True),
        sa.Column("not_before", sa.BigInteger(), nullable=False),
        sa.Column("not_after", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("modified_at", sa.BigInteger(), nullable=False),
        sa.Column("customer_version", sa.Integer(), nullable=False),
        sa.Column("generation_id", sa.String(length=36), nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_authorities_account_id")),
        sa.PrimaryKeyConstraint("account_id", "id", name=op.f("pk_authorities")),
    )
    with op.batch_alter_table("authorities", schema=None) as batch_op:
        batch_op.create_index("ix_authorities_account_created", ["account_id", "created_at", "id"], unique=False)
        batch_op.create_index("ix_authorities_id", ["id"], unique=False)
        batch_op.create_index(
            "uq_authorities_default",
            ["id"],
            unique=True,
            sqlite_where=sa.text("mode = 'DEFAULT'"),
            postgresql_where=sa.text("mode = 'DEFAULT'"),
        )
        batch_op.create_index("ix_authorities_subject", ["account_id", "subject_digest"], unique=False)
    op.create_table(
        "certificates",
        sa.Column("account_id", sa.String(length=12), nullable=False),
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("status", sa.String(length=20), nullable=False),
        sa.Column("mode", sa.String(length=10), nullable=False),
        sa.Column("der", sa.LargeBinary(), nullable=False),
        sa.Column("spki_digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("ca_certificate_id", sa.String(length=64), nullable=True),
        sa.Column("not_before", sa.BigInteger(), nullable=False),
        sa.Column("not_after", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("modified_at", sa.BigInteger(), nullable=False),
        sa.Column("customer_version", sa.Integer(), nullable=False),
        sa.Column("generation_id", sa.String(length=36), nullable=False),
        sa.Column("previous_owner", sa.String(length=12), nullable=True),
        sa.Column("transfer_target", sa.String(length=12), nullable=True),
        sa.Column("transfer_message", sa.Text(), nullable=True),
        sa.Column("transferred_at", sa.BigInteger(), nullable=True),
        sa.Column("accepted_at", sa.BigInteger(), nullable=True),
        sa.Column("rejected_at", sa.BigInteger(), nullable=True),
        sa.Column("reject_reason", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_certificates_account_id")),
        sa.PrimaryKeyConstraint("account_id", "id", name=op.f("pk_certificates")),
    )
    with op.batch_alter_table("certificates", schema=None) as batch_op:
        batch_op.create_index("ix_certificates_account_created", ["account_id", "created_at", "id"], unique=False)
        batch_op.create_index("ix_certificates_account_status", ["account_id", "status", "id"], unique=False)
        batch_op.create_index(
            "ix_certificates_ca", ["account_id", "ca_certificate_id", "created_at", "id"], unique=False
        )
        batch_op.create_index("ix_certificates_id", ["id"], unique=False)
        batch_op.create_index("ix_certificates_spki", ["account_id", "spki_digest"], unique=False)
        batch_op.create_index(
            "ix_certificates_transfer", ["transfer_target", "status", "transferred_at", "id"], unique=False
        )
    op.create_table(
        "issuers",
        sa.Column("account_id", sa.String(length=12), nullable=False),
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("der", sa.LargeBinary(), nullable=False),
        sa.Column("sealed_key", sa.LargeBinary(), nullable=True),
        sa.Column("key_reference", sa.Text(), nullable=True),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_issuers_account_id")),
        sa.PrimaryKeyConstraint("account_id", "id", name=op.f("pk_issuers")),
    )
    op.create_table(
        "policies",
        sa.Column("account_id", sa.String(length=12), nullable=False),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("default_version", sa.Integer(), nullable=False),
        sa.Column("last_version", sa.Integer(), nullable=False),
        sa.Column("generation_id", sa.String(length=36), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("modified_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_policies_account_id")),
        sa.PrimaryKeyConstraint("account_id", "name", name=op.f("pk_policies")),
    )
    with op.batch_alter_table("policies", schema=None) as batch_op:
        batch_op.create_index("ix_policies_account_created", ["account_id", "created_at", "name"], unique=False)
    op.create_table(
        "policy_attachments",
        sa.Column("account_id", sa.String(length=12), nullable=False),
        sa.Column("target", sa.String(length=200), nullable=False),
        sa.Column("policy_name", sa.String(length=128), nullable=False),
        sa.Column("attached_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_policy_attachments_account_id")),
        sa.PrimaryKeyConstraint("account_id", "target", "policy_name", name=op.f("pk_policy_attachments")),
    )
    with op.batch_alter_table("policy_attachments", schema=None) as batch_op:
        batch_op.create_index("ix_policy_attachments_policy", ["account_id", "policy_name", "target"], unique=False)
    op.create_table(
        "policy_versions",
        sa.Column("account_id", sa.String(length=12), nullable=False),
        sa.Column("policy_name", sa.String(length=128), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("document", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_policy_versions_account_id")),
        sa.PrimaryKeyConstraint("account_id", "policy_name", "version", name=op.f("pk_policy_versions")),
    )
    op.create_table(
        "tags",
        sa.Column("account_id", sa.String(length=12), nullable=False),
        sa.Column("resource", sa.String(length=300), nullable=False),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_tags_account_id")),
        sa.PrimaryKeyConstraint("account_id", "resource", "name", name=op.f("pk_tags")),
    )
    op.create_table(
        "thing_attributes",
        sa.Column("account_id", sa.String(length=12), nullable=False),
        sa.Column("thing_name", sa.String(length=128), nullable=False),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_thing_attributes_account_id")),
        sa.PrimaryKeyConstraint("account_id", "thing_name", "name", name=op.f("pk_thing_attributes")),
    )
    with op.batch_alter_table("thing_attributes", schema=None) as batch_op:
        batch_op.create_index("ix_thing_attributes_value", ["account_id", "name", "value", "thing_name"], unique=False)
    op.create_table(
        "thing_group_members",
        sa.Column("account_id", sa.String(length=12), nullable=False),
        sa.Column("group_name", sa.String(length=128), nullable=False),
        sa.Column("thing_name", sa.String(length=128), nullable=False),
        sa.Column("added_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_thing_group_members_account_id")),
        sa.PrimaryKeyConstraint("account_id", "group_name", "thing_name", name=op.f("pk_thing_group_members")),
    )
    with op.batch_alter_table("thing_group_members", schema=None) as batch_op:
        batch_op.create_index(
            "ix_thing_group_members_thing", ["account_id", "thing_name", "added_at", "group_name"], unique=False
        )
    op.create_table(
        "thing_groups",
        sa.Column("account_id", sa.String(length=12), nullable=False),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("parent_name", sa.String(length=128), nullable=True),
        sa.Column("root_name", sa.String(length=128), nullable=False),
        sa.Column("properties", sa.JSON(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_thing_groups_account_id")),
        sa.PrimaryKeyConstraint("account_id", "name", name=op.f("pk_thing_groups")),
    )
    with op.batch_alter_table("thing_groups", schema=None) as batch_op:
        batch_op.create_index("ix_thing_groups_parent", ["account_id", "parent_name", "name"], unique=False)
    op.create_table(
        "thing_principals",
        sa.Column("account_id", sa.String(length=12), nullable=False),
        sa.Column("thing_name", sa.String(length=128), nullable=False),
        sa.Column("certificate_id", sa.String(length=64), nullable=False),
        sa.Column("exclusive", sa.Boolean(), nullable=False),
        sa.Column("attached_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_thing_principals_account_id")),
        sa.PrimaryKeyConstraint("account_id", "thing_name", "certificate_id", name=op.f("pk_thing_principals")),
    )
    with op.batch_alter_table("thing_principals", schema=None) as batch_op:
        batch_op.create_index(
            "ix_thing_principals_certificate", ["account_id", "certificate_id", "thing_name"], unique=False
        )
    op.create_table(
        "thing_types",
        sa.Column("account_id", sa.String(length=12), nullable=False),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("properties", sa.JSON(), nullable=False),
        sa.Column("deprecated_at", sa.BigInteger(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_thing_types_account_id")),
        sa.PrimaryKeyConstraint("account_id", "name", name=op.f("pk_thing_types")),
    )
    op.create_table(
        "things",
        sa.Column("account_id", sa.String(length=12), nullable=False),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("type_name", sa.String(length=128), nullable=True),
        sa.Column("attributes", sa.JSON(), nullable=False),
        sa.Column("billing_group", sa.String(length=128), nullable=True),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_things_account_id")),
        sa.PrimaryKeyConstraint("account_id", "name", name=op.f("pk_things")),
    )
    with op.batch_alter_table("things", schema=None) as batch_op:
        batch_op.create_index("ix_things_account_type", ["account_id", "type_name", "name"], unique=False)

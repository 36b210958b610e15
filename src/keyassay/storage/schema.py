"""All tables, in one picture; numbered migrations bring a database here (a test compares the two).

Conventions: times are milliseconds since 1970-01-01 UTC; ids, names and states are text as the API shows them; every
row of a resource carries the account that owns it, and every query names the account. JSON columns hold what is
returned as it was given, and nothing that is searched.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    text,
)
from sqlalchemy.dialects import sqlite

METADATA = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)

#: a number of 64 bits that SQLite accepts as the name of its row id
Serial = BigInteger().with_variant(sqlite.INTEGER(), "sqlite")


def _owner() -> Column[str]:
    """The account that a row belongs to; accounts are never deleted while they own anything."""
    return Column("account_id", String(12), ForeignKey("accounts.id"), primary_key=True)


def _of_a_key_and_check() -> tuple[Column[Any], ...]:
    """One finding of one check on a key of an account, as public facts."""
    return (
        _owner(),
        Column("spki_digest", LargeBinary(32), primary_key=True),
        Column("check_id", String(64), primary_key=True),
        Column("version", Integer, nullable=False),
        Column("finding", JSON, nullable=False),
        Column("stored_at", BigInteger, nullable=False),
    )


# The server itself

#: one row: secrets of the database, the feed's epoch and its last revision (locked last in a transaction)
server = Table(
    "server",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("epoch", String(32), nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("token_secret", LargeBinary, nullable=False),
    Column("created_at", BigInteger, nullable=False),
)

accounts = Table(
    "accounts",
    METADATA,
    Column("id", String(12), primary_key=True),
    Column("name", Text, nullable=False),
    Column("registration_code", String(64)),
    Column("created_at", BigInteger, nullable=False),
)

access_keys = Table(
    "access_keys",
    METADATA,
    Column("id", String(128), primary_key=True),
    Column("account_id", String(12), ForeignKey("accounts.id"), nullable=False, index=True),
    Column("role", String(16), nullable=False),
    Column("sealed_secret", LargeBinary, nullable=False),
    Column("active", Boolean, nullable=False),
    Column("created_at", BigInteger, nullable=False),
)

#: what changed, in commit order: the audit trail for people, the feed for gates
changes = Table(
    "changes",
    METADATA,
    Column("revision", BigInteger, primary_key=True, autoincrement=False),
    Column("account_id", String(12), nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("actor", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("request_id", Text, nullable=False),
    Column("operation", Text, nullable=False),
    Column("resource_type", String(32), nullable=False),
    Column("resource_id", Text, nullable=False),
    Column("details", JSON, nullable=False),
    Index("ix_changes_account_revision", "account_id", "revision"),
    # without the type: hardly two resources of different types have one name
    Index("ix_changes_account_resource", "account_id", "resource_id", "revision"),
)

#: who does a piece of work that only one may do; ``fence`` rises with every taking
leases = Table(
    "leases",
    METADATA,
    Column("name", Text, primary_key=True),
    Column("holder", Text, nullable=False),
    Column("fence", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
)

# Certificates

certificates = Table(
    "certificates",
    METADATA,
    _owner(),
    Column("id", String(64), primary_key=True),
    Column("status", String(20), nullable=False),
    Column("mode", String(10), nullable=False),
    Column("der", LargeBinary, nullable=False),
    Column("spki_digest", LargeBinary(32), nullable=False),
    Column("ca_certificate_id", String(64)),
    Column("not_before", BigInteger, nullable=False),
    Column("not_after", BigInteger, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("modified_at", BigInteger, nullable=False),
    Column("customer_version", Integer, nullable=False),
    Column("generation_id", String(36), nullable=False),
    Column("previous_owner", String(12)),
    # of the latest transfer, pending while the status says so
    Column("transfer_target", String(12)),
    Column("transfer_message", Text),
    Column("transferred_at", BigInteger),
    Column("accepted_at", BigInteger),
    Column("rejected_at", BigInteger),
    Column("reject_reason", Text),
    Index("ix_certificates_account_created", "account_id", "created_at", "id"),
    Index("ix_certificates_account_status", "account_id", "status", "id"),
    Index("ix_certificates_ca", "account_id", "ca_certificate_id", "created_at", "id"),
    Index("ix_certificates_id", "id"),
    Index("ix_certificates_spki", "account_id", "spki_digest"),
    Index("ix_certificates_transfer", "transfer_target", "status", "transferred_at", "id"),
)

#: transfers that ended, so that a late cancellation or rejection is told from one of an unknown certificate
ended_transfers = Table(
    "ended_transfers",
    METADATA,
    Column("certificate_id", String(64), primary_key=True),
    Column("source_account", String(12), primary_key=True),
    Column("target_account", String(12), nullable=False),
    Column("accepted_at", BigInteger, nullable=False),
)

#: certificates and authorities that were here and went (deleted, transferred): their keys still break others'
former_certificates = Table(
    "former_certificates",
    METADATA,
    _owner(),
    Column("id", String(64), primary_key=True),
    Column("der", LargeBinary, nullable=False),
    Column("spki_digest", LargeBinary(32), nullable=False),
    Column("left_at", BigInteger, nullable=False),
    Index("ix_former_certificates_spki", "account_id", "spki_digest"),
)

authorities = Table(
    "authorities",
    METADATA,
    _owner(),
    Column("id", String(64), primary_key=True),
    Column("status", String(20), nullable=False),
    Column("mode", String(10), nullable=False),
    Column("der", LargeBinary, nullable=False),
    Column("subject_digest", LargeBinary(32), nullable=False),
    Column("spki_digest", LargeBinary(32), nullable=False),
    Column("auto_registration", Boolean, nullable=False),
    Column("registration_config", JSON),
    Column("not_before", BigInteger, nullable=False),
    Column("not_after", BigInteger, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("modified_at", BigInteger, nullable=False),
    Column("customer_version", Integer, nullable=False),
    Column("generation_id", String(36), nullable=False),
    Index("ix_authorities_account_created", "account_id", "created_at", "id"),
    Index("ix_authorities_subject", "account_id", "subject_digest"),
    Index("ix_authorities_id", "id"),
    Index(  # an authority whose key an account has proven to hold is that account's alone
        "uq_authorities_default",
        "id",
        unique=True,
        sqlite_where=text("mode = 'DEFAULT'"),
        postgresql_where=text("mode = 'DEFAULT'"),
    ),
)

#: the account's own authority: what it issues with; the newest active one issues, older ones still sign CRLs
issuers = Table(
    "issuers",
    METADATA,
    _owner(),
    Column("id", String(64), primary_key=True),
    Column("der", LargeBinary, nullable=False),
    Column("sealed_key", LargeBinary),
    Column("key_reference", Text),
    Column("active", Boolean, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    # the revision of the feed up to which the account's certificates were looked through for what it issued elsewhere
    Column("followed", BigInteger, nullable=False, server_default=text("0")),
    # of every row; it came later than the table
    Column("spki_digest", LargeBinary(32)),
)

#: what the account's own authorities issued, for ever: revoked stays revoked when the certificate has been deleted
issued_certificates = Table(
    "issued_certificates",
    METADATA,
    _owner(),
    Column("issuer_id", String(64), primary_key=True),
    Column("serial", String(64), primary_key=True),
    Column("certificate_id", String(64), nullable=False),
    Column("revoked_at", BigInteger),
    Index("ix_issued_certificates_certificate", "certificate_id"),
    Index("ix_issued_certificates_revoked", "account_id", "issuer_id", "revoked_at"),
)

#: the revocation lists of those authorities as they are served: "complete", "delta", and the "base" of the delta
status_lists = Table(
    "status_lists",
    METADATA,
    _owner(),
    Column("issuer_id", String(64), primary_key=True),
    Column("kind", String(8), primary_key=True),
    Column("number", BigInteger, nullable=False),
    Column("entries", Integer, nullable=False),
    Column("der", LargeBinary, nullable=False),
    Column("this_update", BigInteger, nullable=False),
    Column("next_update", BigInteger, nullable=False),
)

# Things

thing_types = Table(
    "thing_types",
    METADATA,
    _owner(),
    Column("name", String(128), primary_key=True),
    Column("id", String(36), nullable=False),
    Column("properties", JSON, nullable=False),
    Column("deprecated_at", BigInteger),
    Column("created_at", BigInteger, nullable=False),
)

things = Table(
    "things",
    METADATA,
    _owner(),
    Column("name", String(128), primary_key=True),
    Column("id", String(36), nullable=False),
    Column("type_name", String(128)),
    Column("attributes", JSON, nullable=False),
    Column("billing_group", String(128)),
    Column("version", BigInteger, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Index("ix_things_account_type", "account_id", "type_name", "name"),
)

#: attributes once more, one a row, for ListThings by attribute
thing_attributes = Table(
    "thing_attributes",
    METADATA,
    _owner(),
    Column("thing_name", String(128), primary_key=True),
    Column("name", String(128), primary_key=True),
    Column("value", Text, nullable=False),
    Index("ix_thing_attributes_value", "account_id", "name", "value", "thing_name"),
)

thing_groups = Table(
    "thing_groups",
    METADATA,
    _owner(),
    Column("name", String(128), primary_key=True),
    Column("id", String(36), nullable=False),
    Column("parent_name", String(128)),
    Column("root_name", String(128), nullable=False),
    Column("properties", JSON, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Index("ix_thing_groups_parent", "account_id", "parent_name", "name"),
)

thing_group_members = Table(
    "thing_group_members",
    METADATA,
    _owner(),
    Column("group_name", String(128), primary_key=True),
    Column("thing_name", String(128), primary_key=True),
    Column("added_at", BigInteger, nullable=False),
    Index("ix_thing_group_members_thing", "account_id", "thing_name", "added_at", "group_name"),
)

thing_principals = Table(
    "thing_principals",
    METADATA,
    _owner(),
    Column("thing_name", String(128), primary_key=True),
    Column("certificate_id", String(64), primary_key=True),
    Column("exclusive", Boolean, nullable=False),
    Column("attached_at", BigInteger, nullable=False),
    Index("ix_thing_principals_certificate", "account_id", "certificate_id", "thing_name"),
)

# Policies

policies = Table(
    "policies",
    METADATA,
    _owner(),
    Column("name", String(128), primary_key=True),
    Column("default_version", Integer, nullable=False),
    Column("last_version", Integer, nullable=False),
    Column("generation_id", String(36), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("modified_at", BigInteger, nullable=False),
    Index("ix_policies_account_created", "account_id", "created_at", "name"),
)

policy_versions = Table(
    "policy_versions",
    METADATA,
    _owner(),
    Column("policy_name", String(128), primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("document", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
)

#: ``target`` is an ARN's resource part: "cert/ID" or "thinggroup/NAME"
policy_attachments = Table(
    "policy_attachments",
    METADATA,
    _owner(),
    Column("target", String(200), primary_key=True),
    Column("policy_name", String(128), primary_key=True),
    Column("attached_at", BigInteger, nullable=False),
    Index("ix_policy_attachments_policy", "account_id", "policy_name", "target"),
)

#: ``resource`` is an ARN's resource part: "policy/NAME", "cacert/ID", ...
tags = Table(
    "tags",
    METADATA,
    _owner(),
    Column("resource", String(300), primary_key=True),
    Column("name", String(128), primary_key=True),
    Column("value", Text, nullable=False),
)

#: settings of an account that are one document each: "logging", "audit"
account_documents = Table(
    "account_documents",
    METADATA,
    _owner(),
    Column("name", String(64), primary_key=True),
    Column("document", JSON, nullable=False),
    Column("modified_at", BigInteger, nullable=False),
)

# Audits

#: ``cancel`` is set by CancelAuditTask and seen by the worker at its next checkpoint
audit_tasks = Table(
    "audit_tasks",
    METADATA,
    _owner(),
    Column("id", String(40), primary_key=True),
    Column("type", String(24), nullable=False),
    Column("status", String(12), nullable=False),
    Column("scheduled_audit_name", String(128)),
    Column("cancel", Boolean, nullable=False),
    Column("started_at", BigInteger, nullable=False),
    Column("ended_at", BigInteger),
    Index("ix_audit_tasks_account_started", "account_id", "started_at", "id"),
    Index("ix_audit_tasks_status", "status", "started_at"),
)

#: one check of a task: its counts, and how far its worker has come (``position`` is the worker's own)
audit_task_checks = Table(
    "audit_task_checks",
    METADATA,
    _owner(),
    Column("task_id", String(40), primary_key=True),
    Column("check_name", String(128), primary_key=True),
    Column("status", String(32), nullable=False),
    Column("total", BigInteger, nullable=False),
    Column("noncompliant", BigInteger, nullable=False),
    Column("suppressed", BigInteger, nullable=False),
    Column("error_code", Text),
    Column("message", Text),
    Column("position", JSON),
)

#: ``resource_key`` names the resource for look-ups and suppressions: "deviceCertificateId=ID", "account=ID", ...
audit_findings = Table(
    "audit_findings",
    METADATA,
    _owner(),
    Column("id", String(128), primary_key=True),
    Column("task_id", String(40), nullable=False),
    Column("check_name", String(128), nullable=False),
    Column("task_started_at", BigInteger, nullable=False),
    Column("found_at", BigInteger, nullable=False),
    Column("severity", String(8), nullable=False),
    Column("resource_type", String(32), nullable=False),
    Column("resource_key", String(400), nullable=False),
    Column("resource", JSON, nullable=False),
    Column("reason_code", String(128), nullable=False),
    Column("reason", Text, nullable=False),
    Column("suppressed", Boolean, nullable=False),
    Column("evidence", JSON),
    Index("uq_audit_findings_once", "account_id", "task_id", "check_name", "resource_key", "reason_code", unique=True),
    Index("ix_audit_findings_account_found", "account_id", "found_at", "id"),
    Index("ix_audit_findings_resource", "account_id", "resource_key", "found_at", "id"),
)

#: what else a finding concerns; the first ten stand in the finding, all of them are paged
audit_related = Table(
    "audit_related",
    METADATA,
    _owner(),
    Column("finding_id", String(128), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("resource", JSON, nullable=False),
)

audit_suppressions = Table(
    "audit_suppressions",
    METADATA,
    _owner(),
    Column("check_name", String(128), primary_key=True),
    Column("resource_key", String(400), primary_key=True),
    Column("resource", JSON, nullable=False),
    Column("expires_at", BigInteger),
    Column("description", Text),
    Column("token", String(64), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Index("ix_audit_suppressions_token", "account_id", "token"),
)

#: ``due_at`` is when it runs next
scheduled_audits = Table(
    "scheduled_audits",
    METADATA,
    _owner(),
    Column("name", String(128), primary_key=True),
    Column("frequency", String(10), nullable=False),
    Column("day_of_month", String(4)),
    Column("day_of_week", String(3)),
    Column("checks", JSON, nullable=False),
    Column("due_at", BigInteger, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Index("ix_scheduled_audits_due", "due_at"),
)

#: what verdicts were made with: {"profile": label, "checks": {id: version}, "lists": {name: entries}}
catalogues = Table(
    "catalogues",
    METADATA,
    Column("digest", String(64), primary_key=True),
    Column("versions", JSON, nullable=False),
)

#: what the checks of single keys say of a key, whoever has it: findings as public facts, none for nearly all
key_verdicts = Table(
    "key_verdicts",
    METADATA,
    Column("spki_digest", LargeBinary(32), primary_key=True),
    Column("catalogue", String(64), nullable=False),
    Column("findings", JSON(none_as_null=True)),
)

#: what the comparison of all keys of an account says of a key: one finding of one check, as public facts
fleet_verdicts = Table(
    "fleet_verdicts",
    METADATA,
    *_of_a_key_and_check(),
)

#: profile deep: how far the steps of all checks have come on a key, whoever has it, under a budget of CPU seconds;
#: ``steps`` are [check, version, step, done, units, seconds, detail] each; ``complete`` if no budget would go further
deep_verdicts = Table(
    "deep_verdicts",
    METADATA,
    Column("spki_digest", LargeBinary(32), primary_key=True),
    Column("catalogue", String(64), nullable=False),
    Column("budget", Float, nullable=False),
    Column("complete", Boolean, nullable=False),
    Column("failed", Boolean, nullable=False),
    Column("steps", JSON, nullable=False),
    Column("findings", JSON(none_as_null=True)),
    Column("stored_at", BigInteger, nullable=False),
)

#: what the comparison of all accounts' keys says of a key of an account, never whose the other keys are
server_verdicts = Table(
    "server_verdicts",
    METADATA,
    *_of_a_key_and_check(),
)

#: the checks that look at all keys anew: which keys, by which checks, were compared last (a digest); ``scope`` is an
#: account, or "server" for all of them; ``remarks`` are what a budget left out
fleet_comparisons = Table(
    "fleet_comparisons",
    METADATA,
    Column("scope", String(12), primary_key=True),
    Column("compared", String(64), nullable=False),
    Column("remarks", JSON, nullable=False),
    Column("compared_at", BigInteger, nullable=False),
)

#: what stores of compared keys (``audit.fleet_search``, outside the database) have come to: a digest of all that is in
#: one, of which this database has all verdicts; ``checks`` names the checks that compared
fleet_states = Table(
    "fleet_states",
    METADATA,
    Column("scope", String(12), primary_key=True),
    Column("checks", String(64), primary_key=True),
    Column("state", LargeBinary(32), primary_key=True),
    Column("stored_at", BigInteger, nullable=False),
)

#: revocation lists that operators uploaded or that were fetched from permitted hosts, the newest of each issuer
revocation_lists = Table(
    "revocation_lists",
    METADATA,
    _owner(),
    Column("issuer_digest", LargeBinary(32), primary_key=True),
    Column("source", String(400), primary_key=True),
    Column("der", LargeBinary, nullable=False),
    Column("this_update", BigInteger, nullable=False),
    Column("next_update", BigInteger),
    Column("stored_at", BigInteger, nullable=False),
)

# Gates and connections

#: gates of an account and what they last said: the revision that they have applied, and what they saw
gates = Table(
    "gates",
    METADATA,
    _owner(),
    Column("name", String(64), primary_key=True),
    Column("epoch", String(32), nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("details", JSON, nullable=False),
    Column("started_at", BigInteger, nullable=False),
    Column("reported_at", BigInteger, nullable=False),
    Column("retired_at", BigInteger),
)

#: who was connected when: intervals, kept for at least 31 days. ``started_at`` is by the gate's clock, the others are
#: by the server's: ``recorded_at`` when it heard of the session, ``seen_at`` when the gate last had it in its
#: table, ``sent_at`` a time after which the device has certainly sent something, ``ended_at`` is null while it lasts
connections = Table(
    "connections",
    METADATA,
    _owner(),
    Column("id", String(36), primary_key=True),
    Column("gate", String(64), nullable=False),
    Column("certificate_id", String(64), nullable=False),
    Column("client_id", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("tls_version", String(16), nullable=False),
    Column("verdict", String(32), nullable=False),
    Column("started_at", BigInteger, nullable=False),
    Column("seen_at", BigInteger, nullable=False),
    Column("ended_at", BigInteger),
    Column("recorded_at", BigInteger),
    Column("bytes_in", BigInteger),
    Column("sent_at", BigInteger),
    Index("ix_connections_certificate", "account_id", "certificate_id", "started_at"),
    Index("ix_connections_client", "account_id", "client_id", "started_at"),
    Index("ix_connections_started", "account_id", "started_at", "id"),
    Index(
        "ix_connections_open",
        "account_id",
        "gate",
        "client_id",
        sqlite_where=text("ended_at IS NULL"),
        postgresql_where=text("ended_at IS NULL"),
    ),
    Index(
        "ix_connections_open_certificate",
        "account_id",
        "certificate_id",
        sqlite_where=text("ended_at IS NULL"),
        postgresql_where=text("ended_at IS NULL"),
    ),
)

#: attempts that a gate refused, counted by the hour (``hour`` is its first millisecond)
refusals = Table(
    "refusals",
    METADATA,
    _owner(),
    Column("hour", BigInteger, primary_key=True),
    Column("gate", String(64), primary_key=True),
    Column("certificate_id", String(64), primary_key=True),
    Column("verdict", String(32), primary_key=True),
    Column("source", String(64), primary_key=True),
    Column("client_id", Text, nullable=False),
    Column("count", BigInteger, nullable=False),
    Column("first_at", BigInteger, nullable=False),
    Column("last_at", BigInteger, nullable=False),
    Index("ix_refusals_certificate", "account_id", "certificate_id", "last_at"),
)

#: the attempts that a gate told last, by their digests: what it tells again is not counted again
counted_refusals = Table(
    "counted_refusals",
    METADATA,
    _owner(),
    Column("gate", String(64), primary_key=True),
    Column("digests", LargeBinary, nullable=False),
    Column("counted_at", BigInteger, nullable=False),
)

#: what somebody should look at now; ``occasion`` tells apart what would otherwise be said again and again
alerts = Table(
    "alerts",
    METADATA,
    _owner(),
    Column("id", String(36), primary_key=True),
    Column("at", BigInteger, nullable=False),
    Column("kind", String(64), nullable=False),
    Column("occasion", String(200), nullable=False),
    Column("certificate_id", String(64)),
    Column("thing_name", String(128)),
    Column("details", JSON, nullable=False),
    Index("ix_alerts_account_at", "account_id", "at", "id"),
    Index("uq_alerts_occasion", "account_id", "occasion", unique=True),
)

#: messages for devices and for topics of the registry, which every gate publishes at its broker
device_messages = Table(
    "device_messages",
    METADATA,
    Column("number", Serial, primary_key=True),
    Column("account_id", String(12), ForeignKey("accounts.id"), nullable=False),
    Column("topic", Text, nullable=False),
    Column("payload", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Index("ix_device_messages_account", "account_id", "number"),
    Index("ix_device_messages_expires", "expires_at"),
    sqlite_autoincrement=True,  # numbers are followed, and never given again
)

# Replacement

#: ``settings`` is what the operator asked for: batch, halt on failures, group, proof, grace, issuing
replacements = Table(
    "replacements",
    METADATA,
    _owner(),
    Column("id", String(40), primary_key=True),
    Column("status", String(12), nullable=False),
    Column("selection", JSON, nullable=False),
    Column("settings", JSON, nullable=False),
    Column("token", String(64), nullable=False),
    Column("problem", Text),
    Column("started_at", BigInteger, nullable=False),
    Column("ended_at", BigInteger),
    Index("ix_replacements_account_started", "account_id", "started_at", "id"),
    Index("ix_replacements_status", "status", "started_at"),
    Index("uq_replacements_token", "account_id", "token", unique=True),
)

#: one old certificate at one thing (empty for a certificate without any); ``open`` until nothing is left to do
replacement_units = Table(
    "replacement_units",
    METADATA,
    _owner(),
    Column("replacement_id", String(40), primary_key=True),
    Column("old_certificate_id", String(64), primary_key=True),
    Column("thing_name", String(128), primary_key=True),
    Column("state", String(16), nullable=False),
    Column("open", Boolean, nullable=False),
    Column("batch", Integer, nullable=False),
    Column("request_id", String(36), nullable=False),
    Column("csr_digest", String(64)),
    Column("new_certificate_id", String(64)),
    Column("problem", Text),
    Column("state_at", BigInteger, nullable=False),
    Column("evidence", JSON, nullable=False),
    Index("ix_replacement_units_state", "account_id", "replacement_id", "state", "batch"),
    Index("ix_replacement_units_thing", "account_id", "thing_name", "open"),
    Index("ix_replacement_units_new", "account_id", "new_certificate_id"),
    Index(
        "uq_replacement_units_open",
        "account_id",
        "old_certificate_id",
        "thing_name",
        unique=True,
        sqlite_where=text("open = 1"),  # as queries say it: else they would not use it
        postgresql_where=text("open"),
    ),
)

#: every step of every unit, with its evidence
replacement_steps = Table(
    "replacement_steps",
    METADATA,
    Column("number", Serial, primary_key=True),
    Column("account_id", String(12), ForeignKey("accounts.id"), nullable=False),
    Column("replacement_id", String(40), nullable=False),
    Column("old_certificate_id", String(64), nullable=False),
    Column("thing_name", String(128), nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("step", String(32), nullable=False),
    Column("evidence", JSON, nullable=False),
    Index("ix_replacement_steps_unit", "account_id", "replacement_id", "thing_name", "number"),
    sqlite_autoincrement=True,
)

#: how a thing proves that a request comes from it; ``used_by`` is the digest of the request that it proved.
#: Rows of kind "request" and "waiting" have a request's DER in ``public_key``: see ``replacement.proofs``
replacement_proofs = Table(
    "replacement_proofs",
    METADATA,
    _owner(),
    Column("replacement_id", String(40), primary_key=True),
    Column("thing_name", String(128), primary_key=True),
    Column("id", String(64), primary_key=True),
    Column("kind", String(20), nullable=False),
    Column("sealed_secret", LargeBinary),
    Column("public_key", LargeBinary),
    Column("expires_at", BigInteger, nullable=False),
    Column("used_by", String(64)),
    Column("used_at", BigInteger),
    Index("ix_replacement_proofs_id", "account_id", "id"),
)

# Mitigation

mitigation_actions = Table(
    "mitigation_actions",
    METADATA,
    _owner(),
    Column("name", String(128), primary_key=True),
    Column("id", String(36), nullable=False),
    Column("type", String(40), nullable=False),
    Column("role_arn", Text, nullable=False),
    Column("params", JSON, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("modified_at", BigInteger, nullable=False),
)

#: ``definitions`` are the actions as they were at the start; ``position`` how far the worker has come;
#: ``audit_task_id`` is null where findings are named
mitigation_tasks = Table(
    "mitigation_tasks",
    METADATA,
    _owner(),
    Column("id", String(128), primary_key=True),
    Column("status", String(12), nullable=False),
    Column("target", JSON, nullable=False),
    Column("audit_task_id", String(40)),
    Column("mapping", JSON, nullable=False),
    Column("definitions", JSON, nullable=False),
    Column("token", String(64), nullable=False),
    Column("cancel", Boolean, nullable=False),
    Column("position", JSON),
    Column("started_at", BigInteger, nullable=False),
    Column("ended_at", BigInteger),
    Index("ix_mitigation_tasks_account_started", "account_id", "started_at", "id"),
    Index("ix_mitigation_tasks_status", "status", "started_at"),
    Index("uq_mitigation_tasks_token", "account_id", "token", unique=True),
)

mitigation_executions = Table(
    "mitigation_executions",
    METADATA,
    _owner(),
    Column("task_id", String(128), primary_key=True),
    Column("finding_id", String(128), primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("check_name", String(128), nullable=False),
    Column("action_name", String(128), nullable=False),
    Column("action_id", String(36), nullable=False),
    Column("status", String(12), nullable=False),
    Column("started_at", BigInteger, nullable=False),
    Column("ended_at", BigInteger),
    Column("error_code", Text),
    Column("message", Text),
)

#: messages on their way out, at least once, each with a stable id; ``execution`` waits for the delivery
outbox = Table(
    "outbox",
    METADATA,
    Column("id", String(36), primary_key=True),
    Column("account_id", String(12), ForeignKey("accounts.id"), nullable=False),
    Column("target", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("body", Text, nullable=False),
    Column("status", String(10), nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("due_at", BigInteger, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("delivered_at", BigInteger),
    Column("error", Text),
    Column("execution", JSON),
    Index("ix_outbox_due", "status", "target", "due_at"),
    Index("ix_outbox_account", "account_id", "status", "created_at", "id"),
)

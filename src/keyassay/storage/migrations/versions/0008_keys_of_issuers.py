"""Digests of the keys of issuing authorities, which are compared with all others."""

import hashlib

import sqlalchemy as sa
from alembic import op
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_ISSUERS = sa.table(
    "issuers",
    sa.column("account_id", sa.String),
    sa.column("id", sa.String),
    sa.column("der", sa.LargeBinary),
    sa.column("spki_digest", sa.LargeBinary),
)


def upgrade() -> None:
    """Make the change."""
    op.add_column("issuers", sa.Column("spki_digest", sa.LargeBinary(length=32), nullable=True))
    connection = op.get_bind()
    for row in connection.execute(sa.select(_ISSUERS)).all():
        key = x509.load_der_x509_certificate(bytes(row.der)).public_key()
        digest = hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()
        here = (_ISSUERS.c.account_id == row.account_id) & (_ISSUERS.c.id == row.id)
        connection.execute(sa.update(_ISSUERS).where(here).values(spki_digest=digest))

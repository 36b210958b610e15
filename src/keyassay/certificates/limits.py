"""The bounds that keep hostile input cheap, all in one place and all documented.

Every number is a default that a caller may change; none may be switched off.
"""

from __future__ import annotations

from dataclasses import dataclass

from keyassay.certificates.public_key import PublicKey, RsaPublicKey


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on what is read.

    Attributes:
        item_bytes: bytes of one certificate, request or key in DER; larger is unreadable.
        revocation_bytes: the same for CRLs and OCSP responses, which list many certificates.
        modulus_bits: moduli above this are reported as absurd without any arithmetic.
        exponent_bits: likewise for public exponents.
        nesting: depth of ASN.1, JSON, PKCS #7 or archives within archives.
        archive_members: members of one archive.
        archive_bytes: bytes that one archive may expand to, all members together.
        archive_ratio: expansion of one member relative to its compressed size, beyond the first mebibyte.
        zip_directory_bytes: size of a zip archive's directory, which is read whole (about 500,000 members).
        line_bytes: length of one line of text; the rest of a longer one is passed over and reported.
        file_bytes: what is read whole when a file is neither PEM text nor line-oriented (DER, PKCS #12, JSON).
        unreadable_per_source: records of unreadable items per file that are kept one by one; further ones are
            counted in a last record.
    """

    item_bytes: int = 64 * 1024
    revocation_bytes: int = 64 * 1024 * 1024
    modulus_bits: int = 16_384
    exponent_bits: int = 16_384
    nesting: int = 16
    archive_members: int = 2_000_000
    archive_bytes: int = 64 * 1024**3
    archive_ratio: int = 200
    zip_directory_bytes: int = 32 * 1024**2
    line_bytes: int = 1024 * 1024
    file_bytes: int = 64 * 1024 * 1024
    unreadable_per_source: int = 1_000

    def exceeded_by(self, key: PublicKey | None) -> bool:
        """Whether the numbers of a key are too large for arithmetic: only checks of ``any_size`` see it."""
        return isinstance(key, RsaPublicKey) and (
            key.modulus.bit_length() > self.modulus_bits or key.exponent.bit_length() > self.exponent_bits
        )


DEFAULT_LIMITS = Limits()

"""A nonce of an issuer that is not in the run gives its private key: shown by a signature that verifies."""

from __future__ import annotations

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from keyassay.bulk.fleet import fleet_of
from keyassay.checks import Context, check
from keyassay.findings import Profile
from vectors_of_checks import cases_of


def test_the_private_key_of_an_absent_issuer_verifies_its_certificates() -> None:
    absent = [case for case in cases_of("fleet-signature-nonce") if "not there" in case.name]
    assert len(absent) >= 3
    for case in absent:
        found = dict(check("fleet-signature-nonce").find(fleet_of(case.items), Context(profile=Profile.STANDARD)))
        assert set(found) == set(case.weak)
        for position, verdict in found.items():
            d = verdict.evidence.secrets()["issuer_private_key"]
            assert isinstance(d, int)
            certificate = x509.load_der_x509_certificate(case.items[position].der or b"")
            ec.derive_private_key(d, ec.SECP256R1()).public_key().verify(
                certificate.signature, certificate.tbs_certificate_bytes, ec.ECDSA(hashes.SHA256())
            )


def test_each_cause_is_told_by_its_name() -> None:
    """What the vectors plant is what the message says."""
    words = {
        "one nonce twice": "one nonce",
        "a nonce and its negative": "one nonce",
        "a nonce of 7": "anyone guesses",
        "the private key as nonce": "the nonce is the private key",
        "the digest as nonce": "the nonce is the digest",
        "three nonces in equal steps": "equal steps",
        "a counter as nonce": "1 times the one before plus 1",
        "each nonce twice the one before": "2 times the one before plus 0",
        "a linear congruential generator": "linear congruential",
        "two issuers share two nonces": "two signers",
        "DSA: one nonce twice": "one nonce",
        "DSA: the private key as nonce": "the nonce is the private key",
    }
    for case in cases_of("fleet-signature-nonce"):
        if case.name in words:
            found = list(check("fleet-signature-nonce").find(fleet_of(case.items), Context(profile=Profile.STANDARD)))
            assert found
            assert any(words.pop(case.name) in verdict.message for _, verdict in found[:1])
    assert words == {}

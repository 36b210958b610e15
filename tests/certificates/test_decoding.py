"""Items from encodings: keys that strict parsers refuse, keys that no check knows, and what a damaged one still says."""

from __future__ import annotations

import base64
import json
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st

from certificate_forms import (
    DER,
    EXPLICIT_FALSE,
    SPKI,
    certificate,
    der,
    ec_key,
    forms,
    items_of,
    jwk,
    ocsp_response,
    openssl,
    operated,
    revocation_list,
    rsa_key,
    with_key,
)
from keyassay.certificates.decoding import decode, sniff_der
from keyassay.certificates.der import (
    BIT_STRING,
    INTEGER,
    OCTET_STRING,
    SEQUENCE,
    element,
    integer_element,
    oid_element,
)
from keyassay.certificates.item import Item, Kind, RawItem
from keyassay.certificates.limits import Limits
from keyassay.certificates.public_key import (
    DsaPublicKey,
    EcPublicKey,
    OkpPublicKey,
    RsaPublicKey,
    UnsupportedPublicKey,
)

RSA = element(SEQUENCE, oid_element("1.2.840.113549.1.1.1"), b"\x05\x00")
EC = "1.2.840.10045.2.1"
REFUSED = "the strict parser refuses it"


def item(data: bytes, label: str = "CERTIFICATE", limits: Limits = Limits()) -> Item:  # noqa: B008  frozen
    """The item of one encoding, which has to be the same alone and among others."""
    raw = RawItem("x", 0, 0, label, data)
    alone = decode([raw], limits)[0]
    among = decode([RawItem("x", 0, 0, "CERTIFICATE", der())] * 20 + [raw], limits)[20]
    assert among == alone
    assert among.signed == alone.signed
    return alone


def rsa_spki(*numbers: bytes) -> bytes:
    return element(SEQUENCE, RSA, element(BIT_STRING, b"\0", element(SEQUENCE, *numbers)))


def ec_spki(parameters: bytes, point: bytes) -> bytes:
    return element(SEQUENCE, element(SEQUENCE, oid_element(EC), parameters), element(BIT_STRING, b"\0", point))


# What strict parsers refuse


@pytest.mark.parametrize(
    ("modulus", "exponent"),
    [(2**2047 + 2, 65537), (15, 1), (0, 0), (2**262_143 + 1, 3)],
    ids=["even", "e=1", "zero", "huge"],
)
def test_rsa_numbers_of_any_kind_are_read(modulus: int, exponent: int) -> None:
    found = item(with_key(rsa_spki(integer_element(modulus), integer_element(exponent))))
    assert found.key == RsaPublicKey(modulus, exponent)
    assert found.assessed


def test_a_negative_serial_number_is_read_with_a_notice() -> None:
    found = item(operated(der(), serial=b"\x02\x01\x85"))
    assert found.signed is not None
    assert found.signed.serial_number == -123
    assert "the serial number is negative" in found.notices
    assert isinstance(found.key, EcPublicKey)


def test_the_strict_parsers_warnings_stay_off_standard_error(tmp_path: Path) -> None:
    (tmp_path / "a.der").write_bytes(operated(der(), serial=b"\x02\x01\x85"))
    program = "import sys; from keyassay.cli.main import run; sys.exit(run(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", program, "scan", "--no-fleet", "--profile", "aws", tmp_path / "a.der"],
        capture_output=True,
        check=True,
    )
    assert done.stderr == b""


@pytest.mark.parametrize(
    "parts",
    [
        {"extensions": EXPLICIT_FALSE},
        {"serial": b"\x02\x02\x00\x05"},
        {"version": bytes.fromhex("a003020100")},
    ],
    ids=["critical false", "serial not minimal", "explicit version 1"],
)
def test_what_the_strict_parser_refuses_is_assessed_with_a_notice(parts: dict[str, bytes]) -> None:
    data = operated(der(), **parts)
    with pytest.raises(ValueError):
        x509.load_der_x509_certificate(data)
    found = item(data)
    assert found.key == item(der()).key
    assert any(notice.startswith(REFUSED) for notice in found.notices)
    assert found.signed is not None
    assert found.signed.subject == item(der()).signed.subject  # type: ignore[union-attr]


def test_integers_that_are_not_minimal_or_negative_are_read_with_a_notice() -> None:
    modulus = 0xC1 << 2040 | 1
    octets = modulus.to_bytes(256, "big")
    bare = element(INTEGER, octets)
    padded = element(INTEGER, b"\0\0" + octets)
    for number, notice in (
        (bare, "modulus is encoded as a negative integer; read without sign"),
        (padded, "modulus is not minimally encoded"),
    ):
        found = item(with_key(rsa_spki(number, integer_element(65537))))
        assert found.key == RsaPublicKey(modulus, 65537)
        assert notice in found.notices


@pytest.mark.parametrize("octets", [b"\x81\0\1", b"\xff", b"\xff" * 60_000], ids=["3 octets", "-1", "60,000 octets"])
def test_negative_exponents_are_read_as_openssl_does_with_a_notice(octets: bytes) -> None:
    """OpenSSL takes such a key and works with it, so that it is assessed; Go and cryptography refuse it."""
    modulus = 0xC1 << 2040 | 1
    exponent = int.from_bytes(octets, "big")
    data = rsa_spki(integer_element(modulus), element(INTEGER, octets))
    notice = "exponent is encoded as a negative integer; read without sign"
    found = item(data, "PUBLIC KEY")
    assert found.key == RsaPublicKey(modulus, exponent)
    assert notice in found.notices
    assert notice in item(with_key(data)).notices
    with pytest.raises(ValueError):
        serialization.load_der_public_key(data)
    if len(octets) < 10:
        told = openssl("rsa", "-pubin", "-inform", "DER", "-noout", "-text", data=data)
        assert f"Exponent: {exponent} (0x{exponent:x})".encode() in told
    private = element(
        SEQUENCE, integer_element(0), element(INTEGER, modulus.to_bytes(256, "big")), element(INTEGER, octets)
    )
    (whole,) = items_of(
        b"-----BEGIN RSA PRIVATE KEY-----\n" + base64.encodebytes(private) + b"-----END RSA PRIVATE KEY-----\n"
    )
    assert whole.key == found.key
    assert {notice, "modulus is encoded as a negative integer; read without sign"} <= set(whole.notices)


def test_negative_numbers_of_ssh_keys_are_read_with_a_notice() -> None:
    modulus = 0xC1 << 2040 | 1
    parts = (b"ssh-rsa", b"\x81\0\1", modulus.to_bytes(256, "big"))
    blob = b"".join(struct.pack(">I", len(part)) + part for part in parts)
    (found,) = items_of(b"ssh-rsa " + base64.b64encode(blob) + b" somebody\n")
    assert found.key == RsaPublicKey(modulus, 0x810001)
    assert found.notices == tuple(
        f"{what} is encoded as a negative integer; read without sign" for what in ("exponent", "modulus")
    )


@pytest.mark.parametrize("point", [b"\x04" + b"\x11" * 64, b"", b"\0", b"\x05" * 65, b"\x04" + b"\xff" * 64])
def test_points_off_the_curve_are_read_as_they_are(point: bytes) -> None:
    found = item(with_key(ec_spki(oid_element("1.2.840.10045.3.1.7"), point)))
    assert found.key == EcPublicKey("P-256", point)
    assert found.assessed


def test_explicit_parameters_by_openssl_are_read() -> None:
    for curve, field in (("prime256v1", "prime"), ("sect283r1", "binary")):
        private = openssl("ecparam", "-name", curve, "-genkey", "-param_enc", "explicit", "-noout")
        data = openssl("ec", "-pubout", "-outform", "DER", "-param_enc", "explicit", data=private)
        found = item(with_key(data))
        assert isinstance(found.key, EcPublicKey)
        assert found.key.curve == "explicit"
        assert found.key.parameters is not None
        assert found.key.parameters.field == field
        if field == "prime":
            assert found.key.parameters.p == 2**256 - 2**224 + 2**192 + 2**96 - 1
            assert found.key.parameters.cofactor == 1


@pytest.mark.parametrize(
    ("oid", "name"),
    [
        ("2.16.840.1.101.3.4.3.17", "ML-DSA-44"),
        ("2.16.840.1.101.3.4.3.20", "SLH-DSA-SHA2-128s"),
        ("1.2.643.7.1.1.1.1", "GOST R 34.10-2012 (256 bits)"),
        ("2.16.840.1.114027.80.8.1.1", "2.16.840.1.114027.80.8.1.1"),
        ("1.2.840.113549.1.3.1", "Diffie-Hellman"),
    ],
)
def test_types_that_no_check_knows_are_not_assessed(oid: str, name: str) -> None:
    spki = element(SEQUENCE, element(SEQUENCE, oid_element(oid)), element(BIT_STRING, b"\0", bytes(100)))
    for found in (item(with_key(spki)), item(spki, "PUBLIC KEY")):
        assert isinstance(found.key, UnsupportedPublicKey)
        assert found.error == f"not assessed: no check knows {name} keys"
        assert not found.assessed
        assert found.kind is not Kind.UNREADABLE


def test_ml_dsa_by_the_library_is_not_assessed() -> None:
    from cryptography.hazmat.primitives.asymmetric import mldsa

    data = mldsa.MLDSA44PrivateKey.generate().public_key().public_bytes(DER, SPKI)
    assert item(data, "PUBLIC KEY").error == "not assessed: no check knows ML-DSA-44 keys"


def test_curve_keys_without_a_curve_of_their_own_are_not_assessed() -> None:
    for parameters in (b"", b"\x05\x00"):
        found = item(with_key(ec_spki(parameters, b"\x04" * 65)))
        assert (found.error or "").startswith("not assessed")


@pytest.mark.parametrize(
    ("openssl_name", "name"),
    [
        ("secp224r1", "P-224"),
        ("secp256k1", "secp256k1"),
        ("brainpoolP256r1", "brainpoolP256r1"),
        ("sect283k1", "sect283k1"),
        ("SM2", "SM2"),
    ],
)
def test_curves_have_their_usual_names(openssl_name: str, name: str) -> None:
    private = openssl("genpkey", "-algorithm", "EC", "-pkeyopt", f"ec_paramgen_curve:{openssl_name}")
    key = item(openssl("pkey", "-pubout", "-outform", "DER", data=private), "PUBLIC KEY").key
    assert isinstance(key, EcPublicKey)
    assert key.curve == name


# Signed structures


def test_revocation_lists_and_ocsp_responses_are_signatures_of_their_issuer() -> None:
    for data, label in ((revocation_list().public_bytes(DER), "X509 CRL"), (ocsp_response(), "OCSP RESPONSE")):
        found = item(data, label)
        assert found.signed is not None
        assert found.signed.issuer == certificate().subject.public_bytes()
        ec_key().public_key().verify(found.signed.signature, found.signed.signed_part, ec.ECDSA(hashes.SHA256()))


def test_signed_fields_are_those_of_the_certificate() -> None:
    cert = certificate("\u540d,+ \\", "rsa")
    found = item(cert.public_bytes(DER))
    assert found.signed is not None
    assert found.signed.serial_number == cert.serial_number
    assert found.signed.signed_part == cert.tbs_certificate_bytes
    assert found.signed.signature == cert.signature
    assert found.signed.not_before == int(cert.not_valid_before_utc.timestamp())
    assert found.signed.signature_algorithm == cert.signature_algorithm_oid.dotted_string
    assert found.spki == cert.public_key().public_bytes(DER, SPKI)


# JWK


@pytest.mark.parametrize(
    ("jwk_", "reason"),
    [
        ({"kty": "RSA"}, "JWK: member 'n' is missing or no string"),
        ({"kty": "RSA", "n": 5, "e": "AQAB"}, "JWK: member 'n' is missing or no string"),
        ({"kty": "RSA", "n": "A!B=", "e": "AQAB"}, "JWK: member 'n' is not base64url"),
        ({"kty": "RSA", "n": "AQA B", "e": "AQAB"}, "JWK: member 'n' is not base64url"),
        ({"kty": "EC", "crv": "P-256", "x": "A" * 400, "y": "AA"}, "JWK: a coordinate is too long for the curve"),
        ({"kty": "oct", "k": "AAAA"}, "not assessed: a symmetric key"),
        ({"kty": "EC", "crv": ["P-256"], "x": "AA", "y": "AA"}, "not assessed: no check knows the curve \"['P-256']\""),
        ({"kty": "EC", "crv": "x" * 100, "x": "AA"}, f"not assessed: no check knows the curve {'x' * 40!r}"),
        ({"kty": "OKP", "crv": "Ed9", "x": "AA"}, "not assessed: no check knows the curve 'Ed9'"),
        ({"kty": "AKP", "alg": "ML-DSA-44"}, "not assessed: no check knows keys of the type 'AKP'"),
    ],
)
def test_wrong_jwks_say_what_is_wrong(jwk_: dict[str, object], reason: str) -> None:
    (found,) = items_of(json.dumps(jwk_).encode())
    assert found.error == reason
    assert not found.assessed


def test_jwks_with_either_alphabet_and_padding_are_the_same_key() -> None:
    text = {name: value.replace("-", "+").replace("_", "/") + "=" for name, value in jwk().items() if name in "xy"}
    (found,) = items_of(json.dumps({**jwk(), **text}).encode())
    (same,) = items_of(json.dumps(jwk()).encode())
    assert found.key == same.key
    assert found.spki == ec_key().public_key().public_bytes(DER, SPKI)


def test_all_kinds_of_bare_keys_have_the_spki_of_the_library() -> None:
    for form in ("pkcs1", "openssh", "rsa jwk"):
        assert items_of(forms()[form][0])[0].spki == rsa_key().public_key().public_bytes(DER, SPKI)


# Bounds


def test_items_may_have_only_so_many_bytes() -> None:
    limits = Limits(item_bytes=100, revocation_bytes=200)
    found = item(der(), limits=limits)
    assert found.error == f"{len(der()):,} bytes are more than the 100 that one item may have"
    assert item(revocation_list().public_bytes(DER), "X509 CRL", limits).kind is Kind.CRL


def test_truncated_certificates_are_unreadable() -> None:
    for size in range(0, len(der()), 7):
        assert item(der()[:size]).kind is Kind.UNREADABLE


def test_bytes_after_a_certificate_are_told() -> None:
    found = item(der() + b"more")
    assert found.der == der()
    assert "bytes follow the certificate" in found.notices


# Laws


@given(st.sampled_from(["ec", "rsa"]), st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=4))
@settings(max_examples=300, deadline=None)
def test_what_the_library_accepts_has_the_same_numbers(public: str, changes: list[tuple[int, int]]) -> None:
    data = bytearray(certificate("device", public).public_bytes(DER))
    for place, value in changes:
        data[place % len(data)] = value
    found = item(bytes(data))
    try:
        cert = x509.load_der_x509_certificate(bytes(data))
        key = cert.public_key()
    except Exception:  # noqa: BLE001  whatever it refuses, it has nothing to compare
        return
    if isinstance(found.key, UnsupportedPublicKey):
        return
    encoded = key.public_bytes(DER, SPKI)
    assert found.key == item(encoded, "PUBLIC KEY").key
    assert found.signed is not None
    assert found.signed.serial_number == cert.serial_number
    assert found.signed.signature == cert.signature
    assert found.signed.signed_part == cert.tbs_certificate_bytes


@given(st.integers(0, 2**600), st.integers(0, 2**80))
def test_rsa_keys_come_back_from_every_form(modulus: int, exponent: int) -> None:
    spki = rsa_spki(integer_element(modulus), integer_element(exponent))
    e, n = (number.to_bytes(number.bit_length() // 8 + 1, "big") for number in (exponent, modulus))
    blob = b"".join(len(part).to_bytes(4, "big") + part for part in (b"ssh-rsa", e, n))
    members = {name: base64.urlsafe_b64encode(octets).decode() for name, octets in (("n", n), ("e", e))}
    texts = (b"ssh-rsa " + base64.b64encode(blob) + b"\n", json.dumps({"kty": "RSA", **members}).encode())
    for found in (item(spki, "PUBLIC KEY"), *(one for text in texts for one in items_of(text))):
        assert found.key == RsaPublicKey(modulus, exponent)
        assert found.spki == spki


@pytest.mark.parametrize("form", ["der", "request der", "crl der", "ocsp response", "spki der", "pkcs1 der"])
def test_the_shape_of_der_tells_its_label(form: str) -> None:
    label = {
        "der": "CERTIFICATE", "request der": "CERTIFICATE REQUEST", "crl der": "X509 CRL",
        "ocsp response": "OCSP RESPONSE", "spki der": "PUBLIC KEY", "pkcs1 der": "RSA PUBLIC KEY",
    }[form]  # fmt: skip
    assert sniff_der(forms()[form][0]) == label
    assert sniff_der(element(OCTET_STRING, b"")) == ""


def test_okp_and_dsa_keys_are_read_whole() -> None:
    from certificate_forms import dsa_key

    numbers = dsa_key().public_key().public_numbers()
    domain = numbers.parameter_numbers
    (found,) = items_of(forms()["dsa spki"][0])
    assert found.key == DsaPublicKey(domain.p, domain.q, domain.g, numbers.y)
    (found,) = items_of(forms()["ed448 spki"][0])
    assert isinstance(found.key, OkpPublicKey)
    assert (found.key.type, len(found.key.encoded)) == ("ed448", 57)
    assert serialization.load_der_public_key(found.spki or b"").public_bytes_raw() == found.key.encoded  # type: ignore[union-attr]

"""Key stores and private keys by real tools: certificates and public parts, passwords right, wrong and missing."""

from __future__ import annotations

import hashlib
import struct
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import pkcs7, pkcs12

from certificate_forms import (
    CLEAR,
    DER,
    EXPLICIT_FALSE,
    KEYSTORES,
    PEM,
    PKCS8,
    TRADITIONAL,
    armoured,
    certificate,
    der,
    ec_key,
    errors,
    forms,
    items_of,
    kinds,
    openssl,
    operated,
    paths_of,
    pem,
    revocation_list,
    rsa_key,
)
from keyassay.certificates.der import INTEGER, OCTET_STRING, SEQUENCE, element, integer_element, oid_element
from keyassay.certificates.item import Kind
from keyassay.certificates.limits import Limits
from keyassay.certificates.names import rfc4514
from keyassay.certificates.reading import ReadOptions

RIGHT = ReadOptions(passwords=(b"no", b"changeit"))
WRONG = ReadOptions(passwords=(b"no",))
HINT = "give its password by --password-file"


def common_names(path: Path, options: ReadOptions) -> list[str]:
    found = []
    for item in paths_of(path, options=options):
        assert item.signed is not None
        found.append(rfc4514(item.signed.subject).rpartition("CN=")[2].partition(",")[0])
    return found


# PKCS #12


@pytest.mark.parametrize(
    ("name", "subjects"),
    [
        ("keytool.p12", ["device 3", "device 4"]),
        ("openssl-legacy.p12", ["authority"]),
        ("openssl-3des-explicit-false.p12", ["x"]),
    ],
)
def test_pkcs12_by_real_tools(name: str, subjects: list[str]) -> None:
    path = KEYSTORES / name
    assert common_names(path, RIGHT) == subjects
    assert errors(paths_of(path, options=WRONG)) == [f"PKCS #12: no password opens it; {HINT}"]
    assert errors(paths_of(path)) == [f"PKCS #12: encrypted; {HINT}"]


def store(password: bytes | None, key: ec.EllipticCurvePrivateKey | None = None) -> bytes:
    algorithm = CLEAR if password is None else serialization.BestAvailableEncryption(password)
    own = certificate() if key is None else None
    more = [certificate("ca")] if key is None else None
    return pkcs12.serialize_key_and_certificates(b"x", key or ec_key(), own, more, algorithm)


def test_pkcs12_with_an_empty_password_or_a_key_alone() -> None:
    assert kinds(items_of(store(None))) == ["certificate", "certificate"]
    assert kinds(items_of(store(b"pw", ec_key()), ReadOptions(passwords=(b"pw",)))) == ["private-key"]
    assert kinds(items_of(armoured(store(None), "PKCS12"))) == ["certificate", "certificate"]


@pytest.mark.parametrize(
    "options",
    [
        ("-certpbe", "AES-128-CBC"),
        ("-certpbe", "AES-256-CBC", "-macalg", "SHA512"),
        ("-certpbe", "DES-EDE3-CBC"),
        ("-certpbe", "NONE", "-nomac"),
    ],
    ids=["aes-128", "aes-256", "3des", "clear"],
)
def test_what_the_strict_parser_refuses_is_read_from_pkcs12_all_the_same(
    options: tuple[str, ...], tmp_path: Path
) -> None:
    odd = operated(der(), extensions=EXPLICIT_FALSE)
    with pytest.raises(ValueError):
        x509.load_der_x509_certificate(odd)
    (tmp_path / "odd.pem").write_bytes(armoured(odd) + pem("b"))
    arguments = ("pkcs12", "-export", "-nokeys", "-in", str(tmp_path / "odd.pem"), "-passout", "pass:changeit")
    items = items_of(openssl(*arguments, *options), RIGHT)
    assert [item.der for item in items] == [odd, der("b")]
    assert all(item.assessed for item in items)


def test_a_store_with_a_key_that_fails_its_validation_still_shows_its_certificates(tmp_path: Path) -> None:
    numbers = rsa_key().private_numbers()
    wrong = rsa.RSAPrivateNumbers(
        numbers.p, numbers.q, numbers.d ^ 2, numbers.dmp1, numbers.dmq1, numbers.iqmp, numbers.public_numbers
    ).private_key(unsafe_skip_rsa_key_validation=True)
    cert = certificate("weak", "rsa")
    data = pkcs12.serialize_key_and_certificates(
        b"x", wrong, cert, None, serialization.BestAvailableEncryption(b"changeit")
    )
    (item,) = items_of(data, RIGHT)
    assert item.der == cert.public_bytes(DER)


def test_absurd_work_for_a_password_is_refused_at_once() -> None:
    data = store(b"pw")
    rounds = data.index(b"\x02\x02\x4e\x20") if b"\x02\x02\x4e\x20" in data else -1
    assert rounds >= 0
    absurd = data[: rounds + 2] + b"\x7f\xff" + data[rounds + 4 :]
    assert kinds(items_of(absurd, ReadOptions(passwords=(b"pw",)))) == ["unreadable"]
    parameters = element(
        SEQUENCE,
        element(
            SEQUENCE,
            oid_element("1.2.840.113549.1.5.13"),
            element(
                SEQUENCE,
                element(
                    SEQUENCE,
                    oid_element("1.2.840.113549.1.5.12"),
                    element(SEQUENCE, element(OCTET_STRING, bytes(8)), element(INTEGER, b"\x7f\xff\xff\xff")),
                ),
                element(SEQUENCE, oid_element("2.16.840.1.101.3.4.1.42"), element(OCTET_STRING, bytes(16))),
            ),
        ),
        element(OCTET_STRING, bytes(64)),
    )
    (item,) = items_of(parameters, RIGHT)
    assert "absurd work" in (item.error or "")


# Java key stores


def test_jks_by_keytool() -> None:
    path = KEYSTORES / "keytool.jks"
    for options in (RIGHT, ReadOptions()):
        assert common_names(path, options) == ["authority", "device 1", "authority"]
    items = paths_of(path, options=WRONG)
    assert kinds(items) == ["certificate"] * 3 + ["unreadable"]
    assert errors(items)[3] == "Java key store: its integrity digest fits none of the passwords"


def test_jceks_by_keytool_shows_what_stands_behind_a_secret_key() -> None:
    items = paths_of(KEYSTORES / "keytool.jceks", options=RIGHT)
    assert kinds(items) == ["unreadable", "certificate"]
    assert errors(items)[0] == "a secret key: not assessed"
    assert kinds(paths_of(KEYSTORES / "keytool.jceks", options=WRONG)) == ["unreadable", "certificate", "unreadable"]


def jks(password: str, certificates: list[bytes]) -> bytes:
    def text(value: str) -> bytes:
        return struct.pack(">H", len(value)) + value.encode()

    body = b"\xfe\xed\xfe\xed" + struct.pack(">II", 2, len(certificates))
    for number, one in enumerate(certificates):
        body += struct.pack(">I", 2) + text(f"alias{number}") + struct.pack(">Q", 0) + text("X.509")
        body += struct.pack(">I", len(one)) + one
    return body + hashlib.sha1(password.encode("utf-16-be") + b"Mighty Aphrodite" + body).digest()


def test_damaged_java_key_stores_are_records() -> None:
    data = jks("changeit", [der(), der("b")])
    assert kinds(items_of(data, RIGHT)) == ["certificate", "certificate"]
    assert kinds(items_of(jks("changeit", []))) == ["unreadable"]
    for cut in (6, 20, 40, len(der()) + 60):
        assert kinds(items_of(data[:cut]))[-1] == "unreadable"
    lying = data[:8] + b"\xff\xff\xff\xff" + data[12:]
    assert kinds(items_of(lying)) == ["certificate", "certificate", "unreadable"]
    assert kinds(items_of(data[:7] + b"\x09" + data[8:])) == ["unreadable"]


# PKCS #7


def test_pkcs7_with_revocation_lists_and_without_anything(tmp_path: Path) -> None:
    (tmp_path / "crl.pem").write_bytes(revocation_list().public_bytes(PEM))
    (tmp_path / "certs.pem").write_bytes(pem() + pem("b"))
    arguments = ("crl2pkcs7", "-in", str(tmp_path / "crl.pem"), "-certfile", str(tmp_path / "certs.pem"))
    assert kinds(items_of(openssl(*arguments))) == ["certificate", "certificate", "crl"]
    assert kinds(items_of(openssl(*arguments, "-outform", "DER"))) == ["certificate", "certificate", "crl"]
    empty = openssl("crl2pkcs7", "-nocrl")
    assert errors(items_of(empty)) == ["PKCS #7 without certificates"]


def test_signed_messages_show_their_signers(tmp_path: Path) -> None:
    signed = pkcs7.PKCS7SignatureBuilder().set_data(b"hello").add_signer(certificate(), ec_key(), hashes.SHA256())
    for data in (signed.sign(DER, []), signed.sign(PEM, [])):
        assert [item.der for item in items_of(data)] == [der()]


# Private keys


@pytest.mark.parametrize("form", [PKCS8, TRADITIONAL], ids=["pkcs8", "traditional"])
@pytest.mark.parametrize("kind", ["rsa", "ec"])
def test_encrypted_private_keys_need_their_password(kind: str, form: serialization.PrivateFormat) -> None:
    key = rsa_key() if kind == "rsa" else ec_key()
    data = key.private_bytes(PEM, form, serialization.BestAvailableEncryption(b"changeit"))
    assert errors(items_of(data)) == [f"an encrypted private key; {HINT}"]
    assert errors(items_of(data, WRONG)) == [f"an encrypted private key: no password opens it; {HINT}"]
    (item,) = items_of(data, RIGHT)
    (clear,) = items_of(key.private_bytes(PEM, PKCS8, CLEAR))
    assert (item.kind, item.key, item.notices) == (Kind.PRIVATE_KEY, clear.key, clear.notices)
    assert item.notices == ("private key file: only its public part was read",)


def test_keys_encrypted_by_old_openssl_are_read_whatever_letters_their_base64_has() -> None:
    # a line that begins with "/" was once taken for a comment
    for _ in range(8):
        data = openssl("rsa", "-aes128", "-traditional", "-passout", "pass:changeit", data=forms()["rsa private"][0])
        assert kinds(items_of(data, RIGHT)) == ["private-key"]


def test_private_keys_that_a_validation_would_refuse_are_read() -> None:
    numbers = [0, 2 * 3 * 5, 1, 7, 0, 0, 0, 0, 0]
    data = element(SEQUENCE, *(integer_element(number) for number in numbers))
    (item,) = items_of(armoured(data, "RSA PRIVATE KEY"))
    assert item.kind is Kind.PRIVATE_KEY
    assert (item.key.modulus, item.key.exponent) == (30, 1)  # type: ignore[union-attr]


def test_private_keys_of_other_types_are_not_assessed() -> None:
    algorithm = element(SEQUENCE, oid_element("1.2.643.7.1.1.1.1"))
    data = element(SEQUENCE, integer_element(0), algorithm, element(OCTET_STRING, bytes(32)))
    assert errors(items_of(data)) == ["a private key of the type GOST R 34.10-2012 (256 bits): not assessed"]


def test_a_private_key_may_be_no_larger_than_an_item() -> None:
    data = rsa_key().private_bytes(DER, TRADITIONAL, CLEAR)
    (item,) = items_of(data, ReadOptions(limits=Limits(item_bytes=1_000)))
    assert item.error == f"{len(data):,} bytes are more than the 1,000 that one item may have"

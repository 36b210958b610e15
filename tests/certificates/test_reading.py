"""Every form of input, cut at every place, damaged in every way: items or reasons, never exceptions."""

from __future__ import annotations

import base64
import bz2
import datetime
import gzip
import hashlib
import io
import json
import lzma
import os
import socket
import ssl
import struct
import tarfile
import threading
import zipfile
from contextlib import suppress
from functools import cache
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import pkcs7, pkcs12
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from keyassay.certificates import reading
from keyassay.certificates.decoding import decode
from keyassay.certificates.item import Item, Kind
from keyassay.certificates.limits import Limits
from keyassay.certificates.public_key import EcPublicKey, RsaPublicKey
from keyassay.certificates.reading import ReadOptions, read, read_bytes

DER = serialization.Encoding.DER
PEM = serialization.Encoding.PEM
SPKI = serialization.PublicFormat.SubjectPublicKeyInfo
PKCS8 = serialization.PrivateFormat.PKCS8
TRADITIONAL = serialization.PrivateFormat.TraditionalOpenSSL
CLEAR = serialization.NoEncryption()


@cache
def rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


@cache
def ec_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


@cache
def certificate(name: str = "device", public: str = "ec") -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    key = ec_key() if public == "ec" else rsa_key()
    start = datetime.datetime(2024, 1, 1)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(12345)
        .not_valid_before(start)
        .not_valid_after(start + datetime.timedelta(days=9000))
        .sign(ec_key(), hashes.SHA256())
    )


def pem(name: str = "device") -> bytes:
    return certificate(name).public_bytes(PEM)


def der(name: str = "device") -> bytes:
    return certificate(name).public_bytes(DER)


def items_of(data: bytes, options: ReadOptions | None = None) -> list[Item]:
    return [item for block in read_bytes(data, options or ReadOptions()) for item in decode(block)]


def paths_of(*paths: Path | str, options: ReadOptions | None = None) -> list[Item]:
    return [item for block in read([str(p) for p in paths], options or ReadOptions()) for item in decode(block)]


def kinds(items: list[Item]) -> list[str]:
    return [item.kind.value for item in items]


@cache
def forms() -> dict[str, tuple[bytes, list[str]]]:
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(ec_key(), hashes.SHA256())
    start = datetime.datetime(2024, 1, 1)
    crl = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(certificate().subject)
        .last_update(start)
        .next_update(start + datetime.timedelta(days=1))
        .sign(ec_key(), hashes.SHA256())
    )
    openssh = rsa_key().public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    numbers = ec_key().public_key().public_numbers()

    def b64(number: int) -> str:
        return base64.urlsafe_b64encode(number.to_bytes(32, "big")).decode().rstrip("=")

    jwk = {"kty": "EC", "crv": "P-256", "x": b64(numbers.x), "y": b64(numbers.y)}
    text = pem().decode()
    both = [certificate("a"), certificate("b")]
    certs = ["certificate", "certificate"]
    bom = "\ufeff" + text
    return {
        "pem": (pem(), ["certificate"]),
        "two pem and prose": (b"Subject: x\n" + pem() + b"\n\nnonsense\n" + pem("b") + b"trailer", certs),
        "crlf": (pem().replace(b"\n", b"\r\n"), ["certificate"]),
        "bom": (b"\xef\xbb\xbf" + pem(), ["certificate"]),
        "utf-16": (bom.encode("utf-16-le"), ["certificate"]),
        "indented": (b"\n".join(b"    " + line for line in pem().splitlines()), ["certificate"]),
        "quoted": (b"\n".join(b"> " + line for line in pem().splitlines()), ["certificate"]),
        "one line": (b"".join(pem().splitlines()), ["certificate"]),
        "der": (der(), ["certificate"]),
        "der twice": (der() + der("b"), certs),
        "request": (request.public_bytes(PEM), ["request"]),
        "request der": (request.public_bytes(DER), ["request"]),
        "crl": (crl.public_bytes(PEM), ["crl"]),
        "crl der": (crl.public_bytes(DER), ["crl"]),
        "spki": (ec_key().public_key().public_bytes(PEM, SPKI), ["public-key"]),
        "spki der": (rsa_key().public_key().public_bytes(DER, SPKI), ["public-key"]),
        "pkcs1": (rsa_key().public_key().public_bytes(PEM, serialization.PublicFormat.PKCS1), ["public-key"]),
        "pkcs1 der": (rsa_key().public_key().public_bytes(DER, serialization.PublicFormat.PKCS1), ["public-key"]),
        "openssh": (openssh + b" me@host\n", ["public-key"]),
        "authorized_keys": (
            b'# comment\ncommand="echo \\"hi\\"",no-pty ' + openssh + b" me\n\n" + openssh + b"\n",
            ["public-key", "public-key"],
        ),
        "known_hosts": (b"|1|abc=|def= " + openssh + b"\n", ["public-key"]),
        "jwk": (json.dumps(jwk).encode(), ["public-key"]),
        "jwks": (json.dumps({"keys": [jwk, {**jwk, "d": "AAAA"}]}).encode(), ["public-key", "private-key"]),
        "pkcs7 pem": (pkcs7.serialize_certificates(both, PEM), certs),
        "pkcs7 der": (pkcs7.serialize_certificates(both, DER), certs),
        "aws": (
            json.dumps({"certificateDescription": {"certificateId": "ab", "certificatePem": text}}, indent=2).encode(),
            ["certificate"],
        ),
        "json lines": (
            b"".join(json.dumps({"pem": text, "n": n}).encode() + b"\n" for n in range(3)),
            3 * ["certificate"],
        ),
        "base64 lines": (base64.b64encode(der()) + b"\n" + base64.b64encode(der("b")) + b"\n", certs),
        "csv": (b'id,pem\n1,"' + pem() + b'"\n2,"' + pem("b") + b'"\n', certs),
        "pkcs8": (ec_key().private_bytes(PEM, PKCS8, CLEAR), ["private-key"]),
        "pkcs8 der": (rsa_key().private_bytes(DER, PKCS8, CLEAR), ["private-key"]),
        "rsa private": (rsa_key().private_bytes(PEM, TRADITIONAL, CLEAR), ["private-key"]),
        "ec private": (ec_key().private_bytes(PEM, TRADITIONAL, CLEAR), ["private-key"]),
        "ed25519 private": (ed25519.Ed25519PrivateKey.generate().private_bytes(PEM, PKCS8, CLEAR), ["private-key"]),
        "dsa private": (dsa.generate_private_key(1024).private_bytes(PEM, TRADITIONAL, CLEAR), ["private-key"]),
        "openssh private": (
            ec_key().private_bytes(PEM, serialization.PrivateFormat.OpenSSH, CLEAR),
            ["private-key"],
        ),
        "gzip": (gzip.compress(pem()), ["certificate"]),
        "bzip2": (bz2.compress(pem()), ["certificate"]),
        "xz": (lzma.compress(pem()), ["certificate"]),
    }


@pytest.mark.parametrize("form", forms())
def test_form_is_read(form: str) -> None:
    data, expected = forms()[form]
    items = items_of(data)
    assert kinds(items) == expected, [item.error for item in items]
    assert [item.index for item in items] == list(range(len(items)))
    assert all(item.assessed or item.kind is Kind.CRL for item in items)
    assert all("private" in " ".join(item.notices) for item in items if item.kind is Kind.PRIVATE_KEY)


def test_private_numbers_are_not_kept() -> None:
    secret = rsa_key().private_numbers().p.to_bytes(128, "big")
    for form in ("pkcs8 der", "rsa private"):
        for item in items_of(forms()[form][0]):
            assert secret not in (item.der or b"")
            assert isinstance(item.key, RsaPublicKey)


def store(password: bytes | None) -> bytes:
    algorithm = CLEAR if password is None else serialization.BestAvailableEncryption(password)
    return pkcs12.serialize_key_and_certificates(b"x", ec_key(), certificate(), [certificate("ca")], algorithm)


def test_pkcs12_opens_with_its_password_and_says_so_without() -> None:
    assert kinds(items_of(store(b"pw"), ReadOptions(passwords=(b"no", b"pw")))) == ["certificate", "certificate"]
    (item,) = items_of(store(b"pw"))
    assert item.kind is Kind.UNREADABLE
    assert "--password-file" in (item.error or "")


def test_encrypted_private_key_needs_its_password() -> None:
    for form in (PKCS8, TRADITIONAL):
        data = rsa_key().private_bytes(PEM, form, serialization.BestAvailableEncryption(b"pw"))
        assert kinds(items_of(data)) == ["unreadable"]
        assert kinds(items_of(data, ReadOptions(passwords=(b"pw",)))) == ["private-key"]


def jks(password: str, certificates: list[bytes]) -> bytes:
    def text(value: str) -> bytes:
        return struct.pack(">H", len(value)) + value.encode()

    body = b"\xfe\xed\xfe\xed" + struct.pack(">II", 2, len(certificates))
    for number, one in enumerate(certificates):
        body += struct.pack(">I", 2) + text(f"alias{number}") + struct.pack(">Q", 0) + text("X.509")
        body += struct.pack(">I", len(one)) + one
    return body + hashlib.sha1(password.encode("utf-16-be") + b"Mighty Aphrodite" + body).digest()


def test_java_key_store_gives_its_certificates_and_checks_its_digest() -> None:
    data = jks("changeit", [der(), der("b")])
    assert kinds(items_of(data)) == ["certificate", "certificate"]
    assert kinds(items_of(data, ReadOptions(passwords=(b"changeit",)))) == ["certificate", "certificate"]
    assert kinds(items_of(data, ReadOptions(passwords=(b"wrong",)))) == ["certificate", "certificate", "unreadable"]


@given(st.lists(st.sampled_from(["a", "b", "c"]), max_size=5), st.lists(st.sampled_from(["a", "d"]), max_size=5))
@settings(max_examples=30, deadline=None)
def test_items_of_a_concatenation_are_those_of_its_parts(first: list[str], second: list[str]) -> None:
    one, two = b"".join(map(pem, first)), b"".join(map(pem, second))
    apart = [item.der for part in (one, two) if part for item in items_of(part)]
    assert [item.der for item in items_of(one + two) if item.der] == apart


@pytest.mark.parametrize("chunk", [64, 100, 1000, 4096])
def test_the_size_of_chunks_changes_nothing(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    data = b"x\n" + pem() + b"between\r\n" + pem("b") + forms()["openssh"][0] + pem("c")[:-30] + pem("d")
    whole = [(item.kind, item.offset, item.der) for item in items_of(data)]
    monkeypatch.setattr(reading, "CHUNK", chunk)
    assert [(item.kind, item.offset, item.der) for item in items_of(data)] == whole
    assert [kind.value for kind, _, _ in whole] == [
        "certificate", "certificate", "public-key", "unreadable", "certificate",
    ]  # fmt: skip


@given(st.binary(max_size=400), st.integers(0, 3))
@settings(max_examples=300, deadline=None)
def test_random_bytes_raise_nothing(data: bytes, prefix: int) -> None:
    starts = (b"", b"\x30", b"-----BEGIN CERTIFICATE-----\n", b"{")
    items_of(starts[prefix] + data)


@given(st.sampled_from(sorted(forms())), st.data())
@settings(max_examples=300, deadline=None)
def test_damaged_forms_raise_nothing(form: str, data: st.DataObject) -> None:
    original = bytearray(forms()[form][0])
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(original) - 1))
        action = data.draw(st.sampled_from(["flip", "cut", "insert"]))
        if action == "flip":
            original[place] ^= 1 << data.draw(st.integers(0, 7))
        elif action == "cut" and len(original) > 2:
            del original[place : place + data.draw(st.integers(1, 40))]
        else:
            original[place:place] = data.draw(st.binary(max_size=8))
        if not original:
            break
    for item in items_of(bytes(original)):
        assert item.kind is not Kind.UNREADABLE or item.error


# Hostile input


def test_many_begin_lines_are_linear_and_bounded() -> None:
    items = items_of(b"-----BEGIN CERTIFICATE-----\n" * 200_000)
    assert len(items) == Limits().unreadable_per_source + 1
    assert "199,000 more" in (items[-1].error or "") or "more unreadable" in (items[-1].error or "")


def test_a_line_without_end_is_passed_over() -> None:
    items = items_of(b"A" * 20_000_000)
    assert kinds(items) == ["unreadable"]


def test_bad_base64_is_one_record_and_reading_goes_on() -> None:
    bad = pem().replace(b"M", b"!", 1)
    assert kinds(items_of(bad + pem("b"))) == ["unreadable", "certificate"]


def test_lying_lengths_are_unreadable() -> None:
    lying = bytearray(der())
    lying[2:4] = b"\xff\xff"
    (item,) = items_of(bytes(lying))
    assert item.kind is Kind.UNREADABLE


def test_depth_bombs_are_answered() -> None:
    assert kinds(items_of(b"[" * 1_000_000)) == ["unreadable"]
    nested = b"\x30\x80" * 100_000
    assert kinds(items_of(nested)) == ["unreadable"]


def test_gzip_bomb_is_one_record() -> None:
    (item,) = items_of(gzip.compress(b"\0" * 100_000_000))
    assert item.kind is Kind.UNREADABLE


def test_archives_give_members_with_their_names(tmp_path: Path) -> None:
    zipped = tmp_path / "a.zip"
    with zipfile.ZipFile(zipped, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.pem", pem() + pem("b"))
        archive.writestr("deep/y.tar.gz", tarred({"z.der": der("c")}))
        archive.writestr("bomb.pem", b"\0" * 60_000_000)
    items = paths_of(zipped)
    assert [(item.source.removeprefix(str(tmp_path)), item.kind.value) for item in items] == [
        ("/a.zip!x.pem", "certificate"),
        ("/a.zip!x.pem", "certificate"),
        ("/a.zip!deep/y.tar.gz!z.der", "certificate"),
        ("/a.zip!bomb.pem", "unreadable"),
    ]


def tarred(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def test_folders_are_walked_in_order_and_foreign_files_passed_over(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "one.txt").write_bytes(pem())
    (tmp_path / "a.pem").write_bytes(pem("b"))
    (tmp_path / "readme").write_text("hello")
    (tmp_path / "broken.crt").write_text("hello")
    (tmp_path / "evil\n\u202ename.pem").write_bytes(pem("c"))
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path)
    over: list[str] = []
    items = paths_of(tmp_path, options=ReadOptions(passed_over=over.append))
    assert sorted(kinds(items)) == ["certificate", "certificate", "certificate", "unreadable"]
    assert {Path(path).name for path in over} >= {"readme", "pipe"}


def test_missing_and_unreadable_paths_are_records(tmp_path: Path) -> None:
    (item,) = paths_of(tmp_path / "nothing")
    assert item.kind is Kind.UNREADABLE
    assert "No such file" in (item.error or "")
    (item,) = paths_of("bad\0name")
    assert item.kind is Kind.UNREADABLE


@pytest.mark.parametrize(
    "jwk",
    [
        {"kty": "RSA"},
        {"kty": "RSA", "n": 5, "e": "AQAB"},
        {"kty": "EC", "crv": "P-256", "x": "A" * 400, "y": "AA"},
    ],
)
def test_wrong_jwks_are_unreadable(jwk: dict[str, object]) -> None:
    assert kinds(items_of(json.dumps(jwk).encode())) == ["unreadable"]


def test_strange_keys_are_keys_with_a_notice_where_the_strict_parser_refuses() -> None:
    data = der().replace(ec_key().public_key().public_bytes(DER, SPKI)[26:], b"\x04" + b"\x11" * 64)
    (item,) = items_of(data)
    assert item.kind is Kind.CERTIFICATE
    assert item.key == EcPublicKey("P-256", b"\x04" + b"\x11" * 64)


def test_tls_server_shows_its_certificate(tmp_path: Path) -> None:
    (tmp_path / "cert.pem").write_bytes(pem())
    (tmp_path / "key.pem").write_bytes(ec_key().private_bytes(PEM, PKCS8, CLEAR))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

        def serve() -> None:
            plain, _ = listener.accept()
            with plain, context.wrap_socket(plain, server_side=True) as secure, suppress(ConnectionResetError):
                secure.recv(1)  # the client leaves without reading the session tickets of TLS 1.3

        thread = threading.Thread(target=serve)
        thread.start()
        items = paths_of(f"tls://127.0.0.1:{port}")
        thread.join()
    assert [item.der for item in items] == [der()]


def test_refused_and_malformed_network_sources_are_records() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    for url in (f"tls://127.0.0.1:{port}", "tls://:x", "ssh://-oProxyCommand=x"):
        (item,) = paths_of(url, options=ReadOptions(timeout=2))
        assert item.kind is Kind.UNREADABLE

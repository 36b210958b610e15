"""Real input of every form, made by the tools that make it in the field; shared by the tests of reading."""

from __future__ import annotations

import base64
import bz2
import datetime
import gzip
import io
import json
import lzma
import subprocess
import tarfile
import zipfile
from functools import cache
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa, x448, x25519
from cryptography.hazmat.primitives.serialization import pkcs7
from cryptography.x509 import ocsp
from cryptography.x509.oid import NameOID

from keyassay.certificates.decoding import decode
from keyassay.certificates.der import SEQUENCE, children, element, expect
from keyassay.certificates.item import Item
from keyassay.certificates.reading import ReadOptions, read, read_bytes

KEYSTORES = Path(__file__).parent / "vectors" / "keystores"
DER = serialization.Encoding.DER
PEM = serialization.Encoding.PEM
SPKI = serialization.PublicFormat.SubjectPublicKeyInfo
PKCS8 = serialization.PrivateFormat.PKCS8
TRADITIONAL = serialization.PrivateFormat.TraditionalOpenSSL
CLEAR = serialization.NoEncryption()
START = datetime.datetime(2024, 1, 1)


@cache
def rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


@cache
def ec_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


@cache
def dsa_key() -> dsa.DSAPrivateKey:
    return dsa.generate_private_key(1024)


def certificate(name: str = "device", public: str = "ec") -> x509.Certificate:
    return _certificate(name, public)


@cache
def _certificate(name: str, public: str) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    key = ec_key() if public == "ec" else rsa_key()
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(12345)
        .not_valid_before(START)
        .not_valid_after(START + datetime.timedelta(days=9000))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(ec_key(), hashes.SHA256())
    )


def pem(name: str = "device") -> bytes:
    return certificate(name).public_bytes(PEM)


def der(name: str = "device") -> bytes:
    return certificate(name).public_bytes(DER)


def armoured(data: bytes, label: str = "CERTIFICATE") -> bytes:
    """PEM of any bytes."""
    return b"-----BEGIN %b-----\n%b-----END %b-----\n" % (label.encode(), base64.encodebytes(data), label.encode())


def operated(data: bytes, **parts: bytes) -> bytes:
    """A certificate with some parts of its body replaced; its signature no longer fits."""
    names = ("version", "serial", "algorithm", "issuer", "validity", "subject", "key", "extensions")
    start, stop = expect(data, 0, len(data), SEQUENCE, "certificate")
    whole = children(data, start, stop)
    body = [data[one[1] : one[3]] for one in children(data, whole[0][2], whole[0][3])]
    for name, part in parts.items():
        body[names.index(name)] = part
    return element(SEQUENCE, element(SEQUENCE, *body), *(data[one[1] : one[3]] for one in whole[1:]))


def with_key(spki: bytes) -> bytes:
    """A certificate for a subject public key info."""
    return operated(der(), key=spki)


#: extensions with what DER forbids: a criticality that is FALSE and said all the same
EXPLICIT_FALSE = element(
    0xA3, element(SEQUENCE, element(SEQUENCE, bytes.fromhex("0603551d13010100"), element(0x04, b"\x30\x00")))
)


def items_of(data: bytes, options: ReadOptions | None = None) -> list[Item]:
    return [item for block in read_bytes(data, options or ReadOptions()) for item in decode(block)]


def paths_of(*paths: Path | str, options: ReadOptions | None = None) -> list[Item]:
    return [item for block in read([str(path) for path in paths], options or ReadOptions()) for item in decode(block)]


def kinds(items: list[Item]) -> list[str]:
    return [item.kind.value for item in items]


def errors(items: list[Item]) -> list[str]:
    return [item.error or "" for item in items]


def tarred(files: dict[str, bytes], mode: str = "w:gz") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:  # type: ignore[call-overload]
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def zipped(files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def openssl(*arguments: str, data: bytes = b"") -> bytes:
    """What openssl says."""
    return subprocess.run(["openssl", *arguments], input=data, capture_output=True, check=True).stdout


def base64url(number: int, size: int = 32) -> str:
    return base64.urlsafe_b64encode(number.to_bytes(size, "big")).decode().rstrip("=")


@cache
def revocation_list() -> x509.CertificateRevocationList:
    return (
        x509.CertificateRevocationListBuilder()
        .issuer_name(certificate().subject)
        .last_update(START)
        .next_update(START + datetime.timedelta(days=1))
        .sign(ec_key(), hashes.SHA256())
    )


@cache
def ocsp_response() -> bytes:
    built = ocsp.OCSPResponseBuilder().add_response(
        certificate(),
        certificate(),
        hashes.SHA256(),
        ocsp.OCSPCertStatus.GOOD,
        START,
        START + datetime.timedelta(days=1),
        None,
        None,
    )
    signed = built.responder_id(ocsp.OCSPResponderEncoding.NAME, certificate()).sign(ec_key(), hashes.SHA256())
    return signed.public_bytes(DER)


@cache
def jwk() -> dict[str, str]:
    numbers = ec_key().public_key().public_numbers()
    return {"kty": "EC", "crv": "P-256", "x": base64url(numbers.x), "y": base64url(numbers.y)}


@cache
def openssh_line() -> bytes:
    return rsa_key().public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)


@cache
def forms() -> dict[str, tuple[bytes, list[str]]]:
    """Name of the form: bytes, and the kinds of items in it."""
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(ec_key(), hashes.SHA256())
    text = pem().decode()
    rsa_numbers = rsa_key().public_key().public_numbers()
    both = [certificate("a"), certificate("b")]
    one, two, key, private = ["certificate"], ["certificate", "certificate"], ["public-key"], ["private-key"]
    bare = base64.b64encode(der())
    raw = serialization.PublicFormat.PKCS1
    ed = ed25519.Ed25519PrivateKey.generate()
    return {
        "pem": (pem(), one),
        "two pem and prose": (b"Subject: x\n" + pem() + b"\n\nnonsense\n" + pem("b") + b"trailer", two),
        "pem with text by openssl": (openssl("x509", "-text", data=pem()), one),
        "crlf": (pem().replace(b"\n", b"\r\n"), one),
        "old mac line ends": (pem().replace(b"\n", b"\r"), one),
        "byte order mark": (b"\xef\xbb\xbf" + pem(), one),
        "utf-16": (("\ufeff" + text).encode("utf-16-le"), one),
        "utf-16 big-endian": (("\ufeff" + text).encode("utf-16-be"), one),
        "utf-16 without mark": (text.encode("utf-16-le"), one),
        "utf-16 jwk": (("\ufeff" + json.dumps(jwk(), indent=1)).encode("utf-16-le"), key),
        "indented": (b"\n".join(b"    " + line for line in pem().splitlines()), one),
        "quoted": (b"\n".join(b"> " + line for line in pem().splitlines()), one),
        "commented out": (b"\n".join(b"// " + line for line in pem().splitlines()), one),
        "a patch": (b"\n".join(b"+" + line for line in pem().splitlines()), one),
        "c source": (b"\n".join(b'    "' + line + b'\\n"' for line in pem().splitlines()) + b";\n", one),
        "one line": (b"".join(pem().splitlines()), one),
        "trusted certificate": (openssl("x509", "-trustout", "-addtrust", "serverAuth", data=pem()), one),
        "der": (der(), one),
        "der twice": (der() + der("b"), two),
        "request": (request.public_bytes(PEM), ["request"]),
        "request der": (request.public_bytes(DER), ["request"]),
        "crl": (revocation_list().public_bytes(PEM), ["crl"]),
        "crl der": (revocation_list().public_bytes(DER), ["crl"]),
        "ocsp response": (ocsp_response(), ["ocsp-response"]),
        "ocsp response pem": (armoured(ocsp_response(), "OCSP RESPONSE"), ["ocsp-response"]),
        "spki": (ec_key().public_key().public_bytes(PEM, SPKI), key),
        "spki der": (rsa_key().public_key().public_bytes(DER, SPKI), key),
        "dsa spki": (dsa_key().public_key().public_bytes(PEM, SPKI), key),
        "ed25519 spki": (ed.public_key().public_bytes(PEM, SPKI), key),
        "ed448 spki": (ed448.Ed448PrivateKey.generate().public_key().public_bytes(DER, SPKI), key),
        "x25519 spki": (x25519.X25519PrivateKey.generate().public_key().public_bytes(DER, SPKI), key),
        "x448 spki": (x448.X448PrivateKey.generate().public_key().public_bytes(PEM, SPKI), key),
        "pkcs1": (rsa_key().public_key().public_bytes(PEM, raw), key),
        "pkcs1 der": (rsa_key().public_key().public_bytes(DER, raw), key),
        "openssh": (openssh_line() + b" me@host\n", key),
        "authorized_keys": (
            b'# comment\ncommand="echo \\"hi\\"",no-pty ' + openssh_line() + b" me\n\n" + openssh_line() + b"\n",
            key + key,
        ),
        "known_hosts": (b"|1|abc=|def= " + openssh_line() + b"\n@revoked [::1]:22 " + openssh_line(), key + key),
        "jwk": (json.dumps(jwk()).encode(), key),
        "jwks": (json.dumps({"keys": [jwk(), {**jwk(), "d": "AAAA"}]}).encode(), key + private),
        "rsa jwk": (
            json.dumps(
                {"kty": "RSA", "n": base64url(rsa_numbers.n, 256), "e": "AQAB", "x5c": [bare.decode()]}
            ).encode(),
            key + one,
        ),
        "okp jwk": (
            json.dumps(
                {
                    "kty": "OKP",
                    "crv": "Ed25519",
                    "x": base64url(int.from_bytes(ed.public_key().public_bytes_raw(), "big")),
                }
            ).encode(),
            key,
        ),
        "pkcs7 pem": (pkcs7.serialize_certificates(both, PEM), two),
        "pkcs7 der": (pkcs7.serialize_certificates(both, DER), two),
        "pkcs7 by openssl": (openssl("crl2pkcs7", "-nocrl", "-certfile", "/dev/stdin", data=pem() + pem("b")), two),
        "aws": (
            json.dumps({"certificateDescription": {"certificateId": "ab", "certificatePem": text}}, indent=2).encode(),
            one,
        ),
        "json with base64 der": (json.dumps({"certificate": bare.decode()}).encode(), one),
        "json with escapes": (
            b'{"a":1} trailing {"pem":"' + text.replace("\n", "\\r\\n").replace("+", "\\u002B").encode() + b'"}',
            one,
        ),
        "json lines": (
            b"".join(json.dumps({"pem": text, "n": number}).encode() + b"\n" for number in range(3)),
            one * 3,
        ),
        "base64 lines": (bare + b"\n" + base64.b64encode(der("b")) + b"\n", two),
        "base64 folded": (base64.encodebytes(der()), one),
        "base64 cells": (b"1," + bare + b",x\n2," + base64.b64encode(der("b")) + b",y\n", two),
        "csv": (b'id,pem\n1,"' + pem() + b'"\n2,"' + pem("b") + b'"\n', two),
        "pkcs8": (ec_key().private_bytes(PEM, PKCS8, CLEAR), private),
        "pkcs8 der": (rsa_key().private_bytes(DER, PKCS8, CLEAR), private),
        "dsa pkcs8": (dsa_key().private_bytes(DER, PKCS8, CLEAR), private),
        "rsa private": (rsa_key().private_bytes(PEM, TRADITIONAL, CLEAR), private),
        "rsa private der": (rsa_key().private_bytes(DER, TRADITIONAL, CLEAR), private),
        "ec private": (ec_key().private_bytes(PEM, TRADITIONAL, CLEAR), private),
        "ec private der": (ec_key().private_bytes(DER, TRADITIONAL, CLEAR), private),
        "ec private without public key": (
            openssl("ec", "-no_public", data=ec_key().private_bytes(PEM, TRADITIONAL, CLEAR)),
            private,
        ),
        "ec private with parameters": (
            openssl("ecparam", "-name", "prime256v1") + ec_key().private_bytes(PEM, TRADITIONAL, CLEAR),
            private,
        ),
        "ed25519 private": (ed.private_bytes(PEM, PKCS8, CLEAR), private),
        "dsa private": (dsa_key().private_bytes(PEM, TRADITIONAL, CLEAR), private),
        "openssh private": (ec_key().private_bytes(PEM, serialization.PrivateFormat.OpenSSH, CLEAR), private),
        "certificate and key": (pem() + ec_key().private_bytes(PEM, PKCS8, CLEAR), one + private),
        "gzip": (gzip.compress(pem()), one),
        "bzip2": (bz2.compress(pem()), one),
        "xz": (lzma.compress(pem()), one),
        "tar": (tarred({"a": pem(), "b": der("b")}, "w"), two),
        "tar.gz": (tarred({"a": pem(), "b": der("b")}), two),
        "tar.bz2": (tarred({"a": pem(), "b": der("b")}, "w:bz2"), two),
        "tar.xz": (tarred({"a": pem(), "b": der("b")}, "w:xz"), two),
    }

"""``keyassay ca``: an account's own authority, made, imported, listed and shown beside a running server."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat

import fleet_keys
from keyassay.registry import token_keys
from keyassay.storage.database import Database
from keyassay.storage.upgrading import upgrade


@pytest.fixture
def options(tmp_path: Path, keyassay) -> list[str]:
    """A database with an account."""
    url = f"sqlite:///{tmp_path}/registry.db"
    database = Database(url)
    upgrade(database)
    database.close()
    key = tmp_path / "key"
    key.write_text("6b" * 32)
    key.chmod(0o600)
    options = ["--database", url, "--key-file", str(key)]
    assert keyassay("accounts", "create", *options, "--id", "1" * 12).code == 0
    return options


def test_make_rotate_list_and_show(keyassay, options) -> None:
    first = json.loads(keyassay("ca", "init", *options, "--name", "Plant 3", "--json").out)
    assert (first["subject"], first["active"], first["account_id"]) == ("CN=Plant 3", True, "1" * 12)
    assert first["not_after"].startswith("2049-12-31")
    said = keyassay("ca", "init", *options).out
    assert "CN=keyassay 111111111111" in said
    rows = json.loads(keyassay("ca", "list", *options, "--json").out)
    assert [row["active"] for row in rows if row["id"] == first["id"]] == [False]
    assert sorted(row["active"] for row in rows) == [False, True]
    assert "Plant 3" in keyassay("ca", "list", *options).out
    shown = keyassay("ca", "show", *options).out
    certificate = x509.load_pem_x509_certificate(shown.encode())
    assert certificate.subject.rfc4514_string() == "CN=keyassay 111111111111"
    older = json.loads(keyassay("ca", "show", *options, first["id"], "--json").out)
    assert x509.load_pem_x509_certificate(older["certificate_pem"].encode()).subject == fleet_keys.name("Plant 3")
    assert older["id"] == first["id"]


def test_import_with_a_password(keyassay, options, tmp_path) -> None:
    mine = fleet_keys.authority("Elsewhere", 150)
    certificate, key, password = (tmp_path / name for name in ("ca.pem", "ca.key", "password"))
    certificate.write_text(mine.pem)
    encryption = BestAvailableEncryption(b"opens it")
    key.write_bytes(mine.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption))
    refused = keyassay("ca", "import", *options, str(certificate), str(key))
    assert (refused.code, "password" in refused.err) == (2, True)
    password.write_text("opens it\n")
    arguments = [*options, str(certificate), str(key), "--password-file", str(password)]
    assert json.loads(keyassay("ca", "import", *arguments, "--json").out)["id"] == mine.id
    again = keyassay("ca", "import", *arguments)
    assert (again.code, "already" in again.err) == (2, True)
    assert keyassay("ca", "show", *options).out == mine.pem


def test_what_cannot_be(keyassay, options, tmp_path) -> None:
    nothing = keyassay("ca", "show", *options)
    assert (nothing.code, "no such authority" in nothing.err) == (2, True)
    assert json.loads(keyassay("ca", "list", *options, "--json").out) == []
    missing = keyassay("ca", "import", *options, str(tmp_path / "a"), str(tmp_path / "b"))
    assert (missing.code, "cannot read" in missing.err) == (2, True)
    assert keyassay("ca", "init", *options, "--name", "x" * 65).code == 2
    assert keyassay("ca", "init", *options, "--account", "2" * 12).code == 2
    large = tmp_path / "large"
    large.write_bytes(bytes(2 << 20))
    assert "too large" in keyassay("ca", "import", *options, str(large), str(large)).err


def test_a_key_in_a_token(keyassay, options, tmp_path, token) -> None:
    said = keyassay("ca", "init", *options, "--name", "Plant 3", "--pkcs11", token.uri("ca-2026"))
    assert (said.code, said.err) == (0, "")
    assert "key      pkcs11:token=plant%20" in said.out
    first = json.loads(keyassay("ca", "list", *options, "--json").out)[0]
    assert first["key"].startswith("pkcs11:token=plant%20")
    assert ";object=ca-2026;id=%" in first["key"]
    shown = x509.load_pem_x509_certificate(keyassay("ca", "show", *options).out.encode())
    assert shown.subject == fleet_keys.name("Plant 3")
    assert json.loads(keyassay("ca", "init", *options, "--json").out)["key"] == "database"
    rows = [line.split() for line in keyassay("ca", "list", *options).out.splitlines()]
    assert rows[0] == ["id", "issues", "until", "subject", "key"]
    assert sorted(row[-1].partition(":")[0] for row in rows[1:]) == ["database", "pkcs11"]
    again = keyassay("ca", "init", *options, "--pkcs11", token.uri("ca-2026"))
    assert (again.code, "name another one" in again.err) == (2, True)


def test_a_request_for_an_authority_elsewhere(keyassay, options, tmp_path, token) -> None:
    uri = token.uri("sub")
    pem = keyassay("ca", "request", "--name", "Plant 3", "--pkcs11", uri).out
    asked = x509.load_pem_x509_csr(pem.encode())
    root = fleet_keys.authority("Root", 160)
    below = fleet_keys.certificate("Plant 3", root.key, root, is_authority=True, public_key=asked.public_key())
    certificate = tmp_path / "sub.pem"
    certificate.write_text(below.pem)
    imported = json.loads(keyassay("ca", "import", *options, certificate, "--pkcs11", uri, "--json").out)
    assert (imported["id"], imported["active"]) == (below.id, True)
    assert keyassay("ca", "show", *options).out == below.pem
    for wrong in ((certificate,), (certificate, certificate, "--pkcs11", uri)):
        refused = keyassay("ca", "import", *options, *wrong)
        assert (refused.code, "either" in refused.err) == (2, True)
    assert keyassay("ca", "request", "--name", "x" * 65, "--pkcs11", uri).code == 2
    assert keyassay("ca", "request", "--name", "x", "--pkcs11", "pkcs11:").code == 2


def test_a_key_that_may_leave_its_token_is_told(keyassay, options, token, monkeypatch) -> None:
    monkeypatch.setattr(token_keys, "can_leave", lambda _uri: True)
    said = keyassay("ca", "init", *options, "--pkcs11", token.uri())
    assert (said.code, "CKA_EXTRACTABLE" in said.err) == (0, True)


def test_a_pin_is_nowhere(keyassay, options, tmp_path, token) -> None:
    token.pin_file.write_text(f"wrong-{token.pin}")
    wrong = keyassay("ca", "init", *options, "--pkcs11", token.uri("ca"))
    assert (wrong.code, "refuses the PIN" in wrong.err) == (2, True)
    value = keyassay("ca", "init", *options, "--pkcs11", token.uri("ca", **{"pin-value": token.pin}))
    assert (value.code, "does not belong" in value.err) == (2, True)
    assert json.loads(keyassay("ca", "list", *options, "--json").out) == []
    token.pin_file.write_text(token.pin)
    good = keyassay("ca", "init", *options, "--pkcs11", token.uri("ca"), "--json")
    token.leave()
    gone = keyassay("ca", "init", *options, "--pkcs11", token.uri("next"))
    assert (good.code, gone.code, "Traceback" in gone.err) == (0, 2, False)
    said = [wrong, value, good, gone, keyassay("ca", "list", *options)]
    assert token.pin not in "".join(one.out + one.err for one in said)
    kept = list(tmp_path.glob("registry.db*"))
    assert kept
    for path in kept:
        assert token.pin.encode() not in path.read_bytes()

import csv
import io
import json
import os
import re
import stat
from datetime import UTC, datetime
from pathlib import Path
from xml.etree import ElementTree

import gmpy2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa, x25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509 import ocsp

import contract
from issuing import NOT_AFTER, NOT_BEFORE, authority, certificate, pem, sound_key, spki_of, tlv
from keyassay.bulk.scan import Scan
from keyassay.findings import Profile
from keyassay.output import FORMATS
from keyassay.output.jsonl import Lines
from sample_run import primes


def found_in(text):
    return [json.loads(line) for line in text.splitlines()]


def many_kinds(folder):
    """Files of every kind that the contract knows, and more than one kind of key."""
    device = sound_key()
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Sample CA")])
    issuer = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(authority().public_key())
        .serial_number(1).not_valid_before(NOT_BEFORE).not_valid_after(NOT_AFTER).sign(authority(), hashes.SHA256())
    )  # fmt: skip
    request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(device, hashes.SHA256())
    crl = x509.CertificateRevocationListBuilder().issuer_name(name).last_update(NOT_BEFORE).next_update(NOT_AFTER)
    response = (
        ocsp.OCSPResponseBuilder()
        .add_response(issuer, issuer, hashes.SHA256(), ocsp.OCSPCertStatus.GOOD, NOT_BEFORE, NOT_AFTER, None, None)
        .responder_id(ocsp.OCSPResponderEncoding.NAME, issuer)
        .sign(authority(), hashes.SHA256())
    )
    private = device.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    files = {
        "certificate.pem": issuer.public_bytes(Encoding.PEM),
        "request.pem": request.public_bytes(Encoding.PEM),
        "crl.pem": crl.sign(authority(), hashes.SHA256()).public_bytes(Encoding.PEM),
        "ocsp.der": response.public_bytes(Encoding.DER),
        "private.pem": private,
        "unreadable.pem": b"-----BEGIN CERTIFICATE-----\nMIIB!!!\n-----END CERTIFICATE-----\n",
        "negative-serial.der": certificate(spki_of(device), "negative", serial=-5),
        "unknown.der": certificate(
            tlv(0x30, tlv(0x30, bytes.fromhex("0609608648016503040311")), b"\x03\x02\x00\x01"), "x"
        ),
        "jwk.json": b'{"kty": "EC", "crv": "P-256", "x": "%s", "y": "%s"}'
        % tuple(
            _base64url(one) for one in (device.public_key().public_numbers().x, device.public_key().public_numbers().y)
        ),
        "openssh.pub": device.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH) + b" me@here\n",
    }
    p, q = primes()
    publics = {
        "rsa": rsa.RSAPublicNumbers(2**70 + 1, p * q).public_key(),
        "p521": ec.derive_private_key(3**300, ec.SECP521R1()).public_key(),
        "brainpool": ec.derive_private_key(3**150, ec.BrainpoolP256R1()).public_key(),
        "ed25519": ed25519.Ed25519PrivateKey.from_private_bytes(bytes(range(32))).public_key(),
        "ed448": ed448.Ed448PrivateKey.from_private_bytes(bytes(range(57))).public_key(),
        "x25519": x25519.X25519PrivateKey.from_private_bytes(bytes(range(32))).public_key(),
        "dsa": dsa.generate_private_key(1024).public_key(),
    }
    for label, public in publics.items():
        files[f"{label}.pem"] = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    for label, content in files.items():
        (folder / label).write_bytes(content)
    return files


def _base64url(number):
    from base64 import urlsafe_b64encode

    return urlsafe_b64encode(number.to_bytes(32, "big")).rstrip(b"=")


def test_every_kind_of_item_keeps_the_contract(keyassay, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files = many_kinds(tmp_path)
    done = keyassay("scan", ".", "--format", "jsonl", "--fail-on", "never")
    lines = {one["source"].split("/")[-1]: one for one in found_in(done.out)}
    assert set(lines) == set(files)
    for name, line in lines.items():
        assert contract.problems("item", line) == [], name
    assert {one["kind"] for one in lines.values()} == {
        "certificate", "request", "public-key", "private-key", "crl", "ocsp-response", "unreadable",
    }  # fmt: skip
    assert {name: one["key"] for name, one in lines.items() if one["key"] and one["kind"] == "public-key"} == {
        "rsa.pem": {"type": "rsa", "bits": 1024, "exponent": "400000000000000001"},
        "p521.pem": {"type": "ec", "bits": 521, "curve": "P-521"},
        "brainpool.pem": {"type": "ec", "bits": 256, "curve": "brainpoolP256r1"},
        "ed25519.pem": {"type": "ed25519"},
        "ed448.pem": {"type": "ed448"},
        "x25519.pem": {"type": "x25519"},
        "dsa.pem": {"type": "dsa", "bits": 1024},
        "jwk.json": {"type": "ec", "bits": 256, "curve": "P-256"},
        "openssh.pub": {"type": "ec", "bits": 256, "curve": "P-256"},
    }
    assert lines["negative-serial.der"]["serial"] == "-05"
    assert (lines["unknown.der"]["assessed"], lines["unknown.der"]["key"]["type"]) == (False, "ml-dsa-44")
    assert lines["crl.pem"]["key"] is lines["ocsp.der"]["key"] is None
    assert lines["crl.pem"]["issuer"] == lines["certificate.pem"]["subject"] == "CN=Sample CA"
    assert lines["request.pem"]["issuer"] is None
    assert lines["openssh.pub"]["sha256"] is None
    assert lines["openssh.pub"]["spki_sha256"] == lines["private.pem"]["spki_sha256"]
    assert lines["private.pem"]["notices"]
    document = json.loads(keyassay("scan", ".", "--format", "json", "--fail-on", "never").out)
    assert contract.problems("document", document) == []


def test_lines_stand_in_input_order_whatever_the_number_of_processes(keyassay, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    one = b"".join(pem(certificate(spki_of(sound_key(number)), f"device-{number}")) for number in range(40))
    (tmp_path / "b.pem").write_bytes(one)
    (tmp_path / "a.pem").write_bytes(one)
    first = keyassay("scan", "b.pem", "a.pem", "--format", "jsonl", "--jobs", 1)
    second = keyassay("scan", "b.pem", "a.pem", "--format", "jsonl", "--jobs", 2)
    assert first.out == second.out
    assert [(one["source"], one["index"]) for one in found_in(first.out)] == [
        (source, index) for source in ("b.pem", "a.pem") for index in range(40)
    ]


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["fleet"], 1),
        (["fleet", "--fail-on", "never"], 0),
        (["fleet/sound.der"], 0),
        (["fleet/sound.der", "missing.pem"], 3),
        (["fleet/sound.der", "missing.pem", "fleet/broken.pem"], 1),
        (["fleet/notes.txt"], 3),
        (["empty"], 2),
    ],
)
def test_codes_are_the_same_in_every_format(keyassay, fleet, name, arguments, code):
    (fleet.parent / "empty").mkdir()
    done = keyassay("scan", *arguments, "--format", name, "--check", "rsa-close-primes")
    assert done.code == code, done.err
    if code == 2:
        assert "keyassay: nothing to read" in done.err
    else:
        assert done.err == ""


def test_what_fails_a_run_is_chosen(keyassay, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    old = certificate(spki_of(sound_key()), "old", not_after=datetime(2026, 6, 1, tzinfo=UTC))
    (tmp_path / "old.der").write_bytes(old)
    at = ("--at", "2026-09-21")
    assert [keyassay("scan", "old.der", *at, "--fail-on", one).code for one in ("broken", "weak", "notice", "never")] == [
        0, 0, 1, 0,
    ]  # fmt: skip
    assert keyassay("scan", "old.der", "--at", "2026-05-01", "--fail-on", "notice").code == 0
    late = keyassay("scan", "old.der", "--at", "2026-06-01T00:00:01Z", "--format", "jsonl")
    assert found_in(late.out)[0]["findings"][0]["evidence"]["at"] == "2026-06-01T00:00:01Z"


def test_profiles_and_checks_are_chosen(keyassay, fleet):
    def ran(*more):
        done = keyassay("scan", "fleet/broken.pem", "--format", "json", *more)
        return [one["id"] for one in json.loads(done.out)["summary"]["checks"]]

    standard = ran()
    assert set(ran("--profile", "aws")) < set(ran("--profile", "fast")) < set(standard) <= set(ran("--profile", "deep"))
    assert ran("--check", "rsa-roca", "--check", "rsa-close-primes") == ["rsa-close-primes", "rsa-roca"]
    assert set(standard) - set(ran("--skip", "rsa-roca")) == {"rsa-roca"}
    left = {one for one in standard if one.startswith(("fleet-", "signature-"))} | {"rsa-weak-seed"}
    assert left
    assert set(standard) - set(ran("--no-fleet")) == left


@pytest.mark.parametrize("option", ["--check", "--skip"])
def test_an_unknown_check_suggests_its_neighbours(keyassay, fleet, option):
    done = keyassay("scan", "fleet", option, "rsa-close-prime")
    assert done.code == 2
    assert "there is no check 'rsa-close-prime'; did you mean rsa-close-primes" in done.err


def test_the_ending_of_the_output_says_the_format(keyassay, fleet):
    texts = {}
    for ending in ("json", "jsonl", "ndjson", "sarif", "csv", "md", "html", "xml", "txt", "JSON"):
        done = keyassay("scan", "fleet/broken.pem", "--output", f"report.{ending}")
        assert (done.code, done.out) == (1, "")
        texts[ending] = (fleet.parent / f"report.{ending}").read_text()
    assert set(json.loads(texts["json"])) == set(json.loads(texts["JSON"])) == {"results", "summary"}
    assert json.loads(texts["jsonl"]) == json.loads(texts["ndjson"])
    assert json.loads(texts["sarif"])["version"] == "2.1.0"
    assert {one["source"] for one in csv.DictReader(io.StringIO(texts["csv"]))} == {"fleet/broken.pem"}
    assert texts["md"].startswith("## keyassay")
    assert texts["html"].startswith("<!DOCTYPE html>")
    assert ElementTree.fromstring(texts["xml"]).tag == "testsuites"
    assert texts["txt"].startswith("BROKEN")
    other = keyassay("scan", "fleet/broken.pem", "--output", "x.json", "--format", "csv")
    assert other.code == 1
    assert (fleet.parent / "x.json").read_text().startswith("source,index")


def test_a_report_appears_whole_or_not_at_all(keyassay, fleet, monkeypatch):
    report = fleet.parent / "report.jsonl"
    report.write_text("the last one")

    def failing(*_):
        raise RuntimeError("in the middle")

    monkeypatch.setattr(Lines, "line", failing)
    assert keyassay("scan", "fleet", "--output", report).code == 70
    assert report.read_text() == "the last one"
    assert sorted(path.name for path in fleet.parent.iterdir()) == ["fleet", "report.jsonl"]


def test_the_mode_of_a_report(keyassay, fleet):
    before = os.umask(0o022)
    try:
        keyassay("scan", "fleet", "--output", "open.json")
        keyassay("scan", "fleet", "--output", "private.json", "--reveal")
    finally:
        os.umask(before)
    modes = [stat.S_IMODE((fleet.parent / f"{name}.json").stat().st_mode) for name in ("open", "private")]
    assert modes == [0o644, 0o600]
    assert f"{primes()[0]:x}" in (fleet.parent / "private.json").read_text()
    assert f"{primes()[0]:x}" not in (fleet.parent / "open.json").read_text()


def test_a_report_that_cannot_be_written_is_told(keyassay, fleet):
    done = keyassay("scan", "fleet", "--output", "no/such/folder.json")
    assert done.code == 2
    assert "keyassay: cannot write 'no/such/folder.json': No such file or directory" in done.err


def test_a_report_goes_to_a_device(keyassay, fleet):
    assert keyassay("scan", "fleet", "--output", "/dev/null", "--format", "json").code == 1


@pytest.mark.parametrize("name", FORMATS)
def test_hostile_names_are_spelled_out(keyassay, fleet, name):
    done = keyassay("scan", "fleet", "--format", name, "--fail-on", "never")
    assert done.code == 0
    assert done.out.replace("\n", "").replace("\r", "").isprintable()
    assert "<script" not in done.out.replace("\\<script", "").replace("&lt;script", "") or name in {
        "json",
        "jsonl",
        "sarif",
    }


def test_a_baseline_accepts_what_a_run_found(keyassay, fleet):
    first = keyassay("scan", "fleet", "--write-baseline", "accepted.json", "--at", "2026-09-21")
    assert first.code == 1
    entries = json.loads((fleet.parent / "accepted.json").read_text())["accepted"]
    assert {one["check"] for one in entries} >= {"rsa-close-primes", "ec-weak-private-key", "rsa-key-size"}
    again = keyassay("scan", "fleet", "--baseline", "accepted.json", "--at", "2026-12-20", "--fail-on", "weak")
    assert again.code == 0
    assert "accepted until 2026-12-20" in again.out
    assert "p and q are so close" in again.out
    late = keyassay("scan", "fleet", "--baseline", "accepted.json", "--at", "2026-12-21")
    assert late.code == 1
    assert "acceptance expired on 2026-12-20" in late.out


def test_a_malformed_baseline_ends_the_run(keyassay, fleet):
    (fleet.parent / "accepted.json").write_text('{"version": 1, "accepted": [{"check": "rsa-roca"}]}')
    done = keyassay("scan", "fleet", "--baseline", "accepted.json")
    assert (done.code, done.out) == (2, "")
    assert "keyassay: entry 1 of the baseline needs check, expires, reason, sha256" in done.err


def test_the_table_names_what_the_profile_left_out(keyassay, fleet):
    done = keyassay("scan", "fleet", "--profile", "fast", "--no-fleet", "--skip", "rsa-roca")
    (command,) = re.findall(r"^  (keyassay scan .*)$", done.out, re.MULTILINE)
    assert command == "keyassay scan --profile standard --skip rsa-roca --no-fleet fleet"
    again = keyassay(*command.split()[1:])
    assert "profile standard" in again.out


def test_standard_input_is_a_source(keyassay, fleet, monkeypatch):
    data = (fleet / "broken.pem").read_bytes()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))
    done = keyassay("scan", "-", "--format", "jsonl")
    (line,) = found_in(done.out)
    assert (line["source"], line["findings"][0]["check"]) == ("-", "rsa-close-primes")


def test_a_password_file_opens_a_key_store(keyassay, tmp_path, monkeypatch):
    from cryptography.hazmat.primitives.serialization import BestAvailableEncryption
    from cryptography.hazmat.primitives.serialization.pkcs12 import serialize_key_and_certificates

    monkeypatch.chdir(tmp_path)
    held = x509.load_der_x509_certificate(certificate(spki_of(sound_key()), "device-18"))
    store = serialize_key_and_certificates(b"x", sound_key(), held, None, BestAvailableEncryption(b"open sesame"))
    (tmp_path / "store.p12").write_bytes(store)
    (tmp_path / "passwords").write_text("wrong\nopen sesame\n")
    assert keyassay("scan", "store.p12").code == 3
    done = keyassay("scan", "store.p12", "--password-file", "passwords", "--format", "jsonl")
    assert done.code == 0
    assert "certificate" in {one["kind"] for one in found_in(done.out)}
    assert "open sesame" not in done.out
    assert keyassay("scan", "store.p12", "--password-file", "nowhere").code == 2


def test_a_budget_asks_for_profile_deep_and_contradicts_others(keyassay, fleet, monkeypatch):
    seen = []

    class Recording(Scan):
        def __init__(self, paths, settings, *rest):
            seen.append(settings)
            super().__init__(paths, settings, *rest)

    monkeypatch.setattr("keyassay.cli.scan.Scan", Recording)
    only = ["--check", "rsa-close-primes", "--skip", "rsa-close-primes"]
    assert keyassay("scan", *only, "--budget", "1m", fleet).code == 0
    assert keyassay("scan", *only, "--total-budget", "2h", fleet).code == 0
    assert keyassay("scan", *only, "--profile", "deep", fleet).code == 0
    assert [(one.profile, one.budget, one.total_budget) for one in seen] == [
        (Profile.DEEP, 60.0, 0.0),
        (Profile.DEEP, 5.0, 7200.0),
        (Profile.DEEP, 5.0, 0.0),
    ]
    done = keyassay("scan", "--profile", "standard", "--budget", "5s", fleet)
    assert done.code == 2
    assert "--budget is for profile deep" in done.err
    assert keyassay("scan", "--budget", "soon", fleet).code == 2


def test_deep_lines_say_which_steps_ran_and_a_store_remembers_them(keyassay, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    p, q = primes()
    other = int(gmpy2.next_prime(q << 3))
    key = rsa.RSAPublicNumbers(65537, p * other).public_key()
    spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    Path("sound.pem").write_bytes(pem(certificate(spki, "device-19")))
    words = ["scan", "--check", "rsa-smooth-prime", "--budget", "0.2s", "--against", "store", "--format", "json"]
    first = json.loads(keyassay(*words, "sound.pem").out)
    steps = first["results"][0]["steps"]
    assert {one["check"] for one in steps} == {"rsa-smooth-prime"}
    assert steps[0]["outcome"] in ("done", "partly")
    assert first["summary"]["deep"]["keys"] == 1
    second = json.loads(keyassay(*words, "sound.pem").out)
    earlier = [one["outcome"] for one in second["results"][0]["steps"]]
    assert earlier[0] in ("done earlier", "partly")
    assert second["summary"]["deep"]["seconds"] < 0.1


def test_prove_takes_a_budget_as_scan_does(keyassay, fleet):
    words = ["prove", fleet / "broken.pem", "--check", "rsa-close-primes"]
    assert keyassay(*words, "--budget", "1s").code == 1
    done = keyassay(*words, "--profile", "fast", "--budget", "1s")
    assert done.code == 2
    assert "--budget is for profile deep" in done.err

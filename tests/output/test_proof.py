"""Every command of a proof is run as a sceptic would run it: by bash, in an empty folder."""

import re
import subprocess

import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
)

from issuing import certificate, pem, sound_key, spki_of
from keyassay.certificates.decoding import decode
from keyassay.certificates.item import RawItem
from keyassay.findings import EcPrivateKey, Factor, Step
from keyassay.output.proof import private_key, proof, text
from sample_run import finding, primes, weak_result


def item_with(public, source="x.pem", index=0, offset=0):
    spki = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return decode([RawItem(source, index, offset, "CERTIFICATE", certificate(spki, "device"))])[0]


def run(command, folder):
    done = subprocess.run(["bash", "-c", command], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (command, done.stderr)
    return done.stdout.strip()


def outputs(steps, folder):
    """Run the commands; what each of them printed, by the end of its sentence."""
    return {step.says: run(step.command, folder) for step in steps if step.command}


def confirmed(found):
    """The steps whose sentence says what has to be printed, all of which print just that."""
    checked = 0
    for says, printed in found.items():
        promise = re.search(r"\(prints:? (.*)\)$", says)
        if promise:
            assert printed == promise[1], says
            checked += 1
    return checked


def test_a_factor_becomes_a_private_key_that_openssl_accepts(tmp_path):
    result = weak_result("device-17", "nowhere.pem")
    found = outputs(proof(result.item, result.findings[0]), tmp_path)
    assert confirmed(found) == 3
    assert "BEGIN PRIVATE KEY" in (tmp_path / "private.pem").read_text()
    assert "Public-Key: (1024 bit)" in found["The public key, copied from the input"]


@pytest.mark.parametrize("form", ["pem", "der", "bundle"])
def test_the_public_key_is_read_from_the_users_own_file(tmp_path, form):
    p, q = primes()
    public = rsa.RSAPublicNumbers(65537, p * q).public_key()
    der = certificate(public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo), "device")
    first = pem(certificate(spki_of(sound_key()), "other"))
    content = {"pem": pem(der), "der": der, "bundle": first + pem(der)}[form]
    path = tmp_path / "the file's.crt"
    path.write_bytes(content)
    offset = len(first) if form == "bundle" else 0
    item = decode([RawItem(str(path), 1, offset, "CERTIFICATE", der)])[0]
    steps = proof(item, finding("rsa-near-primes", Factor(p), "x", item.key))
    assert str(tmp_path) in steps[0].command
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    assert confirmed(outputs(steps, folder)) == 3


def test_a_file_that_changed_since_is_not_read(tmp_path):
    path = tmp_path / "a.crt"
    path.write_bytes(b"something else")
    result = weak_result("device-17", str(path))
    assert "base64 -d" in proof(result.item, result.findings[0])[0].command


@pytest.mark.parametrize(
    ("curve", "d"),
    [(ec.SECP256R1(), 7), (ec.SECP256K1(), 2**200 + 1), (ec.SECP521R1(), 12345), (ec.BrainpoolP384R1(), 99)],
)
def test_an_elliptic_curve_key(tmp_path, curve, d):
    item = item_with(ec.derive_private_key(d, curve).public_key())
    steps = proof(item, finding("rsa-near-primes", EcPrivateKey(d), "x", item.key))
    assert confirmed(outputs(steps, tmp_path)) == 2


def test_a_compressed_point(tmp_path):
    public = ec.derive_private_key(7, ec.SECP256R1()).public_key()
    point = public.public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
    spki = bytes.fromhex("3039301306072a8648ce3d020106082a8648ce3d030107032200") + point
    item = decode([RawItem("x.pem", 0, 0, "CERTIFICATE", certificate(spki, "device"))])[0]
    steps = proof(item, finding("rsa-near-primes", EcPrivateKey(7), "x", item.key))
    assert confirmed(outputs(steps, tmp_path)) == 2


def test_private_keys_of_all_kinds_fit_their_public_keys():
    p, q = primes()
    numbers = dsa.generate_parameters(1024).parameter_numbers()
    small = dsa.DSAPublicNumbers(pow(numbers.g, 77, numbers.p), numbers).public_key()
    edwards = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    for public, secrets in (
        (rsa.RSAPublicNumbers(65537, p * q).public_key(), {"factor": q}),
        (rsa.RSAPublicNumbers(65537, p * q).public_key(), {"d": pow(65537, -1, (p - 1) * (q - 1))}),
        (rsa.RSAPublicNumbers(65537, p * q).public_key(), {"noise": ["text", {"deep": [3, True, p]}]}),
        (small, {"x": 77}),
        (edwards.public_key(), {"seed": bytes(range(32))}),
    ):
        pkcs8 = private_key(item_with(public), secrets)
        assert pkcs8 is not None
        assert load_der_private_key(pkcs8, None).public_key() == public
        again = load_der_private_key(pkcs8, None).private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
        assert len(again) == len(pkcs8)


def test_numbers_that_lead_nowhere_give_no_key():
    p, q = primes()
    item = item_with(rsa.RSAPublicNumbers(65537, p * q).public_key())
    for secrets in ({}, {"factor": 1}, {"factor": p * q}, {"factor": 0}, {"factor": -p}, {"d": 12345}, {"x": "text"}):
        assert private_key(item, secrets) is None
    point = item_with(ec.derive_private_key(7, ec.SECP256R1()).public_key())
    for d in (8, 0, -7, 2**256 + 7):
        assert private_key(point, {"d": d}) is None
    seed = item_with(ed25519.Ed25519PrivateKey.from_private_bytes(bytes(32)).public_key())
    for value in (bytes(31), bytes(33), b"\x01" * 32, 0):
        assert private_key(seed, {"seed": value}) is None


def test_commands_of_several_lines_are_ready_to_paste():
    lines = list(text([Step("Look at this"), Step("Do it", "cat > x << 'END'\na\nEND")]))
    assert lines == ["  1. Look at this", "  2. Do it", "     $ cat > x << 'END'\na\nEND"]

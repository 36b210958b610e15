"""Keys of the user's lists: by hash, by a prime, in every form; and what a damaged list does to a scan."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives import serialization as s
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from keyassay.certificates.batches import group_keys
from keyassay.certificates.public_key import EcPublicKey, OkpPublicKey, RsaPublicKey
from keyassay.checks import Context, check
from keyassay.checks.any_known_key import KnownHash
from keyassay.findings import Confidence, Factor
from keyassay.keymath.curves import named_curves
from keyassay.lists import known
from sample_run import primes as sample_primes

CHECK = check("any-known-key")
RSA = rsa.generate_private_key(65537, 1024)
NUMBERS = RSA.private_numbers()
MODULUS = NUMBERS.public_numbers.n
CURVE = ec.derive_private_key(2**200 + 99, ec.SECP256R1())


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with an RSA and a P-256 key, and an empty data folder of the user's."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    place = tmp_path / "keys"
    place.mkdir()
    for name, key in (("rsa.pem", RSA), ("curve.pem", CURVE)):
        data = key.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, s.NoEncryption())
        (place / name).write_bytes(data)
    return place


def findings(*keys, context=None):
    """Findings by row; keys of one type and size."""
    ((batch, positions),) = group_keys(keys)
    return {
        int(positions[row]): CHECK.finding(keys[int(positions[row])], verdict)
        for row, verdict in CHECK.find(batch, context or Context())
    }


def curve_key(form: int = 4) -> EcPublicKey:
    numbers = CURVE.public_key().public_numbers()
    x, y = (number.to_bytes(32, "big") for number in (numbers.x, numbers.y))
    return EcPublicKey("P-256", bytes([form]) + x + y if form == 4 else bytes([2 + (numbers.y & 1)]) + x)


def test_a_key_of_the_users_is_certain_by_its_hash(folder):
    assert findings(RsaPublicKey(MODULUS, 3)) == {}
    known.add(folder, "lab")
    found = findings(RsaPublicKey(MODULUS + 2, 3), RsaPublicKey(MODULUS, 3))
    assert list(found) == [1]
    assert found[1].confidence is Confidence.CERTAIN
    assert found[1].message == "the private key is in your list 'lab': rsa.pem"
    assert dict(found[1].evidence.describe()) == {
        "proof": "hash",
        "number_sha256": known.digest_of(RsaPublicKey(MODULUS, 3)),
        "list": "lab",
        "source": "rsa.pem",
    }
    assert found[1].evidence.secrets() == {}
    for form in (4, 2):
        assert findings(curve_key(form))[0].confidence is Confidence.CERTAIN


def test_the_negative_of_a_known_point_is_known_and_the_same_x_on_another_curve_is_not(folder):
    known.add(folder, "lab")
    point = curve_key().point
    negative = (int(named_curves()["P-256"].p) - int.from_bytes(point[33:], "big")).to_bytes(32, "big")
    assert list(findings(EcPublicKey("P-256", point[:33] + negative))) == [0]
    assert findings(EcPublicKey("secp256k1", point)) == {}
    assert findings(OkpPublicKey("ed25519", point[1:33])) == {}


def test_a_single_kept_prime_is_found_in_any_modulus(folder):
    known.add(folder, "lab", with_primes=True)
    other = sample_primes()[0]
    half = [NUMBERS.p * other, NUMBERS.q * other]
    for modulus in half:
        found = findings(RsaPublicKey(modulus, 65537))[0]
        assert isinstance(found.evidence, Factor)
        assert found.confidence is Confidence.PROVEN
        assert found.evidence.factor in (NUMBERS.p, NUMBERS.q)
        assert found.message == "a prime of it is in your list 'lab': rsa.pem"
    whole = findings(RsaPublicKey(MODULUS, 65537))[0]
    assert (whole.message, whole.confidence) == ("both primes are in your list 'lab': rsa.pem", Confidence.PROVEN)


def test_kept_primes_leave_other_keys_alone_whatever_their_size(folder):
    known.add(folder, "lab", with_primes=True)
    p, q = sample_primes()
    for modulus in (0, 1, 2, 3, 15, 2**521 - 1, p * q, p, NUMBERS.p, NUMBERS.q):
        assert findings(RsaPublicKey(modulus, 65537)) == {}, modulus


def test_a_prime_is_found_among_thousands(folder):
    known.add(folder, "lab", with_primes=True)
    sound = RsaPublicKey(sample_primes()[0] * sample_primes()[1], 65537)
    weak = RsaPublicKey(NUMBERS.p * sample_primes()[0], 65537)
    if weak.bits != sound.bits:
        sound = RsaPublicKey(sound.modulus >> (sound.bits - weak.bits) | 1, 3)
    keys = [sound] * 2_000
    keys[1_234] = weak
    assert 1_234 in findings(*keys)


def test_a_list_that_was_extended_is_used_at_once(folder):
    context = Context()
    assert findings(RsaPublicKey(MODULUS, 3), context=context) == {}
    known.add(folder, "lab", with_primes=True)
    assert len(findings(RsaPublicKey(MODULUS, 3), context=context)) == 1
    assert len(findings(curve_key(), context=context)) == 1


def test_a_damaged_list_is_a_remark_of_the_run(folder):
    known.add(folder, "lab")
    path = known.folder() / "lab.known"
    path.write_bytes(path.read_bytes()[:-1])
    context = Context()
    published = next(key for key in known.published() if key.key_type == "rsa")
    p, q = (int(text, 16) for text in published.secret)
    assert len(findings(RsaPublicKey(p * q, 3), context=context)) == 1
    (note,) = context.notes
    assert note.check == "any-known-key"
    assert "lab.known is damaged" in note.reason


def test_evidence_by_hash_holds_for_its_key_only():
    key = RsaPublicKey(MODULUS, 65537)
    evidence = KnownHash(known.digest_of(key), "rsa", {"list": "lab", "source": "a"})
    assert evidence.proves(key)
    assert not evidence.proves(RsaPublicKey(MODULUS + 2, 65537))
    assert not KnownHash(known.digest_of(key), "dsa").proves(key)
    assert "keyassay lists find" in evidence.steps(key)[1].command

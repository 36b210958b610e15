"""Lists of keys whose private half is known: numbers, files, hostile folders."""

from __future__ import annotations

import hashlib
import os
import re
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import gmpy2
import numpy as np
import pytest
from cryptography.hazmat.primitives import serialization as s
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa, x448, x25519
from cryptography.hazmat.primitives.serialization import pkcs12
from hypothesis import given, settings
from hypothesis import strategies as st

from issuing import certificate, pem, spki_of
from keyassay.certificates.decoding import decode
from keyassay.certificates.public_key import (
    DsaPublicKey,
    EcPublicKey,
    OkpPublicKey,
    RsaPublicKey,
    UnsupportedPublicKey,
    bare_number,
)
from keyassay.certificates.reading import ReadOptions, read_bytes
from keyassay.errors import KeyassayError
from keyassay.keymath.curves import named_curves
from keyassay.lists import known
from keyassay.lists.known import PUBLISHED, KnownKey

RSA = rsa.generate_private_key(65537, 1024)
CURVE = ec.derive_private_key(2**200 + 12345, ec.SECP256R1())
DSA = dsa.generate_private_key(1024)


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty data folder of the user's."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "keyassay" / "known"


def private_pem(key, password: bytes | None = None, form=s.PrivateFormat.PKCS8) -> bytes:
    encryption = s.BestAvailableEncryption(password) if password else s.NoEncryption()
    return key.private_bytes(s.Encoding.PEM, form, encryption)


@pytest.fixture
def folder(tmp_path):
    """Private keys of all types, in folders, beside a certificate, rubbish and a locked key."""
    place = tmp_path / "keys"
    (place / "deep" / "er").mkdir(parents=True)
    (place / "rsa.pem").write_bytes(private_pem(RSA, form=s.PrivateFormat.TraditionalOpenSSL))
    (place / "deep" / "ec.key").write_bytes(private_pem(CURVE))
    (place / "deep" / "er" / "dsa").write_bytes(private_pem(DSA))
    seeds = {
        "ed25519": ed25519.Ed25519PrivateKey,
        "x25519": x25519.X25519PrivateKey,
        "ed448": ed448.Ed448PrivateKey,
        "x448": x448.X448PrivateKey,
    }
    for name, kind in seeds.items():
        size = {"ed25519": 32, "x25519": 32, "ed448": 57, "x448": 56}[name]
        (place / "deep" / name).write_bytes(private_pem(kind.from_private_bytes(bytes(range(1, size + 1)))))
    (place / "certificate.pem").write_bytes(pem(certificate(spki_of(CURVE), "device-1")))
    (place / "rubbish.pem").write_bytes(b"\x00\xff rubbish")
    (place / "notes.txt").write_text("nothing of interest")
    (place / "locked.pem").write_bytes(private_pem(ec.derive_private_key(2**201 + 7, ec.SECP384R1()), b"secret"))
    return place


# The built-in list


def test_the_published_list_is_large_sorted_and_cites_an_rfc_for_each_key():
    listed = known.published()
    keys = list(listed)
    assert len(keys) == len({(key.digest, key.key_type) for key in keys}) > 250
    assert [key.digest for key in keys] == sorted(key.digest for key in keys)
    cited = re.compile(r"RFC \d{4}, [\w. ]+(; RFC \d{4}, [\w. ]+)*")
    assert all(cited.fullmatch(key.source) for key in keys)
    types = {key.key_type for key in keys}
    assert {"rsa", "dsa", "ed25519", "ed448", "x25519", "x448"} < types
    assert types - {"rsa", "dsa", "ed25519", "ed448", "x25519", "x448"} <= set(named_curves())
    for rfc in (4134, 4754, 5903, 6979, 7515, 7517, 7520, 7748, 8032, 8037, 8410, 8479, 9216, 9421, 9500):
        assert any(f"RFC {rfc}" in key.source for key in keys), rfc


@pytest.mark.parametrize("kind", ["rsa", "dsa", "okp", "curve"])
def test_private_numbers_make_the_public_ones_by_another_library(kind):
    """By OpenSSL's arithmetic where it has the curve, else by plain powers: a second opinion."""
    shapes = {"P-256": ec.SECP256R1, "P-384": ec.SECP384R1, "P-521": ec.SECP521R1, "P-224": ec.SECP224R1}
    compared = 0
    for key in known.published():
        if kind == "rsa" == key.key_type:
            p, q = (int(text, 16) for text in key.secret)
            number = p * q
            octets = number.to_bytes((number.bit_length() + 7) // 8, "big")
            assert gmpy2.is_prime(p, 40)
            assert gmpy2.is_prime(q, 40)
        elif kind == "dsa" == key.key_type:
            x, p, q, g = (int(text, 16) for text in key.secret)
            number = pow(g, x, p)
            octets = number.to_bytes((number.bit_length() + 7) // 8, "big")
            assert gmpy2.is_prime(p, 40)
            assert gmpy2.is_prime(q, 40)
            assert (p - 1) % q == 0
            assert pow(g, q, p) == 1 < g
        elif kind == "okp" and key.key_type in known._OKP:
            made = known._OKP[key.key_type].from_private_bytes(bytes.fromhex(key.secret[0]))
            octets = made.public_key().public_bytes_raw()
        elif kind == "curve" and key.key_type in shapes:
            made = ec.derive_private_key(int(key.secret[0], 16), shapes[key.key_type]())
            x = made.public_key().public_numbers().x
            octets = x.to_bytes(named_curves()[key.key_type].field_bytes, "big")
        else:
            continue
        compared += 1
        assert hashlib.sha256(octets).digest() == key.digest
    assert compared > 10


def test_every_published_key_is_found_by_its_hash_and_by_no_other():
    for key in known.published():
        assert key in known.find(key.digest)
        assert known.find(key.digest[:31] + bytes([key.digest[31] ^ 1])) == []


def test_a_list_that_came_damaged_is_told(tmp_path, monkeypatch):
    known.published.cache_clear()
    monkeypatch.setattr(known, "DATA", tmp_path)
    try:
        with pytest.raises(KeyassayError, match="cannot be read"):
            known.published()
        (tmp_path / "known").mkdir()
        (tmp_path / "known" / "rfc.tsv").write_text("rsa\tnot hex\tat all\n")
        with pytest.raises(KeyassayError):
            known.published()
    finally:
        monkeypatch.undo()
        known.published.cache_clear()


# Bare numbers


def test_bare_numbers_do_not_depend_on_the_form_of_a_point():
    numbers = CURVE.public_key().public_numbers()
    x, y = (number.to_bytes(32, "big") for number in (numbers.x, numbers.y))
    forms = [b"\x04" + x + y, bytes([2 + (numbers.y & 1)]) + x, bytes([6 + (numbers.y & 1)]) + x + y]
    assert {bare_number(EcPublicKey("P-256", form)) for form in forms} == {x}


def test_what_cannot_be_recognised_has_no_digest():
    nothing = [
        EcPublicKey("P-256", b""),
        EcPublicKey("P-256", b"\0"),
        EcPublicKey("P-256", b"\x05" + bytes(64)),
        OkpPublicKey("ed25519", b""),
        RsaPublicKey(0, 3),
        RsaPublicKey(12345, 3),
        DsaPublicKey(7, 3, 2, 4),
        UnsupportedPublicKey("gost", "GOST", "no"),
    ]
    assert [known.digest_of(key) for key in nothing] == [b""] * len(nothing)
    assert known.key_type(nothing[-1]) == ""


@given(st.integers(2**200, 2**2048 - 1))
def test_digests_of_moduli_are_those_of_the_shortest_octets(modulus):
    octets = modulus.to_bytes(256, "big").lstrip(b"\0")
    assert known.digest_of(RsaPublicKey(modulus, 65537)) == hashlib.sha256(octets).digest()


# The user's lists


def test_private_keys_of_all_types_are_added_once(home, folder):
    report = known.add(folder, "own", passwords=(b"secret",))
    assert (report.added, report.already, report.total, report.public, report.passed_over) == (8, 0, 8, 1, 1)
    assert [(place, bool(reason)) for place, reason in report.unreadable] == [("rubbish.pem[0]", True)]
    (listed,) = known.own()
    assert {(key.key_type, key.source) for key in listed} == {
        ("rsa", "rsa.pem"),
        ("P-256", "deep/ec.key"),
        ("P-384", "locked.pem"),
        ("dsa", "deep/er/dsa"),
        *((name, f"deep/{name}") for name in ("ed25519", "x25519", "ed448", "x448")),
    }
    again = known.add(folder, "own", passwords=(b"secret",))
    assert (again.added, again.already, again.total) == (0, 8, 8)


def test_a_locked_key_is_a_record_and_the_others_are_added(home, folder):
    report = known.add(folder, "own", passwords=(b"wrong",))
    assert report.added == 7
    assert {place for place, _ in report.unreadable} == {"rubbish.pem[0]", "locked.pem[0]"}


def test_nothing_secret_is_stored_and_only_the_owner_reads_it(home, folder):
    known.add(folder, "own")
    assert [path.name for path in sorted(home.iterdir())] == ["lock", "own.known"]
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in home.iterdir()} == {0o600}
    stored = (home / "own.known").read_bytes()
    numbers = RSA.private_numbers()
    for secret in (numbers.p, numbers.q, numbers.d, CURVE.private_numbers().private_value):
        octets = secret.to_bytes((secret.bit_length() + 7) // 8, "big")
        assert octets not in stored
        assert octets[::-1] not in stored


def test_primes_are_kept_on_demand(home, folder):
    assert known.add(folder, "own", with_primes=True).primes == 2
    numbers = RSA.private_numbers()
    primes = known.primes()
    assert set(primes.values) == {numbers.p, numbers.q}
    assert set(primes.origins) == {("own", "rsa.pem")}
    assert stat.S_IMODE((home / "own.primes").stat().st_mode) == 0o600
    assert known.add(folder, "own", with_primes=True).primes == 0
    other = rsa.generate_private_key(65537, 1024)
    (folder / "another.pem").write_bytes(private_pem(other))
    assert known.add(folder, "own", with_primes=True).primes == 2
    assert len(known.primes().values) == 4


@pytest.mark.parametrize("form", ["pkcs8", "encrypted", "openssh", "pkcs12", "jwk"])
def test_primes_come_out_of_every_form(home, tmp_path, form):
    numbers = RSA.private_numbers()
    path = tmp_path / "key"
    if form == "pkcs8":
        path.write_bytes(private_pem(RSA))
    elif form == "encrypted":
        path.write_bytes(private_pem(RSA, b"secret"))
    elif form == "openssh":
        path.write_bytes(private_pem(RSA, form=s.PrivateFormat.OpenSSH))
    elif form == "pkcs12":
        from cryptography import x509

        leaf = x509.load_der_x509_certificate(certificate(spki_of(RSA), "device-2"))
        encryption = s.BestAvailableEncryption(b"secret")
        path.write_bytes(pkcs12.serialize_key_and_certificates(b"x", RSA, leaf, None, encryption))
    else:
        import base64

        def text(number: int) -> str:
            octets = number.to_bytes((number.bit_length() + 7) // 8, "big")
            return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()

        public = numbers.public_numbers
        path.write_text(
            f'{{"kty":"RSA","n":"{text(public.n)}","e":"AQAB","d":"{text(numbers.d)}",'
            f'"p":"{text(numbers.p)}","q":"{text(numbers.q)}"}}'
        )
    report = known.add(path, "own", with_primes=True, passwords=(b"secret",))
    assert (report.added, report.primes, report.left_out) == (1, 2, [])
    assert set(known.primes().values) == {numbers.p, numbers.q}


@pytest.mark.parametrize("wrong", ["swapped digits", "composite", "tiny"])
def test_primes_that_are_none_are_not_kept(home, tmp_path, wrong):
    """A key whose factors are forged would make the check accuse strangers."""
    p, q = (int(gmpy2.next_prime(start)) for start in (3 << 510, 7 << 509))
    given = {"swapped digits": (p + 2, q), "composite": (p * 3, q * 5), "tiny": (3, p * q)}[wrong]
    modulus = p * q if wrong == "swapped digits" else given[0] * given[1]
    from keyassay.certificates.der import SEQUENCE, element, integer_element

    body = b"".join(integer_element(number) for number in (0, modulus, 65537, 5, *given, 1, 1, 1))
    path = tmp_path / "forged.der"
    path.write_bytes(element(SEQUENCE, body))
    report = known.add(path, "own", with_primes=True)
    assert (report.added, report.primes, len(report.left_out)) == (1, 0, 1)
    assert known.primes().values == ()


def test_a_certificate_alone_adds_nothing(home, tmp_path):
    path = tmp_path / "certificate.pem"
    path.write_bytes(pem(certificate(spki_of(CURVE), "device-3")))
    report = known.add(path, "own")
    assert (report.added, report.public) == (0, 1)
    assert known.own() == ()


def test_hostile_files_stop_nothing(home, tmp_path):
    place = tmp_path / "keys"
    place.mkdir()
    name = os.fsdecode(b"line\nend\xff.pem")
    (place / name).write_bytes(private_pem(CURVE))
    (place / "short.pem").write_bytes(private_pem(RSA)[:300])
    (place / "weird.der").write_bytes(b"\x30\x84\xff\xff\xff\xff")
    (place / "loop").symlink_to(place)
    (place / "gone").symlink_to(place / "nowhere")
    (place / "closed").write_bytes(private_pem(RSA))
    report = known.add(place, "own")
    assert report.added == 2
    assert len(report.unreadable) == 3
    assert name in {key.source for listed in known.own() for key in listed}


@pytest.mark.parametrize("name", ["", "A", "../x", ".hidden", "a/b", "x" * 65, PUBLISHED, "a b", "ä"])
def test_names_that_are_none_are_refused(home, folder, name):
    with pytest.raises(KeyassayError, match="no name for a list"):
        known.add(folder, name)


def test_a_folder_that_is_not_there_is_told(home, tmp_path):
    with pytest.raises(KeyassayError, match="there is no"):
        known.add(tmp_path / "nowhere", "own")


def test_a_home_that_cannot_be_written_is_told(home, folder, tmp_path):
    (tmp_path / "home").write_text("a file where the folder should be")
    with pytest.raises(KeyassayError, match="cannot be written") as caught:
        known.add(folder, "own")
    assert "XDG_DATA_HOME" in caught.value.hint
    assert known.own() == ()
    assert known.primes().values == ()
    assert known.problems() == ()


def test_damaged_lists_are_told_and_the_others_are_used(home, folder):
    known.add(folder, "good", with_primes=True)
    known.add(folder, "bad", with_primes=True)
    for ending in ("known", "primes"):
        path = home / f"bad.{ending}"
        whole = path.read_bytes()
        for damaged in (
            b"",
            whole[:40],
            whole[:-1],
            whole[:60] + bytes([whole[60] ^ 1]) + whole[61:],
            b"x" + whole[1:],
        ):
            path.write_bytes(damaged)
            assert any(path.name in problem for problem in known.problems())
            assert "good" in [listed.name for listed in known.own()]
            assert len(known.primes().values) == 2
            with pytest.raises(KeyassayError):
                known.add(folder, "bad", with_primes=True)
        path.write_bytes(whole)
        assert known.problems() == ()


def test_lists_with_sound_digests_and_unsound_contents_are_refused(home, folder):
    known.add(folder, "own")
    path = home / "own.known"
    header, body = path.read_bytes()[:56], path.read_bytes()[56:]
    count = len(known.own()[0])
    far = body[: 32 * count] + b"\xff" * 4 + body[32 * count + 4 :]
    reverse = np.frombuffer(body[: 8 * count], dtype="<u8")[::-1].tobytes() + body[8 * count :]
    for changed in (far, reverse, body + b"\0", body[:-4] + b"abcd"):
        path.write_bytes(header[:24] + hashlib.sha256(changed).digest() + changed)
        assert known.own() == ()
        assert len(known.problems()) == 1


def test_additions_at_once_lose_nothing(home, tmp_path):
    """Two people who add at the same time: each in a process of its own."""
    for number in range(6):
        (tmp_path / f"{number}.pem").write_bytes(private_pem(ec.derive_private_key(2**200 + number, ec.SECP256R1())))
    code = "import sys; from pathlib import Path; from keyassay.lists import known; known.add(Path(sys.argv[1]), 'own')"

    def add(number: int) -> int:
        return subprocess.run([sys.executable, "-c", code, tmp_path / f"{number}.pem"], check=True).returncode

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(add, range(6)))
    assert len(known.own()[0]) == 6


_KEYS = st.lists(
    st.builds(
        KnownKey,
        st.just("own"),
        st.sampled_from(["rsa", "P-256", "ed25519"]),
        st.binary(min_size=32, max_size=32),
        st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=20),
    ),
    min_size=1,
    max_size=40,
    unique_by=lambda key: (key.digest, key.key_type),
)


@given(_KEYS)
@settings(max_examples=60)
def test_a_list_is_read_as_it_was_written_and_every_key_is_found(tmp_path_factory, keys):
    path = tmp_path_factory.mktemp("known") / "own.known"
    path.write_bytes(known._pack(known._list_of("own", keys)))
    listed = known._open(path)
    assert sorted(listed, key=str) == sorted(keys, key=str)
    for key in keys:
        assert key in list(listed.at(key.digest))


@given(st.dictionaries(st.integers(2**130, 2**1030), st.sampled_from(["a", "b/c", "ü\n"]), max_size=20))
@settings(max_examples=40)
def test_primes_are_read_as_they_were_written(tmp_path_factory, found):
    path = Path(tmp_path_factory.mktemp("known")) / "own.primes"
    path.write_bytes(known._pack_primes(found))
    assert dict(known._read_primes(path)) == found


@given(st.lists(st.binary(min_size=32, max_size=32), max_size=20))
@settings(max_examples=30)
def test_screens_take_listed_keys_only(strangers):
    listed = list(known.published())[::40]
    digests = [key.digest for key in listed] + strangers
    prefixes = np.array([int.from_bytes(digest[:8], "big") for digest in digests], dtype=np.uint64)
    every = {int(prefix) for prefix in known.published().prefixes}
    assert known.find_many(prefixes) == [row for row, prefix in enumerate(prefixes.tolist()) if prefix in every]


# Reading private keys


def test_callers_without_interest_in_private_keys_get_what_they_got_before():
    for key in (RSA, CURVE, DSA):
        blocks = list(read_bytes(private_pem(key), ReadOptions()))
        items = [item for block in blocks for item in decode(block)]
        assert [item.kind.value for item in items] == ["private-key"]


def test_private_keys_are_announced_at_their_place():
    seen = []
    data = pem(certificate(spki_of(CURVE), "device-4")) + private_pem(RSA) + private_pem(CURVE)
    options = ReadOptions(private_keys=lambda *told: seen.append(told))
    items = [item for block in read_bytes(data, options, "a.pem") for item in decode(block)]
    numbers = RSA.private_numbers()
    assert seen == [("a.pem", 1, (numbers.p, numbers.q)), ("a.pem", 2, ())]
    assert [item.key.type for item in items] == ["ec", "rsa", "ec"]

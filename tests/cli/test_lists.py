import hashlib
import json
import shutil
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization as s
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from issuing import certificate, pem, spki_of
from keyassay.lists import keypair, known, lookup
from keyassay.lists.debian import coordinate_bytes, ec_key
from keyassay.lists.format import SHIPPED, block_names
from keyassay.lists.recipes.debian_openssl import Stream, rsa_keys
from sample_run import HOSTILE

REAL = lookup.DATA
NAMES = block_names("ec-p256")


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """An empty data folder of the user's."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "keyassay"


def modulus_hash(stream, bits=1024):
    modulus = rsa_keys(stream, bits)[65537].modulus
    return hashlib.sha256(modulus.to_bytes(bits // 8, "big")).hexdigest()


def private_key(path, key=None, password=None):
    key = key or rsa.generate_private_key(65537, 1024)
    encryption = s.BestAvailableEncryption(password) if password else s.NoEncryption()
    path.write_bytes(key.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, encryption))
    return key


# status


def test_status_names_every_list(keyassay):
    said = keyassay("lists", "status")
    assert said.code == 0
    lines = {line.split()[0]: line for line in said.out.splitlines()[1:]}
    assert list(lines) == [kind.list_name for kind in SHIPPED.values()] + list(keypair.KINDS) + ["published-rfc"]
    for kind in SHIPPED.values():
        line = lines[kind.list_name]
        assert " 96 of 96 " in line
        assert ("not confirmed by an original" in line) != kind.confirmed
        assert ("`direct` not confirmed" in line) == kind.confirmed
        assert "goes on" not in line
    assert "393,216  96 of 96" in lines["debian-ec-p256"]


def test_status_as_json(keyassay):
    rows = json.loads(keyassay("lists", "status", "--json").out)
    by_name = {row["name"]: row for row in rows}
    one = by_name["debian-ec-secp256k1"]
    assert one == {
        "name": "debian-ec-secp256k1",
        "kind": "ec-secp256k1",
        "entries": 393_216,
        "blocks": 96,
        "complete_blocks": 96,
        "confirmed": False,
        "remarks": ["not confirmed by an original"],
    }
    assert by_name["published-rfc"]["entries"] == len(known.published())


def test_status_tells_of_incomplete_damaged_and_own_lists(keyassay, tmp_path, monkeypatch):
    data = tmp_path / "data"
    for name in NAMES[:2]:
        (data / name.path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REAL / name.path, data / name.path)
    private_key(tmp_path / "key.pem")
    keyassay("lists", "add", tmp_path / "key.pem", "--with-primes", "--name", "lab")
    monkeypatch.setattr(lookup, "DATA", data)
    monkeypatch.setattr(lookup, "MERGED", tmp_path / "merged")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    lookup.merged.cache_clear()
    try:
        out = keyassay("lists", "status").out
        lines = {line.split()[0]: line for line in out.splitlines()}
        assert "2 of 96       not complete: `keyassay lists build --key ec-p256` goes on" in lines["debian-ec-p256"]
        assert "0 of 96       not there: `keyassay lists build --key rsa-2048` makes it" in lines["debian-rsa-2048"]
        assert "2 primes tried on all moduli" in out
        (data / NAMES[0].path).write_bytes(b"rubbish")
        lookup.merged.cache_clear()
        assert "too short for a block" in keyassay("lists", "status").out
        (known.folder() / "lab.known").write_bytes(b"rubbish")
        said = keyassay("lists", "status")
        assert said.code == 0
        assert "lab.known cannot be read" in said.err
    finally:
        lookup.merged.cache_clear()


# find


def test_find_names_the_stream(keyassay):
    stream = Stream("le64", "rnd", 1234)
    digest = modulus_hash(stream)
    _, x, _ = ec_key("P-384", Stream("be32", "noreadrnd", 7))
    curve = hashlib.sha256(x.to_bytes(coordinate_bytes("P-384"), "big")).hexdigest()
    said = keyassay("lists", "find", digest, curve.upper())
    assert said.code == 0
    assert said.out.splitlines() == [
        f"{digest}  debian-rsa-1024  arch=le64 state=rnd pid=1234",
        f"{curve}  debian-ec-p384  arch=be32 state=noreadrnd pid=7",
    ]


def test_find_compares_the_whole_hash(keyassay):
    digest = modulus_hash(Stream("le64", "rnd", 1234))
    almost = digest[:-1] + ("0" if digest[-1] != "0" else "1")
    said = keyassay("lists", "find", digest, almost)
    assert said.code == 1
    assert said.out.splitlines()[1] == f"{almost}  in no list"


def test_find_names_published_keys_and_those_of_the_user(keyassay, tmp_path):
    published = next(key for key in known.published() if key.source == "RFC 9500, testRSA2048")
    key = private_key(tmp_path / "key.pem")
    keyassay("lists", "add", tmp_path, "--name", "lab")
    own = hashlib.sha256(key.public_key().public_numbers().n.to_bytes(128, "big")).hexdigest()
    said = keyassay("lists", "find", published.digest.hex(), own)
    assert said.code == 0
    assert said.out.splitlines() == [
        f"{published.digest.hex()}  published-rfc  RFC 9500, testRSA2048",
        f"{own}  lab  key.pem",
    ]


def test_find_as_json(keyassay):
    digest = modulus_hash(Stream("le32", "nornd", 5))
    nothing = "0" * 64
    said = keyassay("lists", "find", "--json", digest, nothing)
    assert said.code == 1
    stream = {"arch": "le32", "state": "nornd", "pid": 5}
    assert json.loads(said.out) == [
        {
            "sha256": digest,
            "matches": [{"list": "debian-rsa-1024", "stream": stream, "source": None, "key_type": None}],
        },
        {"sha256": nothing, "matches": []},
    ]


@pytest.mark.parametrize("word", ["", "xyz", "0" * 63, "0" * 65, "g" * 64, "0" * 63 + "\n"])
def test_find_refuses_what_is_no_hash(keyassay, word):
    said = keyassay("lists", "find", "0" * 64, word)
    assert said.code == 2
    assert said.out == ""
    assert "no SHA-256" in said.err


def test_find_without_hashes_is_wrong_use(keyassay):
    assert keyassay("lists", "find").code == 2


def test_find_reads_hashes_from_standard_input(keyassay, monkeypatch):
    import io

    digest = modulus_hash(Stream("le64", "rnd", 1))
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{digest}\n{'0' * 64}\n"))
    said = keyassay("lists", "find", "-")
    assert said.code == 1
    assert [line[:64] for line in said.out.splitlines()] == [digest, "0" * 64]


# build


def test_build_makes_what_is_missing(keyassay, tmp_path):
    place = tmp_path / "made"
    for name in NAMES:
        (place / name.path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REAL / name.path, place / name.path)
    (place / NAMES[3].path).unlink()
    said = keyassay("lists", "build", "--key", "ec-p256", "--into", place, "--jobs", "1")
    assert said.code == 0
    assert said.out.splitlines() == [
        f"debian-ec-p256: 1 block made, 96 of 96 are there, in {place}",
        "the same keys as in the list in use",
    ]
    assert (place / NAMES[3].path).read_bytes() == (REAL / NAMES[3].path).read_bytes()
    again = keyassay("lists", "build", "--key", "ec-p256", "--into", place)
    assert again.out.startswith("debian-ec-p256: nothing to do, 96 of 96")
    shutil.copy(REAL / NAMES[4].path, place / NAMES[3].path)
    other = keyassay("lists", "build", "--key", "ec-p256", "--into", place)
    assert other.code == 1
    assert "NOT the keys of the list in use" in other.out


def test_build_in_a_checkout_has_nothing_to_do(keyassay):
    said = keyassay("lists", "build", "--key", "ec-p521")
    assert (said.code, said.err) == (0, "")
    assert "nothing to do" in said.out


def test_build_says_where_nothing_can_be_written(keyassay, tmp_path):
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "ec-p256").write_text("a file where the folder should be")
    said = keyassay("lists", "build", "--key", "ec-p256", "--into", tmp_path / "made", "--jobs", "1")
    assert said.code == 2
    assert "cannot be written" in said.err
    assert "--into" in said.err


def test_build_needs_a_kind(keyassay):
    assert keyassay("lists", "build").code == 2
    assert keyassay("lists", "build", "--key", "rsa-4711").code == 2


# verify


def test_verify_says_how_many_keys_were_made_again(keyassay):
    said = keyassay("lists", "verify", "--key", "ec-p256", "--key", "published-rfc", "--sample", "20", "--jobs", "1")
    assert said.code == 0
    assert said.out.splitlines() == [
        "debian-ec-p256: 20 keys made again, all as listed",
        f"published-rfc: {len(known.published())} keys made again, all as listed",
    ]


def test_verify_without_hints(keyassay):
    said = keyassay("lists", "verify", "--key", "rsa-1024", "--full", "3", "--jobs", "1")
    assert (said.code, said.out) == (0, "debian-rsa-1024: 3 keys made without hints, all as listed\n")


def test_verify_of_keypair(keyassay):
    said = keyassay("lists", "verify", "--key", "keypair-1024", "--sample", "20", "--jobs", "1")
    assert (said.code, said.out) == (0, "keypair-1024: 20 keys made again, all as listed\n")


def test_verify_ends_with_1_where_something_is_wrong(keyassay, tmp_path, monkeypatch):
    data = tmp_path / "data"
    for name in NAMES[:2]:
        (data / name.path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REAL / name.path, data / name.path)
    shutil.copy(REAL / NAMES[2].path, data / NAMES[1].path)
    monkeypatch.setattr(lookup, "DATA", data)
    monkeypatch.setattr(lookup, "MERGED", tmp_path / "merged")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    lookup.merged.cache_clear()
    try:
        said = keyassay("lists", "verify", "--key", "ec-p256", "--sample", "100", "--jobs", "1")
        assert said.code == 1
        assert "another block" in said.out
        missing = keyassay("lists", "verify", "--key", "rsa-2048", "--jobs", "1")
        assert (missing.code, missing.out) == (
            1,
            "debian-rsa-2048: there is no such list, nothing was verified\n",
        )
    finally:
        lookup.merged.cache_clear()


def test_verify_takes_one_way_at_a_time(keyassay):
    for more in (("--all", "--sample", "3"), ("--all", "--full", "3"), ("--full", "3", "--sample", "3")):
        said = keyassay("lists", "verify", "--key", "ec-p256", *more)
        assert said.code == 2
        assert "exclude each other" in said.err


# add


def test_added_keys_are_found_by_a_scan(keyassay, tmp_path):
    keys, fleet = tmp_path / "keys", tmp_path / "fleet"
    keys.mkdir()
    fleet.mkdir()
    curve = private_key(keys / "curve.pem", ec.derive_private_key(2**220 + 1, ec.SECP256R1()))
    (fleet / "device.pem").write_bytes(pem(certificate(spki_of(curve), "device-5")))
    before = keyassay("scan", fleet, "--check", "any-known-key")
    assert before.code == 0
    said = keyassay("lists", "add", keys, "--name", "leaked")
    assert said.code == 0
    assert said.out.splitlines() == [
        f"1 added, 0 already there: 1 keys in {known.folder() / 'leaked.known'}",
    ]
    after = keyassay("scan", fleet, "--check", "any-known-key", "--format", "jsonl")
    assert after.code == 1
    (finding,) = json.loads(after.out)["findings"]
    assert (finding["check"], finding["class"], finding["confidence"]) == ("any-known-key", "broken", "certain")
    assert finding["evidence"]["list"] == "leaked"
    assert finding["evidence"]["source"] == "curve.pem"


def test_add_reports_what_it_could_not_read(keyassay, tmp_path):
    keys = tmp_path / "keys"
    keys.mkdir()
    private_key(keys / "good.pem")
    private_key(keys / "locked.pem", password=b"secret")
    (keys / f"{HOSTILE.replace('/', '')[:40]}.pem").write_bytes(b"rubbish")
    said = keyassay("lists", "add", keys)
    assert said.code == 3
    assert "1 added" in said.out
    assert "unreadable  locked.pem[0]: an encrypted private key" in said.out
    assert "\x1b" not in said.out
    (tmp_path / "words").write_text("wrong\nsecret\n")
    again = keyassay("lists", "add", keys, "--password-file", tmp_path / "words", "--with-primes")
    assert "1 added, 1 already there: 2 keys" in again.out
    assert "4 new primes in" in again.out


def test_add_of_nothing_private_is_wrong_use(keyassay, tmp_path):
    keys = tmp_path / "keys"
    keys.mkdir()
    (keys / "device.pem").write_bytes(pem(certificate(spki_of(ec.derive_private_key(2**99, ec.SECP256R1())), "a")))
    said = keyassay("lists", "add", keys)
    assert said.code == 2
    assert "no private key was found" in said.err
    assert not list(Path(tmp_path / "home").rglob("*.known"))
    assert keyassay("lists", "add", tmp_path / "nowhere").code == 2
    assert keyassay("lists", "add", keys, "--name", "../x").code == 2

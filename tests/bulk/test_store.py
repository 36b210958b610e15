"""The store of earlier runs: partners across runs, the same items twice, damage, locks, interruption."""

from __future__ import annotations

import hashlib
import itertools
import os
import random
import stat
import struct

import gmpy2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from issuing import certificate, sound_key, spki_of
from keyassay.bulk import scan as scanning
from keyassay.bulk import store as storing
from keyassay.bulk.fleet import fleet_of
from keyassay.bulk.results import Settings
from keyassay.bulk.scan import Scan
from keyassay.bulk.store import Store
from keyassay.certificates.decoding import item_of_key
from keyassay.certificates.public_key import RsaPublicKey
from keyassay.certificates.spki import encode
from keyassay.errors import KeyassayError
from keyassay.findings import Classification, Profile

NUMBERS = itertools.count(1)
COMPARED = ("fleet-shared-prime", "fleet-repeated-key")


def primes(count, bits=512, seed=0x5EED_0F_7E57_0123_4567):
    chance = random.Random(seed)
    return [int(gmpy2.next_prime(chance.getrandbits(bits) | 3 << (bits - 2))) for _ in range(count)]


P = primes(12)


def rsa(*factors):
    modulus = 1
    for factor in factors:
        modulus *= factor
    return encode(RsaPublicKey(modulus, 65537))


@pytest.fixture
def run(tmp_path):
    """Scan certificates against the store of the test; returns findings by common name and the summary."""

    def run(*certificates, **more):
        folder = tmp_path / f"in-{next(NUMBERS)}"
        folder.mkdir()
        for number, der in enumerate(certificates):
            (folder / f"{number:03d}.der").write_bytes(der)
        chosen = Settings(**{"profile": Profile.FAST, "only": COMPARED, "against": tmp_path / "store", **more})
        scan = Scan([str(folder)], chosen)
        found = [list(result.findings) for result in scan]
        return found, scan.summary

    return run


def segments(tmp_path):
    return sorted((tmp_path / "store").glob("segment-*"))


def checks(found):
    return [[one.check for one in findings] for findings in found]


def test_a_prime_shared_with_an_earlier_run_is_found_and_named(run):
    found, summary = run(certificate(rsa(P[0], P[1]), "old", 1), certificate(rsa(P[2], P[3]), "other", 2))
    assert checks(found) == [[], []]
    assert summary.stored == 0
    found, summary = run(certificate(rsa(P[4], P[5]), "sound", 3), certificate(rsa(P[1], P[6]), "new", 4))
    assert checks(found) == [[], ["fleet-shared-prime"]]
    assert summary.stored == 2
    evidence = found[1][0].evidence
    assert evidence.factor == P[1]
    assert evidence.partner.source.endswith("000.der")
    assert evidence.describe()["partner"]["earlier_run"] is True
    assert evidence.describe()["partner"]["sha256"] is not None
    assert "of an earlier run" in found[1][0].message


def test_a_triangle_over_three_runs(run):
    run(certificate(rsa(P[0], P[1]), "a", 1))
    found, _ = run(certificate(rsa(P[1], P[2]), "b", 2))
    assert checks(found) == [["fleet-shared-prime"]]
    found, summary = run(certificate(rsa(P[2], P[0]), "c", 3))
    assert checks(found) == [["fleet-shared-prime"]]
    assert found[0][0].evidence.factor in (P[0], P[2])
    assert summary.stored == 2


def test_an_old_weak_key_that_comes_again_is_still_weak(run):
    old, new = certificate(rsa(P[0], P[1]), "a", 1), certificate(rsa(P[0], P[2]), "b", 2)
    run(old, new)
    for one in (old, new):
        found, _ = run(one)
        assert checks(found) == [["fleet-shared-prime"]]
    found, _ = run(old, new)
    assert checks(found) == [["fleet-shared-prime"]] * 2


def test_a_key_of_an_earlier_run_under_another_subject(run):
    key = spki_of(sound_key())
    run(certificate(key, "first", 1))
    found, _ = run(certificate(key, "second", 2), certificate(spki_of(sound_key(2)), "third", 3))
    assert checks(found) == [["fleet-repeated-key"], []]
    assert found[0][0].classification is Classification.WEAK
    (holder,) = found[0][0].evidence.holders
    assert holder.earlier
    assert holder.source.endswith("000.der")
    found, _ = run(certificate(key, "second", 4))
    assert found[0][0].evidence.others == 2


def test_a_renewal_between_runs_is_a_notice(run):
    key = spki_of(sound_key())
    run(certificate(key, "same", 1))
    found, _ = run(certificate(key, "same", 2))
    assert [one.classification for one in found[0]] == [Classification.NOTICE]


def with_subprime(r, size, chance):
    """A prime of the form 2ra + 1."""
    while True:
        found = 2 * r * chance.getrandbits(size - 1 - r.bit_length()) + 1
        if found.bit_length() == size and gmpy2.is_prime(found):
            return found


@pytest.mark.parametrize(("bits", "broken"), [(300, True), (120, False)])
def test_a_factor_of_n_less_1_shared_with_an_earlier_run(run, bits, broken):
    chance = random.Random(bits)
    r, other = primes(2, bits, seed=bits)
    weak = [
        certificate(rsa(with_subprime(r, 512, chance), with_subprime(r, 512, chance)), name, number)
        for number, name in enumerate(("old", "new", "newer"), 1)
    ]
    alone = certificate(rsa(with_subprime(other, 512, chance), with_subprime(other, 512, chance)), "alone", 7)
    deep = {"profile": Profile.DEEP, "only": ("fleet-shared-subprime",)}
    found, _ = run(weak[0], certificate(rsa(P[0], P[1]), "sound", 4), **deep)
    assert checks(found) == [[], []]
    found, _ = run(certificate(rsa(P[2], P[3]), "sound too", 5), weak[1], alone, **deep)
    assert checks(found) == [[], ["fleet-shared-subprime"], []]
    [finding] = found[1]
    assert finding.classification is (Classification.BROKEN if broken else Classification.NOTICE)
    assert "of an earlier run" in finding.message
    partner = finding.evidence.describe()["partner"]
    assert partner["source"].endswith("000.der")
    assert partner["sha256"] == hashlib.sha256(weak[0]).digest()
    # a single key, and one that has come before: its partners are those of the other runs
    for der in (weak[2], weak[0]):
        found, _ = run(der, **deep)
        assert checks(found) == [["fleet-shared-subprime"]]
    found, _ = run(alone, **deep)
    assert checks(found) == [[]]


def test_the_same_run_again_finds_and_adds_nothing(run, tmp_path):
    given_ = [certificate(rsa(P[0], P[1]), "a", 1), certificate(spki_of(sound_key()), "b", 2)]
    run(*given_)
    before = segments(tmp_path)
    found, summary = run(*given_, *given_)
    assert checks(found) == [[]] * 4
    assert summary.stored == 2
    assert summary.not_run == []
    assert segments(tmp_path) == before
    assert len(before) == 1


def test_what_is_kept_is_public_and_for_the_owner(run, tmp_path):
    run(certificate(rsa(P[0], P[1]), "a", 1), certificate(rsa(P[0], P[2]), "b", 2))
    (segment,) = segments(tmp_path)
    assert stat.S_IMODE((tmp_path / "store").stat().st_mode) == 0o700
    assert stat.S_IMODE(segment.stat().st_mode) == 0o600
    data = segment.read_bytes()
    for prime in P[:3]:
        for order in ("big", "little"):
            assert prime.to_bytes(64, order) not in data


@pytest.mark.parametrize("block", [1, 2, 3, 100])
def test_blocks_of_any_size_give_the_same(run, monkeypatch, block):
    monkeypatch.setattr(storing, "BLOCK", block)
    run(*(certificate(rsa(P[n], P[n + 1]), f"a{n}", n + 1) for n in range(0, 8, 2)))
    found, _ = run(certificate(rsa(P[0], P[1]), "again", 50), certificate(rsa(P[3], P[9]), "new", 51))
    assert checks(found) == [["fleet-repeated-key"], ["fleet-shared-prime"]]
    found, _ = run(certificate(rsa(P[10], P[11]), "sound", 52))
    assert checks(found) == [[]]


def damage(path, how):
    data = bytearray(path.read_bytes())
    if how == "cut":
        data = data[:-10]
    elif how == "empty":
        data = b""
    elif how == "header":
        data[8] ^= 1
    elif how == "magic":
        data[7] ^= 1
    else:
        data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("how", ["cut", "empty", "header", "magic", "body"])
def test_a_damaged_segment_is_named(run, tmp_path, how):
    run(certificate(rsa(P[0], P[1]), "a", 1))
    run(certificate(rsa(P[2], P[3]), "b", 2))
    victim = segments(tmp_path)[1]
    damage(victim, how)
    with pytest.raises(KeyassayError, match=r"segment-000002\.keys.*damaged") as caught:
        run(certificate(rsa(P[0], P[4]), "c", 3))
    assert caught.value.hint
    victim.unlink()
    found, _ = run(certificate(rsa(P[0], P[4]), "c", 3))
    assert checks(found) == [["fleet-shared-prime"]]


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_no_changed_byte_goes_unnoticed(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("store")
    store = Store(folder)
    fleet = fleet_of([item_of_key(RsaPublicKey(P[0] * P[1], 65537))])
    draft = store.draft(fleet)
    draft.take(0, fleet.item(0))
    draft.commit()
    store.close()
    (path,) = folder.glob("segment-*")
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    with pytest.raises(KeyassayError):
        Store(folder)


def test_two_runs_at_once_are_refused(tmp_path):
    first = Store(tmp_path / "store")
    with pytest.raises(KeyassayError, match="in use"):
        Store(tmp_path / "store")
    first.close()
    Store(tmp_path / "store").close()


def test_a_folder_with_other_files_is_left_alone(tmp_path):
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(KeyassayError, match="no store"):
        Store(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


def test_a_store_of_another_version_and_a_file_are_refused(tmp_path):
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / storing.MARK).write_text("keyassay store 9\n")
    with pytest.raises(KeyassayError, match="version 1"):
        Store(tmp_path / "store")
    (tmp_path / "file").write_text("")
    with pytest.raises(KeyassayError, match="cannot be used"):
        Store(tmp_path / "file")


def test_an_interrupted_run_adds_nothing(run, tmp_path, monkeypatch):
    run(certificate(rsa(P[0], P[1]), "a", 1))
    before = segments(tmp_path)
    original = scanning.assess_block

    def interrupted(raw, plan):
        block = original(raw, plan)
        monkeypatch.setattr(scanning, "assess_block", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        return block

    monkeypatch.setattr(scanning, "assess_block", interrupted)
    monkeypatch.setattr(scanning, "read", lambda *a, **k: ([raw] for raw in original_raws))
    original_raws = [
        raw
        for block in scanning.read_encodings(
            [certificate(rsa(P[n], P[n + 1]), "b", 9) for n in (2, 4)], scanning.ReadOptions()
        )
        for raw in block
    ]
    found, summary = run()
    assert summary.interrupted
    assert len(found) == 1
    assert segments(tmp_path) == before


def test_a_reader_that_leaves_early_adds_nothing(tmp_path):
    source = tmp_path / "a.der"
    source.write_bytes(certificate(rsa(P[0], P[1]), "a", 1) * 3)
    scan = Scan([str(source)], Settings(profile=Profile.FAST, against=tmp_path / "store"))
    results = iter(scan)
    next(results)
    results.close()
    assert segments(tmp_path) == []
    Store(tmp_path / "store").close()


def test_a_full_disk_loses_no_report(run, tmp_path, monkeypatch):
    def full(_file):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    found, summary = run(certificate(rsa(P[0], P[1]), "a", 1), certificate(rsa(P[0], P[2]), "b", 2))
    assert checks(found) == [["fleet-shared-prime"]] * 2
    assert [one.reason for one in summary.not_run] == ["nothing was stored: No space left on device"]
    assert segments(tmp_path) == []


def test_leftovers_of_a_killed_run_go(tmp_path):
    Store(tmp_path / "store").close()
    (tmp_path / "store" / "segment-abc.part").write_text("half")
    Store(tmp_path / "store").close()
    assert segments(tmp_path) == []


def test_sources_of_any_octets_come_back(tmp_path):
    names = ["plain.pem", "folder/\udcff\udcfe", "a.zip!\u202ex", "", "n" * 5000]
    store = Store(tmp_path / "store")
    items = []
    for number, name in enumerate(names):
        item = item_of_key(RsaPublicKey(P[number] * P[number + 1], 65537))
        item.source, item.index = name, number * 2**33
        items.append(item)
    fleet = fleet_of(items)
    draft = store.draft(fleet)
    for number, item in enumerate(items):
        draft.take(number, item)
    draft.commit()
    store.close()
    again = Store(tmp_path / "store")
    assert [(again.place(row).source, again.place(row).index) for row in range(len(names))] == [
        (name, number * 2**33) for number, name in enumerate(names)
    ]
    assert again.holder(P[3] * P[4]).index == 3 * 2**33
    with pytest.raises(KeyError):
        again.holder(P[0])
    assert (again.identities["spki"] == fleet.identities["spki"]).all()
    again.close()


def test_the_format_is_the_one_that_docs_store_describes(tmp_path, monkeypatch):
    """Read a segment with nothing but what docs/store.md says."""
    monkeypatch.setattr(storing, "BLOCK", 2)
    moduli = [P[0] * P[1], P[2] * P[3] * P[4], P[5] * P[6]]
    store = Store(tmp_path / "store")
    items = [item_of_key(RsaPublicKey(modulus, 65537)) for modulus in moduli]
    for number, item in enumerate(items):
        item.source, item.index = f"källa-{number}", 7 + number
    fleet = fleet_of(items)
    draft = store.draft(fleet)
    for number, item in enumerate(items):
        draft.take(number, item)
    draft.commit()
    store.close()
    assert (tmp_path / "store" / "keyassay-store").read_text() == "keyassay store 1\n"
    data = (tmp_path / "store" / "segment-000001.keys").read_bytes()
    magic, n_items, n_moduli, n_blocks, source_bytes, modulus_bytes, product_bytes, digest = struct.unpack(
        "<8s6Q32s", data[:88]
    )
    assert (magic, n_items, n_moduli, n_blocks) == (b"KAstore\x01", 3, 3, 2)
    assert hashlib.sha256(data[88:]).digest() == digest
    at = 88
    rows = [struct.unpack("<16s16s32sBBQQ", data[at + 82 * n : at + 82 * (n + 1)]) for n in range(3)]
    at += 82 * 3
    sources = data[at : at + source_bytes]
    at += source_bytes
    kept = [struct.unpack("<QIQ", data[at + 20 * n : at + 20 * (n + 1)]) for n in range(3)]
    at += 20 * 3
    numbers = data[at : at + modulus_bytes]
    at += modulus_bytes
    ends = struct.unpack("<2Q", data[at : at + 16])
    products = data[at + 16 : at + 16 + product_bytes]
    assert at + 16 + product_bytes == len(data)
    for number, (spki, subject, sha256, kind, has_der, end, index) in enumerate(rows):
        assert spki == items[number].spki_sha256[:16]
        assert (subject, sha256, kind, has_der, index) == (bytes(16), items[number].sha256, 2, 1, 7 + number)
        length = int.from_bytes(sources[end - 4 : end], "little")
        assert sources[end - 4 - length : end - 4].decode() == f"källa-{number}"
    start = 0
    for modulus, (short, item, end) in zip(moduli, kept, strict=True):
        octets = numbers[start:end]
        assert int.from_bytes(octets, "big") == modulus
        assert short.to_bytes(8, "little") == hashlib.sha256(octets).digest()[:8]
        assert moduli[item] == modulus
        start = end
    assert int.from_bytes(products[: ends[0]], "little") == moduli[0] * moduli[1]
    assert int.from_bytes(products[ends[0] : ends[1]], "little") == moduli[2]

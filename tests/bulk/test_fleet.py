"""The columns of a run and its spool: what goes in comes out, in memory, on disk and block by block."""

from __future__ import annotations

import hashlib
import pickle
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from issuing import certificate, sound_key, spki_of
from keyassay.bulk.fleet import RunFleet, Spool, columns_of, fleet_of
from keyassay.bulk.results import Result
from keyassay.certificates.decoding import decode, item_of_key
from keyassay.certificates.item import Kind, RawItem
from keyassay.certificates.limits import Limits
from keyassay.certificates.public_key import EcPublicKey, RsaPublicKey
from keyassay.checks import check
from keyassay.findings import EcPrivateKey, Factor, Verdict

MODULI = [(2**61 - 1) * (2**89 - 1), (2**61 - 1) * (2**107 - 1), (2**127 - 1) * (2**107 - 1)]


def items():
    """Two certificates of one key, the first again, RSA keys with a repetition, a line that is nothing."""
    key = spki_of(sound_key())
    ders = [certificate(key, "a", 1), certificate(key, "b", 2), certificate(key, "a", 1)]
    raw = [RawItem("x.pem", number, 0, "CERTIFICATE", der) for number, der in enumerate(ders)]
    raw.append(RawItem("x.pem", 3, 900, "", b"", error="nothing"))
    keys = [item_of_key(RsaPublicKey(MODULI[number], 3)) for number in (0, 1, 0, 2)]
    return [*decode(raw), *keys]


def fleet_in_blocks(size, spool=None):
    fleet = RunFleet(1 << 30, spool=spool)
    everything = items()
    for start in range(0, len(everything), size):
        block = everything[start : start + size]
        fleet.add(columns_of(block), [Result(item) for item in block])
    return fleet


@pytest.mark.parametrize("size", [1, 2, 3, 100])
@pytest.mark.parametrize("resident", [0, 4_000, 1 << 30])
def test_blocks_and_disk_change_nothing(size, resident):
    fleet = fleet_in_blocks(size, Spool(resident))
    whole = fleet_of(items())
    assert len(fleet) == len(whole) == 8
    assert (fleet.identities == whole.identities).all()
    assert list(fleet.rsa_moduli) == list(whole.rsa_moduli) == MODULI
    assert [list(rows) for rows in fleet.rsa_ordinals] == [[4, 6], [5], [7]]
    assert [list(rows) for rows in fleet.rsa_ordinals[1:]] == [[5], [7]]
    assert list(fleet.rsa_ordinals[-1]) == [7]
    assert fleet.points["P-256"][0].tolist() == whole.points["P-256"][0].tolist() == [0, 1, 2]
    assert fleet.points["P-256"][1] == whole.points["P-256"][1]
    assert {oid: rows.tolist() for oid, rows in fleet.signed_ordinals.items()} == {"1.2.840.10045.4.3.2": [0, 1, 2]}
    for order in (range(8), (7, 0, 3, 3, 5)):
        assert [item.der for item in fleet.items(order)] == [item.der for item in whole.items(order)]
    assert [fleet.item(ordinal).index for ordinal in range(4)] == [0, 1, 2, 3]
    assert fleet.item(7).key == RsaPublicKey(MODULI[2], 3)


def test_private_keys_are_learned_from_what_was_found():
    item = item_of_key(EcPublicKey("P-256", spki_of(sound_key())[-65:]))
    d = sound_key().private_numbers().private_value
    finding = check("ec-weak-private-key").finding(item.key, Verdict("found", EcPrivateKey(d)))
    rsa = item_of_key(RsaPublicKey(MODULI[0], 3))
    factor = check("rsa-close-primes").finding(rsa.key, Verdict("found", Factor(2**61 - 1)))
    fleet = RunFleet(1 << 30)
    fleet.add(columns_of([item, rsa]), [Result(item), Result(rsa, (factor,))])
    assert dict(fleet.private_keys) == {}
    before = fleet.bytes_needed
    fleet.add(columns_of([rsa, item]), [Result(rsa), Result(item, (finding,))])
    assert dict(fleet.private_keys) == {3: d}
    assert fleet.bytes_needed > before + 2 * 49 + 200
    fleet.learn(0, (finding,))
    assert dict(fleet.private_keys) == {3: d, 0: d}
    assert dict(fleet_of([rsa, item], findings={1: [finding]}).private_keys) == {1: d}


def test_private_keys_are_given_up_with_the_columns():
    item = item_of_key(EcPublicKey("P-256", spki_of(sound_key())[-65:]))
    d = sound_key().private_numbers().private_value
    finding = check("ec-weak-private-key").finding(item.key, Verdict("found", EcPrivateKey(d)))
    fleet = RunFleet(100)
    fleet.add(columns_of([item]), [Result(item, (finding,))])
    assert fleet.overflow
    assert dict(fleet.private_keys) == {}


def test_identities_tell_keys_subjects_and_encodings_apart():
    rows = fleet_of(items()).identities
    assert rows["spki"][0] == rows["spki"][1] == rows["spki"][2]
    assert rows["subject"][0] == rows["subject"][2] != rows["subject"][1]
    assert rows["der"][0] == rows["der"][2] != rows["der"][1]
    assert rows["kind"].tolist()[:4] == [*[list(Kind).index(Kind.CERTIFICATE)] * 3, list(Kind).index(Kind.UNREADABLE)]
    assert [bytes(one) for one in rows[3].tolist()[:3]] == [b"", b"", b""]
    assert rows["spki"][4] == rows["spki"][6] != rows["spki"][5]


def test_subjects_and_algorithms_are_those_of_the_decoded_fields():
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a")])
    now = datetime(2026, 1, 1, tzinfo=UTC)
    request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(sound_key(), hashes.SHA384())
    revoked = (
        x509.CertificateRevocationListBuilder().issuer_name(name).last_update(now).next_update(now + timedelta(1))
    ).sign(sound_key(), hashes.SHA256())
    found = decode([
        RawItem("a", 0, 0, "", certificate(spki_of(sound_key()), "a", 1)),
        RawItem("b", 0, 0, "", request.public_bytes(serialization.Encoding.DER)),
        RawItem("c", 0, 0, "", revoked.public_bytes(serialization.Encoding.DER)),
    ])  # fmt: skip
    assert [item.kind for item in found] == [Kind.CERTIFICATE, Kind.REQUEST, Kind.CRL]
    columns = columns_of(found)
    digest = hashlib.sha256(name.public_bytes()).digest()[:16]
    assert columns.identities["subject"].tolist() == [digest.rstrip(b"\0")] * 2 + [b""]
    assert columns.signed == {"1.2.840.10045.4.3.2": [0, 2], "1.2.840.10045.4.3.3": [1]}
    assert all(item.signed.signature_algorithm in columns.signed for item in found)


def test_columns_may_grow_after_they_were_read():
    fleet = fleet_of(items())
    before = [list(rows) for rows in fleet.rsa_ordinals]
    more = [item_of_key(RsaPublicKey(MODULI[1], 5))]
    fleet.add(columns_of(more), [Result(one) for one in more])
    assert before == [[4, 6], [5], [7]]
    assert [list(rows) for rows in fleet.rsa_ordinals] == [[4, 6], [5, 8], [7]]


def test_moduli_beyond_the_limit_and_trivial_ones_stay_out():
    keys = [item_of_key(RsaPublicKey(number, 3)) for number in (0, 1, 2, (1 << 64) - 1, 1 << 64)]
    columns = columns_of(keys, Limits(modulus_bits=64))
    assert columns.rsa == ([2, 3], [2, (1 << 64) - 1])


def test_the_spool_keeps_order_and_what_was_found():
    spool = Spool(10_000)
    blocks = [[Result(item)] for item in items() for _ in range(3)]
    for block in blocks:
        spool.append(block)
    assert len(spool) == len(blocks)
    for number in (*range(len(blocks)), 0, len(blocks) - 1, 5):
        assert [one.item.der for one in spool.block(number)] == [one.item.der for one in blocks[number]]
    spool.close()


def test_beyond_its_budget_the_spool_takes_no_memory():
    spool = Spool(0)
    item = item_of_key(EcPublicKey("P-256", bytes(65)))
    for _ in range(50):
        spool.append([Result(item)] * 20)
    assert spool._resident == []
    for number in range(50):
        spool.block(number)
    assert len(spool._recent) == 3
    spool.close()


def test_columns_that_do_not_fit_are_given_up_and_items_kept():
    fleet = RunFleet(2_000, spool=Spool(0))
    everything = items() * 20
    fleet.add(columns_of(everything[:8]), [Result(item) for item in everything[:8]])
    assert not fleet.overflow
    for start in range(8, len(everything), 8):
        block = everything[start : start + 8]
        fleet.add(columns_of(block), [Result(item) for item in block])
    assert fleet.overflow
    assert fleet.bytes_needed > 2_000
    assert len(fleet) == 160
    assert list(fleet.rsa_moduli) == []
    assert len(fleet.identities) == 0
    assert [item.der for item in fleet.items(range(160))] == [item.der for item in everything]


def test_columns_travel_between_processes():
    columns = columns_of(items())
    again = pickle.loads(pickle.dumps(columns))
    assert np.array_equal(again.identities, columns.identities)
    assert (again.rsa, again.points, again.signed) == (columns.rsa, columns.points, columns.signed)


def test_batch_gcd_beyond_the_memory_is_recorded_with_what_it_needs():
    fleet = RunFleet(1_000_000)
    everything = items()
    fleet.add(columns_of(everything), [Result(item) for item in everything])
    assert fleet.common_factors is None
    assert fleet.common_factors is None
    (note,) = fleet.notes
    assert note.check == "fleet-shared-prime"
    assert note.reason == "not run: 3 moduli, needs 0.1 GB; raise --memory"


def test_batch_gcd_is_made_once_for_all_checks():
    shares = []
    fleet = RunFleet(1 << 30, progress=lambda check, share: shares.append((check, share)))
    everything = items()
    fleet.add(columns_of(everything), [Result(item) for item in everything])
    common = fleet.common_factors
    assert common is fleet.common_factors
    assert {number: one.factor for number, one in common.shared.items()} == {0: 2**61 - 1, 1: 2**107 - 1, 2: 2**107 - 1}
    assert shares[-1] == ("fleet-shared-prime", 1.0)
    assert len([share for share in shares if share[1] == 1.0]) == 1

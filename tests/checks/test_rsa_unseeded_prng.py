"""The table of products: its entries are close to the exact ones, and every pair of outputs leads to its key."""

from __future__ import annotations

from random import Random

import gmpy2
import pytest

from keyassay.certificates.batches import RsaBatch
from keyassay.certificates.public_key import RsaPublicKey
from keyassay.checks import Context
from keyassay.checks.rsa_unseeded_prng import TOP_BITS, UnseededPrimes, _table, check
from keyassay.lists.recipes.unseeded import GENERATORS, TWEAKS, Origin


@pytest.mark.parametrize("bits", [512, 1024])
def test_entries_are_at_most_four_below_the_exact_product(bits: int) -> None:
    table = _table(bits)
    assert (table.tops[1:] >= table.tops[:-1]).all()
    for place in Random(1).sample(range(len(table.tops)), 60):
        one, two = (origin.start(bits) for origin in table.pair(place))
        exact = one * two >> (2 * bits - TOP_BITS)
        assert 0 <= exact - int(table.tops[place]) <= 4


def test_any_pair_of_any_stream_leads_to_its_key() -> None:
    random = Random(2)
    keys, origins = [], []
    for generator in random.sample(sorted(GENERATORS), 12):
        places = random.sample(range(24), 2)
        tweak = random.choice(TWEAKS[1:])
        pair = [Origin(generator, tweak, place) for place in places]
        p, q = (int(gmpy2.next_prime(origin.start(512))) for origin in pair)
        keys.append(RsaPublicKey(p * q, 65537))
        origins.append({origin.place + 1 for origin in pair})
    found = {}
    for size in {key.bits for key in keys}:
        rows = [row for row, key in enumerate(keys) if key.bits == size]
        for row, verdict in check.find(RsaBatch([keys[row] for row in rows]), Context()):
            found[rows[row]] = verdict.evidence
    assert sorted(found) == list(range(len(keys)))
    for row, evidence in found.items():
        assert isinstance(evidence, UnseededPrimes)
        assert evidence.proves(keys[row])
        assert "outputs" not in evidence.describe()
        shown = evidence.secrets()["outputs"]
        assert isinstance(shown, list)
        assert {one["output"] for one in shown if isinstance(one, dict)} == origins[row]

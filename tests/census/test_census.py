"""Ten thousand sound RSA keys of four generators and 2,500 of elliptic curves: no check may say anything of them."""

from __future__ import annotations

from collections import Counter

import gmpy2
import pytest

from census_keys import EC_KEYS, GENERATORS, OPENSSL_SIZES, SIZES, census
from keyassay.bulk.fleet import fleet_of
from keyassay.certificates.batches import group_keys
from keyassay.certificates.decoding import item_of_key
from keyassay.certificates.public_key import PublicKey
from keyassay.checks import Context, catalogue
from keyassay.findings import Profile

NOW = 1_790_000_000

MAKERS = (*GENERATORS, "openssl")


def counts(keys: list[PublicKey], profile: Profile) -> Counter[str]:
    """Findings by check, of all checks of keys that run in a profile."""
    found: Counter[str] = Counter()
    context = Context(profile=profile, now=NOW, key_count=len(keys))
    for batch, _ in group_keys(keys):
        for check in catalogue():
            if check.shape == "key" and check.runs_in(profile) and isinstance(batch.keys[0], check.metadata.applies_to):
                found.update(check.id for _ in check.find(batch, context))
    return found


def test_the_census_is_as_large_as_it_says() -> None:
    keys = census()
    moduli = {key.modulus for made in keys.rsa.values() for key in made}
    assert len(moduli) == 3 * sum(SIZES.values()) + sum(OPENSSL_SIZES.values()) >= 10_000
    for generator in GENERATORS:
        assert Counter(key.bits for key in keys.rsa[generator]) == SIZES
    assert Counter(key.bits for key in keys.rsa["openssl"]) == OPENSSL_SIZES
    assert [len(made) for made in keys.others.values()] == [EC_KEYS] * 5


@pytest.mark.parametrize("generator", GENERATORS)
def test_the_census_is_made_of_primes(generator: str) -> None:
    """Every 40th pair: prime, of the right size, the exponent invertible."""
    for p, q in census().factors[generator][::40]:
        assert p != q
        assert all(gmpy2.is_strong_prp(prime, 3) and prime % 65537 != 1 for prime in (p, q))


@pytest.mark.parametrize(
    "profile", [Profile.FAST, pytest.param(Profile.STANDARD, marks=pytest.mark.slow)], ids=lambda profile: profile.label
)
@pytest.mark.parametrize("maker", MAKERS)
def test_sound_rsa_keys_have_no_finding_but_their_size(maker: str, profile: Profile) -> None:
    keys: list[PublicKey] = list(census().rsa[maker])
    short = sum(key.bits < 2048 for key in census().rsa[maker])
    assert counts(keys, profile) == Counter({"rsa-key-size": short})


@pytest.mark.parametrize("profile", [Profile.FAST, Profile.STANDARD], ids=lambda profile: profile.label)
@pytest.mark.parametrize("curve", ["P-256", "P-384", "P-521", "secp256k1", "ed25519"])
def test_sound_curve_keys_have_no_finding(curve: str, profile: Profile) -> None:
    assert counts(census().others[curve], profile) == Counter()


def test_sound_keys_have_no_finding_beside_each_other() -> None:
    """All checks that compare keys, over the curves and all moduli of 2048 bits and more, of four makers."""
    keys = census()
    chosen: list[PublicKey] = [key for made in keys.rsa.values() for key in made if key.bits >= 2048]
    fleet = fleet_of([item_of_key(key) for key in [*chosen, *(key for made in keys.others.values() for key in made)]])
    context = Context(profile=Profile.STANDARD, now=NOW, key_count=len(fleet))
    found = {check.id: len(list(check.find(fleet, context))) for check in catalogue() if check.shape == "fleet"}
    assert len(found) >= 4
    assert set(found.values()) == {0}
    assert fleet.notes == []

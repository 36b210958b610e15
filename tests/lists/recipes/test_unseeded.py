"""The generators against originals, and the shipped places against regeneration."""

from __future__ import annotations

import random

import gmpy2
import pytest

from keyassay.lists.recipes import unseeded

#: First two outputs of 128 bits of GMP 6.3's gmp_randinit_lc_2exp_size, unseeded (1) and seeded with 0.
ORIGINALS = {
    "gmp-lc-32 seed=1": (0xFCD3C7834978D92BA57F74F19A13029C, 0xAB842185DCE6DB9BD1C1FCCCC6815BA3),
    "gmp-lc-32 seed=0": (0xC7834978D92BA57F74F19A13029C0000, 0x2185DCE6DB9BD1C1FCCCC6815BA3FCD3),
    "gmp-lc-34 seed=1": (0xC7960FCBADECF65D19A953FDE2F4051E, 0x7B0E46B4876CCE5A9B6EE5531FE1BC6),
    "gmp-lc-34 seed=0": (0x1F975BD9ECBA3352A7FBC5E80A3C0000, 0xC8D690ED99CB536DDCAA63FC378C618F),
    "gmp-lc-36 seed=1": (0x316796999ACA2C16C18460C7A0AC0A3D, 0x7AFD3ADFF7BA8AAD4034A9F1B750DF16),
    "gmp-lc-36 seed=0": (0x5A666B28B05B0611831E82B028F40000, 0xEB7FDEEA2AB500D2A7C6DD437C5853DC),
    "gmp-lc-38 seed=1": (0x258B1482C1B60F6C15C15BAB8918147B, 0x68D0307F1EB4B5B6D2346F627332B5DD),
    "gmp-lc-38 seed=0": (0xA4160DB07B60AE0ADD5C48C0A3D80000, 0x83F8F5A5ADB691A37B139995AEEFC962),
    "gmp-lc-40 seed=1": (0xB3F2C8D9F85FD7DC18DE6275FA3028F5, 0x7A160300B125ACB5D2007EFF9F5BC3FD),
    "gmp-lc-40 seed=0": (0x8D9F85FD7DC18DE6275FA3028F500000, 0x300B125ACB5D2007EFF9F5BC3FD887B3),
    "gmp-lc-56 seed=1": (0x40A983B3FA27A3F80D516C6DDAA7D735, 0xC44F6C233620D2562034A3C1EB45B020),
    "gmp-lc-56 seed=0": (0x3FA27A3F80D516C6DDAA7D7350000000, 0x33620D2562034A3C1EB45B02092140A9),
    "gmp-lc-64 seed=1": (0x881CA077518C809013AE8EC6BAECD515, 0xA122CB1A323A76367EE78D71870B7134),
    "gmp-lc-64 seed=0": (0x518C809013AE8EC6BAECD51500000000, 0x323A76367EE78D71870B7134881CA077),
    "gmp-lc-100 seed=1": (0x95FE726DA0D75BBE0ECA49E1FAF4CCA, 0xE5209D47A2DAC5F2F7742719B6A3DFF6),
    "gmp-lc-100 seed=0": (0xD6EF83B292787EBD3328000000000000, 0x17CBDDD09C66DA8F7FD860BA9095FE72),
    "gmp-lc-128 seed=1": (0xBBA9E9DC1B26307648A74F367FA7B5C8, 0x11416581728B3E359E0AC84E7678E0FB),
    "gmp-lc-128 seed=0": (0x48A74F367FA7B5C80000000000000000, 0x9E0AC84E7678E0FBBBA9E9DC1B263076),
    "gmp-lc-156 seed=1": (0x45C075C27B841E29FF77710D846D49F0, 0x8E350C74F1A07F1231FFA81A208B6AF4),
    "gmp-lc-156 seed=0": (0xDC43611B527C00000000000000000000, 0xEA068822DABD3CF7B1411701D709EE10),
    "gmp-lc-196 seed=1": (0x74A766B8106E8B8413B8D319ACD48339, 0x52BBA0DC8E17748741B255E19E00776D),
    "gmp-lc-196 seed=0": (0xB3520CE4000000000000000000000000, 0x7801DDB7719D6DCA1522CB629D29D9AE),
    "gmp-lc-200 seed=1": (0x96468A94E5A24C38B981EAFE84CD9D0B, 0x9A82E239987BED4745DA2FBA37DABA1C),
    "gmp-lc-200 seed=0": (0x4CD9D0B0000000000000000000000000, 0x7DABA1C4B1F0AADC6E067711D96468A9),
    "gmp-lc-256 seed=1": (0xAF66BA932AAF58A071FD8F0742A99A0C, 0x73CFA3C664C9C1753507CA60EC6B8425),
    "gmp-lc-256 seed=0": (0x0, 0xAF66BA932AAF58A071FD8F0742A99A0C),
}


@pytest.mark.parametrize("seed", [0, 1, 42])
def test_python_is_python(seed: int) -> None:
    state = random.Random(seed)
    assert unseeded.first_outputs(f"python seed={seed}", 1024, 3) == tuple(state.getrandbits(1024) for _ in range(3))


def test_java_is_java() -> None:
    """The first nextInt of Random(0) is -1155484576, the second -723955400 (Java's documentation of the algorithm)."""
    (first,) = unseeded.first_outputs("java seed=0", 64, 1)
    one, two = (-1155484576) % 2**32, (-723955400) % 2**32
    assert first.to_bytes(8, "big") == one.to_bytes(4, "little") + two.to_bytes(4, "little")


def test_mersenne_twister_default_is_the_published_seed() -> None:
    """GMP's default state is seed 5489; gmpy2's ``random_state()`` is seed 0."""
    assert unseeded.first_outputs("gmp-mt seed=0", 256, 1)[0] == gmpy2.mpz_urandomb(gmpy2.random_state(), 256)


@pytest.mark.parametrize("name", sorted(ORIGINALS))
def test_congruential_generators_are_those_of_gmp(name: str) -> None:
    assert unseeded.first_outputs(name, 128, 2) == ORIGINALS[name]


@pytest.mark.parametrize("generator", unseeded.SEARCHED)
def test_shipped_places_are_regenerated(generator: str) -> None:
    listed = [(origin, top) for origin, top in unseeded.listed_places(512) if origin.generator == generator]
    for tweak in unseeded.TWEAKS:
        found = unseeded.prime_places(generator, 512, tweak, 3)
        expected = [(origin.place, top) for origin, top in listed if origin.tweak == tweak]
        assert [(place, prime >> 416) for place, prime in found] == expected


def test_every_listed_start_is_close_to_its_prime() -> None:
    for bits in unseeded.PRIME_BITS:
        listed = unseeded.listed_places(bits)
        assert len(listed) == 3 * len(unseeded.TWEAKS) * len(unseeded.SEARCHED)
        for origin, top in listed[:: len(listed) // 6]:
            start = origin.start(bits)
            assert start >> (bits - 96) == top
            assert gmpy2.is_prime(start | 1)

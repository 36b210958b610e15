"""Makes the vectors of rsa-unseeded-prng in which one prime is above an output; the same every time.

Run from the root of a checkout: .venv/bin/python tests/vectors/make/unseeded.py
They are written behind the line that names this file. Outputs are drawn here, by other code than the check's: Python's by
Python, the Mersenne Twister of GMP by GMP, the others from their definitions.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random

import gmpy2

FILE = Path(__file__).parent.parent / "checks" / "rsa-unseeded-prng.toml"
MARK = "# one prime from a stream, by tests/vectors/make/unseeded.py\n"
DEEP = 'profile = "deep"\nclassification = "broken"\nconfidence = "proven"\n'
DRAWN = Random("one prime of two")
REACH = 1 << 16

#: randlc2s.c of GMP 6.3: multiplier of the scheme of 128 bits
LC_128 = 0x48A74F367FA7B5C8ACBB36901308FA85


def python(seed: int, bits: int) -> Iterator[int]:
    state = Random(seed)
    while True:
        yield state.getrandbits(bits)


def gmp_mt(seed: int, bits: int) -> Iterator[int]:
    state = gmpy2.random_state(seed)
    while True:
        yield int(gmpy2.mpz_urandomb(state, bits))


def gmp_lc_128(seed: int, bits: int) -> Iterator[int]:
    """The upper 64 bits of each state, the first lowest."""
    while True:
        limbs = []
        while 64 * len(limbs) < bits:
            seed = (LC_128 * seed + 1) % 2**128
            limbs.append((seed >> 64).to_bytes(8, "little"))
        yield int.from_bytes(b"".join(limbs), "little") % 2**bits


def java(seed: int, bits: int) -> Iterator[int]:
    """``new BigInteger(bits, new Random(seed))``: nextBytes, read with the highest byte first."""
    seed ^= 0x5DEECE66D
    while True:
        octets = b""
        while 8 * len(octets) < bits:
            seed = (0x5DEECE66D * seed + 0xB) % 2**48
            octets += (seed >> 16).to_bytes(4, "little")
        yield int.from_bytes(octets, "big")


STREAMS = {"python": python, "gmp-mt": gmp_mt, "gmp-lc-128": gmp_lc_128, "java": java}


def start(name: str, seed: int, place: int, bits: int, tweak: str) -> int:
    """Output ``place`` (from 1) of a stream, its highest bits set as the tweak says."""
    stream = STREAMS[name](seed, bits)
    output = [next(stream) for _ in range(place)][-1]
    return output | {"plain": 0, "top": 1, "top2": 3}[tweak] << (bits - (2 if tweak == "top2" else 1))


def prime(bits: int) -> int:
    """A random prime with its two top bits set."""
    return int(gmpy2.next_prime(DRAWN.getrandbits(bits) | 3 << (bits - 2)))


def case(name: str, verdict: str, p: int, q: int) -> str:
    return (
        f'[[case]]\nname = "{name}"\nverdict = "{verdict}"\n{DEEP if verdict == "weak" else ""}'
        f'key = {{ type = "rsa", modulus = "{p * q:x}", exponent = 65537 }}\n'
        f'private = {{ p = "{p:x}", q = "{q:x}" }}\n'
    )


def above(verdict: str, name: str, seed: int, place: int, bits: int, tweak: str, which: str = "next") -> str:
    """A prime above an output (the next, the last within 2^16, the first beyond), and a random one."""
    begin = start(name, seed, place, bits, tweak)
    if which == "last":
        p = int(gmpy2.prev_prime(begin + REACH))
    else:
        p = int(gmpy2.next_prime(begin - 1 + (REACH if which == "first far" else 0)))
    words = {"next": "the next prime", "last": "the last prime within 2^16", "first far": "the first prime beyond 2^16"}
    what = f"{name} seed={seed}, output {place} of {bits} bits, {tweak}, {words[which]}, and a random one"
    return case(what, verdict, p, prime(bits))


def cases() -> list[str]:
    made = [
        above("weak", "python", 0, 1, 512, "top2"),
        above("weak", "python", 42, 24, 1024, "top"),
        above("weak", "python", 1, 7, 1536, "top2"),
        above("weak", "java", 1, 3, 512, "top2"),
        above("weak", "java", 42, 2, 1024, "top", "last"),
        above("weak", "gmp-mt", 5489, 2, 1024, "top2"),
        above("weak", "gmp-mt", 0, 1, 2048, "top"),
        above("weak", "gmp-mt", 1, 5, 512, "plain", "last"),
        above("weak", "gmp-lc-128", 1, 24, 512, "top2"),
        above("weak", "gmp-lc-128", 0, 3, 1024, "top2"),
    ]
    two = [int(gmpy2.next_prime(start(name, 0, 1, 512, "top2"))) for name in ("python", "java")]
    made.append(case("two streams: python and java, seed=0, output 1 of 512 bits, top2, next primes", "weak", *two))
    made += [
        above("near-miss", "python", 0, 1, 512, "top2", "first far"),
        above("near-miss", "gmp-mt", 5489, 25, 1024, "top2"),
        above("near-miss", "java", 2, 1, 1024, "top2"),
        above("near-miss", "gmp-lc-128", 1, 1, 768, "top2"),
    ]
    return made


if __name__ == "__main__":
    text = FILE.read_text().partition(MARK)[0].rstrip("\n")
    FILE.write_text(f"{text}\n\n{MARK}\n" + "\n".join(cases()))

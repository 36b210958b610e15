"""Makes the vectors about known parts of primes and moduli, and about shared factors of N - 1; the same every time.

Run from the root of a checkout: .venv/bin/python tests/vectors/make/known_parts.py
Those of rsa-patterned-primes are written behind the line that names this file, the others as whole files.
"""

from __future__ import annotations

from pathlib import Path
from random import Random

import gmpy2

from keyassay.keymath import arrays, bits

FOLDER = Path(__file__).parent.parent / "checks"
RANDOM = Random(31_811)
MARK = "# by tests/vectors/make/known_parts.py\n"


def prime(size: int, low: int = 0, low_bits: int = 1) -> int:
    """A random prime with its two top bits set and its low bits given."""
    while True:
        found = RANDOM.getrandbits(size) >> low_bits << low_bits | 3 << (size - 2) | (low or 1)
        if gmpy2.is_prime(found):
            return found


def beginning(top: int, size: int) -> int:
    """A random prime that begins with these bits."""
    free = size - top.bit_length()
    while True:
        found = top << free | RANDOM.getrandbits(free) | 1
        if gmpy2.is_prime(found):
            return found


def case(name: str, verdict: str, key: str, private: tuple[int, int] | None = None, **more: object) -> str:
    lines = ["[[case]]", f'name = "{name}"', f'verdict = "{verdict}"']
    weak = more.pop("weak", None)
    lines += [f'{field} = "{value}"' for field, value in more.items()]
    if weak is not None:
        lines.append(f"weak = {weak}")
    lines.append(key)
    if private:
        lines.append(f'private = {{ p = "{private[0]:x}", q = "{private[1]:x}" }}')
    return "\n".join(lines) + "\n"


def rsa(n: int) -> str:
    return f'{{ type = "rsa", modulus = "{n:x}", exponent = 65537 }}'


def fleet(*moduli: int) -> str:
    return "items = [\n" + "".join(f"  {{ key = {rsa(n)} }},\n" for n in moduli) + "]"


def pair(name: str, verdict: str, p: int, q: int, **more: object) -> str:
    return case(name, verdict, f"key = {rsa(p * q)}", (p, q), **more)


def repeated(word: int, period: int, size: int) -> int:
    times = -(-size // period)
    return int(format(word, f"0{period}b") * times, 2) >> (period * times - size)


def sparse(size: int, ones: int) -> int:
    while True:
        found = 1 << (size - 1) | 1 | sum(1 << place for place in RANDOM.sample(range(1, size - 1), ones - 2))
        if gmpy2.is_prime(found):
            return found


def light_above(drawn: Random, size: int, free: int, ones: int) -> int:
    """A prime with so many ones above its low bits, which are random."""
    while True:
        places = drawn.sample(range(free, size - 1), ones - 1)
        found = 1 << (size - 1) | sum(1 << place for place in places) | drawn.getrandbits(free) | 1
        if gmpy2.is_prime(found):
            return found


def not_light(size: int, ones: int, states: int, too_few: int) -> tuple[int, int]:
    """Sparse primes whose product does not look so, and which fall to so many states but not to fewer."""
    while True:
        p, q = sparse(size, ones), sparse(size, ones)
        n = p * q
        matrix = arrays.byte_matrix([n], (n.bit_length() + 63) // 64 * 8)
        if bits.lightness(matrix, n.bit_length()).max() > 5.4 or bits.sparse_factor(n, states) is None:
            continue
        if not too_few or bits.sparse_factor(n, too_few) is None:
            return p, q


def patterned_primes() -> None:
    deep = {"profile": "deep", "classification": "broken", "confidence": "proven"}
    cases = []
    for word, period, size, set_bits, free in (
        (0xB7, 8, 512, 0, 200),
        (0b10110, 5, 1024, 0, 405),
        (0x37, 8, 512, 2, 200),
        (0x5A, 8, 1024, 1, 400),
        (0x8123, 16, 512, 0, 200),
    ):
        top = (repeated(word, period, size) | ((1 << set_bits) - 1) << (size - set_bits)) >> free
        under = f" under {set_bits} set bits" if set_bits else ""
        name = f"a word of {period} bits repeated{under} over {free} free bits of {size}"
        cases.append(pair(name, "weak", beginning(top, size), prime(size), **deep))
    cases.append(
        pair("32 ones of 512 bits that the modulus does not show", "weak", *not_light(512, 32, 100, 0), **deep)
    )
    cases.append(pair("36 ones of 512 bits, for a wide beam", "weak", *not_light(512, 36, 2_000, 100), **deep))
    top = repeated(0xB7, 8, 512) >> 220
    cases.append(
        pair(
            "a word of 8 bits repeated over 220 free bits of 512: too many",
            "near-miss",
            beginning(top, 512),
            prime(512),
        )
    )
    drawn = Random(768)  # the other files draw from RANDOM after this one
    pairs = [[light_above(drawn, 512, 128, ones) for _ in "pq"] for ones in (24, 120)]
    cases.append(pair("24 ones of 384 bits over 128 random ones", "weak", *pairs[0], **deep))
    cases.append(pair("120 ones of 384 bits over 128 random ones: too many", "near-miss", *pairs[1]))
    path = FOLDER / "rsa-patterned-primes.toml"
    kept = path.read_text().split(MARK)[0].rstrip("\n") + "\n\n"
    path.write_text(kept + MARK + "\n" + "\n".join(cases))


def common(r: int, size: int) -> int:
    """A prime 2ra + 1."""
    while True:
        a = RANDOM.getrandbits(size - 1 - r.bit_length()) | 3 << (size - 3 - r.bit_length())
        found = 2 * r * a + 1
        if found.bit_length() == size and gmpy2.is_prime(found):
            return found


def shared_subprime() -> None:
    broken = {"profile": "deep", "classification": "broken", "confidence": "proven"}
    notice = {"profile": "deep", "classification": "notice", "confidence": "likely"}
    others = [prime(512) * prime(512) for _ in range(3)]

    def keys(bits_of_r: int, count: int, size: int = 512) -> list[tuple[int, int]]:
        r = prime(bits_of_r)
        return [(common(r, size), common(r, size)) for _ in range(count)]

    def products(pairs: list[tuple[int, int]]) -> list[int]:
        return [p * q for p, q in pairs]

    cases = []
    for size_of_r, count in ((300, 2), (258, 3), (254, 2)):
        pairs = keys(size_of_r, count)
        moduli = [products(pairs)[0], *others, *products(pairs)[1:]]
        weak = [0, *range(len(others) + 1, len(moduli))]
        name = f"{count} keys with p = 2ra + 1, r of {size_of_r} bits"
        cases.append(case(name, "weak", fleet(*moduli), pairs[0], weak=weak, **broken))
    pairs = keys(520, 2, 1024)
    cases.append(case("2048 bits, r of 520", "weak", fleet(*products(pairs)), pairs[0], **broken))
    cases += [
        case(f"r of {size_of_r} bits: no factor", "weak", fleet(*products(keys(size_of_r, 2))), **notice)
        for size_of_r in (68, 120, 220)
    ]
    one, two = products(keys(100, 2)), products(keys(100, 3))
    cases.append(case("two groups", "weak", fleet(*one, *others, *two), weak=[0, 1, 5, 6, 7], **notice))
    cases.append(case("r of 60 bits: too short", "near-miss", fleet(*products(keys(60, 2)))))
    odd = int(gmpy2.primorial(299)) // 2
    cases.append(
        case(
            "N - 1 share all odd primes below 300",
            "near-miss",
            fleet(*(common(odd, 600) * common(odd, 600) for _ in "ab")),
        )
    )
    alone = keys(300, 1)
    cases.append(case("p - 1 and q - 1 of one key alone", "near-miss", fleet(*products(alone), *others)))
    same = products(keys(300, 1))[0]
    cases.append(case("the same key twice", "near-miss", fleet(same, same)))
    half = prime(300)
    cases.append(case("r in p - 1 alone", "near-miss", fleet(*(common(half, 512) * prime(512) for _ in range(3)))))
    cases.append(case("keys of their own", "healthy", fleet(*others)))
    text = 'provenance = "Primes 2ra + 1 with one r, by tests/vectors/make/known_parts.py"\n\n'
    (FOLDER / "fleet-shared-subprime.toml").write_text(text + "\n".join(cases))


def chosen(top: int, size: int) -> int:
    """A modulus that begins with these bits, of two random primes."""
    while True:
        p = prime(size // 2)
        free = size - top.bit_length()
        q = int(gmpy2.next_prime((top << free | RANDOM.getrandbits(free)) // p))
        if p * q >> free == top and q.bit_length() == size // 2:
            return p * q


def common_prefix() -> None:
    notice = {"profile": "standard", "classification": "notice", "confidence": "likely"}
    others = [prime(512) * prime(512) for _ in range(3)]

    def siblings(size: int, same: int, count: int) -> list[int]:
        tops = [RANDOM.getrandbits(same) | 3 << (same - 2) for _ in "pq"]
        return [beginning(tops[0], size) * beginning(tops[1], size) for _ in range(count)]

    def tails(size: int, same: int, count: int) -> list[int]:
        lows = [RANDOM.getrandbits(same) | 1 for _ in "pq"]
        return [prime(size, lows[0], same) * prime(size, lows[1], same) for _ in range(count)]

    one, two = siblings(512, 180, 3), siblings(512, 90, 2)
    ends = tails(512, 100, 2)
    top = RANDOM.getrandbits(200) | 9 << 196
    short = RANDOM.getrandbits(44) | 9 << 40
    single = RANDOM.getrandbits(256) | 3 << 254
    cases = [
        case("primes begin alike, 180 bits", "weak", fleet(one[0], *others, *one[1:]), weak=[0, 4, 5], **notice),
        case("primes begin alike, 90 bits", "weak", fleet(*two), **notice),
        case("two groups", "weak", fleet(*one, *two), **notice),
        case("2048 bits", "weak", fleet(*siblings(1024, 256, 2)), **notice),
        case("primes end alike, 100 bits", "weak", fleet(*others, *ends), weak=[3, 4], **notice),
        case(
            "sizes of 1024 and 1536 bits, equal ends",
            "weak",
            fleet(ends[0], prime(768, 1, 100) * prime(768, ends[0] % 2**100, 100)),
            **notice,
        ),
        case("a chosen beginning: sound primes", "weak", fleet(*(chosen(top, 1024) for _ in "ab")), **notice),
        case("one of the two keys twice", "weak", fleet(two[0], two[1], two[0]), **notice),
        case("one bit damaged", "weak", fleet(others[0], others[0] ^ 1 << 300), **notice),
        case("44 chosen bits: too few", "near-miss", fleet(*(chosen(short, 1024) for _ in "ab"))),
        case(
            "one prime of each begins alike", "near-miss", fleet(*(beginning(single, 512) * prime(512) for _ in "ab"))
        ),
        case("the same modulus twice", "near-miss", fleet(others[0], others[0])),
        case("the same beginning in 1024 and 1032 bits", "near-miss", fleet(chosen(top, 1024), chosen(top, 1032))),
        case("a single key", "healthy", fleet(others[0])),
        case("keys of their own", "healthy", fleet(*others)),
    ]
    text = 'provenance = "Primes and moduli with given ends, by tests/vectors/make/known_parts.py"\n\n'
    (FOLDER / "fleet-common-prefix.toml").write_text(text + "\n".join(cases))


if __name__ == "__main__":
    patterned_primes()
    shared_subprime()
    common_prefix()

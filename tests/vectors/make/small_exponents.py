"""Keys whose private exponent is small but beyond continued fractions, or small modulo p - 1; used by ``rsa.py``."""

from __future__ import annotations

from random import Random

import gmpy2

RANDOM = Random(1999)


def prime(bits: int) -> int:
    """A random prime with its two top bits set."""
    return int(gmpy2.next_prime(RANDOM.getrandbits(bits) | 3 << (bits - 2)))


def odd(bits: int) -> int:
    """A random odd number of just so many bits."""
    return RANDOM.getrandbits(bits) | 1 | 1 << (bits - 1)


def case(name: str, verdict: str, p: int, q: int, e: int, **private: int) -> str:
    """A case; ``private`` is d, or d modulo p - 1."""
    weak = ['profile = "deep"', 'classification = "broken"', 'confidence = "proven"'] if verdict == "weak" else []
    numbers = ", ".join(f'{name} = "{value:x}"' for name, value in {"p": p, "q": q, **private}.items())
    return "\n".join(
        [
            "[[case]]",
            f'name = "{name}"',
            f'verdict = "{verdict}"',
            *weak,
            f'key = {{ type = "rsa", modulus = "{p * q:x}", exponent = "{e:x}" }}',
            f"private = {{ {numbers} }}",
            "",
        ]
    )


def from_exponent(name: str, verdict: str, bits: int, d_bits: int, sign: int = 1, larger: int = 0) -> str:
    """E is the inverse of d modulo phi; ``larger``: p has more bits than q, by twice that."""
    while True:
        p, q, d = prime(bits // 2 + larger), prime(bits // 2 - larger), sign * odd(d_bits)
        phi = (p - 1) * (q - 1)
        if (p * q).bit_length() == bits and gmpy2.gcd(d, phi) == 1:
            return case(name, verdict, p, q, int(gmpy2.invert(d, phi)), d=d)


def from_least_multiple(name: str, verdict: str, bits: int, d_bits: int) -> str:
    """E is the inverse of d modulo lcm(p - 1, q - 1) and e d = 1 + k lcm with an odd k: no small d modulo phi."""
    while True:
        p, q, d = prime(bits // 2), prime(bits // 2), odd(d_bits)
        if gmpy2.gcd(p - 1, q - 1) != 2:
            continue
        order = (p - 1) * (q - 1) // 2
        if (p * q).bit_length() != bits or gmpy2.gcd(d, order) != 1:
            continue
        e = int(gmpy2.invert(d, order))
        if (e * d - 1) // order % 2:
            return case(name, verdict, p, q, e, d=d)


def shorter_public(name: str, verdict: str, bits: int, e_bits: int, d_bits: int) -> str:
    """E and d of given lengths, together longer than N: q is sought where d divides 1 + k phi for random d, p, k."""
    k_bits = e_bits + d_bits - bits
    while True:
        d, p, k = prime(d_bits), prime(bits // 2), odd(k_bits)
        if (p - 1) % d == 0 or k % d == 0:
            continue
        start = 3 << (bits // 2 - 2)
        q = start - start % d + 1 - int(gmpy2.invert(k * (p - 1), d)) + d
        while not gmpy2.is_prime(q):
            q += d
        e = (1 + k * (p - 1) * (q - 1)) // d
        if (p * q).bit_length() == bits and e.bit_length() == e_bits:
            return case(name, verdict, p, q, e, d=d)


def from_residue(name: str, verdict: str, bits: int, d_bits: int) -> str:
    """D modulo p - 1 has so many bits, and full length modulo q - 1."""
    while True:
        p, q = prime(bits // 2), prime(bits // 2)
        small, full = odd(d_bits), odd(bits // 2 - 2)
        shared = int(gmpy2.gcd(p - 1, q - 1))
        if (p * q).bit_length() != bits or (small - full) % shared:
            continue
        if gmpy2.gcd(small, p - 1) != 1 or gmpy2.gcd(full, q - 1) != 1:
            continue
        order = (q - 1) // shared
        d = small + (p - 1) * int((full - small) // shared * gmpy2.invert((p - 1) // shared, order) % order)
        return case(name, verdict, p, q, int(gmpy2.invert(d, (p - 1) * (q - 1) // shared)), dp=small)


def cases() -> list[str]:
    """All of them, the same every time."""
    return [
        from_exponent("1024 bits, d of 277: dimension 18", "weak", 1024, 277),
        from_exponent("2048 bits, d of 553: dimension 18", "weak", 2048, 553),
        from_exponent("1024 bits, d = phi less 276 bits: dimension 18", "weak", 1024, 276, sign=-1),
        from_least_multiple("1024 bits, d of 276 modulo the least common multiple alone", "weak", 1024, 276),
        shorter_public("1024 bits, e of 973, d of 293: dimension 18", "weak", 1024, 973, 293),
        from_exponent("1024 bits, d of 280: dimension 27", "weak", 1024, 280),
        from_exponent("1024 bits, d of 283: dimension 38", "weak", 1024, 283),
        from_exponent("1024 bits, d of 285: dimension 50", "weak", 1024, 285),
        from_residue("2048 bits, d of 24 modulo p - 1", "weak", 2048, 24),
        from_residue("1024 bits, d of 28 modulo p - 1", "weak", 1024, 28),
        from_exponent("1024 bits, d of 292: beyond dimension 71", "near-miss", 1024, 292),
        from_exponent("1024 bits, d of 268, primes of 640 and 384 bits", "near-miss", 1024, 268, larger=128),
        from_residue("1024 bits, d of 34 modulo p - 1", "near-miss", 1024, 34),
        from_exponent("2048 bits, d of 2040, large e", "healthy", 2048, 2040),
    ]

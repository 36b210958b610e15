"""Keys as RSALib makes them, of any size, from a seed."""

import random

import gmpy2

from keyassay.keymath import residues


def roca_key(seed, bits, count=0):
    """p, q, and the exponents a of p and q: p = k M + (65537^a mod M), M the product of the first ``count`` primes."""
    chance = random.Random(seed)
    modulus = residues.primorial(count or residues.prime_count(bits))
    least = int(gmpy2.isqrt(1 << (bits - 1))) + 1
    most = 1 << bits // 2
    found = []
    while len(found) < 2:
        a = chance.randrange(modulus)
        k = chance.randrange(least // modulus, most // modulus + 1)
        p = k * modulus + pow(65537, a, modulus)
        if least <= p < most and gmpy2.is_prime(p):
            found.append((p, a))
    (p, a), (q, b) = found
    return p, q, a, b


def root_of(search, exponents):
    """The number of the root where the search will find the factor: the first of those that the exponents have."""
    places = [(a - search.first) % search.plan.root_order for a in exponents]
    return min(place for place in places if place < search.roots)

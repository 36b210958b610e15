"""CPU seconds of the attacks of profile deep, on keys made for the purpose, by size of the modulus.

    python3 dev.py bench deep [--only WORD] [--sizes 1024,2048,4096] [--json FILE]

Each attack is a function of a size that yields (row, seconds, note) and checks what it found: times of attacks that
find nothing would say nothing. Attacks on sound keys are timed to their end.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from random import Random

import gmpy2

from keyassay.bulk.deep import examine_deeply
from keyassay.bulk.results import DEFAULT_BUDGET
from keyassay.certificates.public_key import EcPublicKey, RsaPublicKey
from keyassay.checks import Context, catalogue, check
from keyassay.checks.rsa_small_factor import CURVES
from keyassay.checks.rsa_small_private_exponent import LATTICES
from keyassay.findings import Profile
from keyassay.keymath import coppersmith, ecm, factoring, hidden_number, residues, roca, smooth
from keyassay.keymath import small_exponent as small
from keyassay.keymath.curves import multiply, named_curves
from keyassay.keymath.subprimes import shared_subprimes
from keyassay.lists.recipes.unseeded import GENERATORS, Origin

Row = tuple[str, float, str]
#: attacks by name; each gets the size of the modulus in bits
ATTACKS: dict[str, Callable[[int], Iterator[Row]]] = {}

#: no seed that rsa-unseeded-prng tries
RANDOM = Random("deep")


def attack(function: Callable[[int], Iterator[Row]]) -> Callable[[int], Iterator[Row]]:
    """Decorator: an attack of this benchmark."""
    ATTACKS[function.__name__.replace("_", "-")] = function
    return function


def prime(size: int) -> int:
    """A random prime with its two top bits set."""
    return int(gmpy2.next_prime(RANDOM.getrandbits(size) | 3 << (size - 2)))


def seconds(function: Callable[[], object], least: float = 0.2) -> float:
    """CPU time of a call: repeated for a while, the mean."""
    repeats, started = 0, time.process_time()
    while (spent := time.process_time() - started) < least:
        function()
        repeats += 1
    return spent / repeats


@attack
def known_part(size: int) -> Iterator[Row]:
    """A factor of which the leading or the trailing bits are known, by shape of the lattice."""
    p, q = prime(size // 2), prime(size // 2)
    n = p * q
    for shape in ((1, 2), (2, 3), (4, 4), (6, 6), (10, 10)):
        unknown = coppersmith.reach(size, shape)
        start = p >> unknown << unknown
        assert coppersmith.factor_near(n, start, unknown, shape) in (p, q)
        spent = seconds(
            lambda start=start, unknown=unknown, shape=shape: coppersmith.factor_near(n, start, unknown, shape)
        )
        yield f"leading bits, lattice {shape}", spent, f"{unknown} bits unknown"
    unknown = coppersmith.reach(size)
    known = size // 2 - unknown
    low = p % (1 << known)
    assert coppersmith.factor_ending(n, low, known, unknown) in (p, q)
    yield (
        "trailing bits, lattice (2, 3)",
        seconds(lambda: coppersmith.factor_ending(n, low, known, unknown)),
        f"{unknown} bits unknown",
    )


@attack
def patterns(size: int) -> Iterator[Row]:
    """The deep steps of rsa-patterned-primes and rsa-shared-bits on a sound key."""
    key = RsaPublicKey(prime(size // 2) * prime(size // 2), 65537)
    primes = [prime(size // 2) for _ in range(60)]
    checks = [check("rsa-shared-bits"), check("rsa-patterned-primes")]
    findings, reports = examine_deeply(
        key, checks, Context(profile=Profile.DEEP), 60.0 if size < 4096 else 100.0, primes
    )
    assert not findings
    for report in reports:
        yield report.step, report.seconds, f"{report.outcome.value}, {report.detail}"


@attack
def shared_subprime(size: int) -> Iterator[Row]:
    """Batch GCD over N - 1 of odd random numbers, a thing that does not depend on their factors."""
    for count in (5_000, 20_000):
        if count * size > 50_000_000:
            continue
        moduli = list(dict.fromkeys(RANDOM.getrandbits(size) | 1 << (size - 1) | 1 for _ in range(count)))
        started = time.process_time()
        assert not shared_subprimes(moduli, 80)
        yield f"{count:,} moduli", time.process_time() - started, ""


@attack
def roca_class(size: int) -> Iterator[Row]:
    """A class of `prove --attack`, and all of them, on a ROCA key that is not found on the way."""
    count = residues.prime_count(size)
    modulus = residues.primorial(count)

    def weak() -> int:
        while True:
            k = prime(size // 2) // modulus
            p = k * modulus + pow(residues.GENERATOR, RANDOM.getrandbits(64), modulus)
            if gmpy2.is_prime(p):
                return p

    search = roca.Search(weak() * weak())
    roots = max(1, 100_000 // search.plan.leaves_per_root)
    spent = seconds(lambda: search.run(RANDOM.randrange(search.roots - roots), roots), 2.0) / roots
    note = f"M' of {search.plan.modulus.bit_length()} bits, {search.plan.order:,} powers"
    a_class = spent / search.plan.leaves_per_root
    yield "one class", a_class, f"{a_class * 1e9:.0f} ns, {note}"
    yield "all classes", spent * search.roots, f"{spent * search.roots / 3_600:.3g} CPU hours"


@attack
def smooth_neighbour(size: int) -> Iterator[Row]:
    """p - 1 and p + 1 on a sound key, to their ends; stage 2 beside the textbook's, one power a prime."""
    n = prime(size // 2) * prime(size // 2)
    search = smooth.PowerSearch(n)
    for bits, width in ((16, 2_310), (20, 30_030)):
        started = time.process_time()
        assert search.stage_one(1 << bits, quiet) is None
        middle = time.process_time()
        assert search.stage_two(width, quiet) is None
        ended = time.process_time()
        reach = width * len(smooth.coprime_residues(width))
        yield f"p - 1 to 2^{bits}", middle - started, "stage 1"
        primes = factoring.primes_below(1 << 22)
        gaps = primes[-20_000:] - primes[-20_001:-1]
        table = [gmpy2.powmod(search.power, gap, n) for gap in range(int(gaps.max()) + 1)]
        began, power, running = time.process_time(), gmpy2.mpz(search.power), gmpy2.mpz(1)
        for gap in gaps.tolist():
            power = power * table[gap] % n
            running = running * (power - 1) % n
        # primes below x: x/(log x - 1.08)
        textbook = (time.process_time() - began) / len(gaps) * reach / (math.log(reach) - 1.08)
        note = f"one prime to {reach:,}; {(ended - middle) / textbook:.3f} of the textbook's time"
        yield f"p - 1, stage 2, D = {width:,}", ended - middle, note
    started = time.process_time()
    assert smooth.p_plus_1(n, smooth.SEEDS[0], 1 << 16, 6_930, quiet) is None
    yield "p + 1 to 2^16, one seed", time.process_time() - started, "both stages"


@attack
def curves(size: int) -> Iterator[Row]:
    """One curve of each level on a sound key."""
    n = prime(size // 2) * prime(size // 2)
    for _, _, _, level in CURVES:
        ecm.multiplier(level.bound)
        spent = seconds(lambda level=level: ecm.factor_by_curve(n, 9, level, lambda: None))
        reach = level.width * len(smooth.coprime_residues(level.width)) // 2
        yield f"a curve to {level.bound:,}", spent, f"one prime to {reach:,}"


@attack
def ratios(size: int) -> Iterator[Row]:
    """The deep steps of rsa-close-primes on a sound key."""
    key = RsaPublicKey(prime(size // 2) * prime(size // 2), 65537)
    findings, reports = examine_deeply(key, [check("rsa-close-primes")], Context(profile=Profile.DEEP), 60.0)
    assert not findings
    for report in reports:
        yield report.step, report.seconds, f"{report.outcome.value}, {report.detail}"


@attack
def unseeded(size: int) -> Iterator[Row]:
    """The deep step of rsa-unseeded-prng on a sound key, and on keys of which one prime is above an output."""
    one = check("rsa-unseeded-prng")
    q = prime(size // 2)
    for name in (None, *GENERATORS):
        p = prime(size // 2) if name is None else int(gmpy2.next_prime(Origin(name, "top2", 0).start(size // 2)))
        findings, [report] = examine_deeply(RsaPublicKey(p * q, 65537), [one], Context(profile=Profile.DEEP), 60.0)
        assert bool(findings) is (name is not None)
        if name is None:
            yield f"{report.step}, a sound key", report.seconds, f"{report.outcome.value}, {report.detail}"


@attack
def whole_key(size: int) -> Iterator[Row]:
    """All deep steps on a sound key with e = 65537, within the budget of a scan."""
    key = RsaPublicKey(prime(size // 2) * prime(size // 2), 65537)
    for _ in range(2):  # the first key of a process makes tables and loads libraries
        findings, reports = examine_deeply(key, catalogue(), Context(profile=Profile.DEEP), DEFAULT_BUDGET)
    assert not findings
    for report in reports:
        yield f"{report.check}: {report.step}", report.seconds, f"{report.outcome.value}, {report.detail}"
    yield "all steps", sum(report.seconds for report in reports), f"of {DEFAULT_BUDGET} s"


def quiet(_done: int, _total: int, _unit: str) -> None:
    """No reports."""


@attack
def small_exponent(size: int) -> Iterator[Row]:
    """Private exponents as long as each method reaches: convergents, lattices by dimension, products by bits."""
    d_bits = size // 4 - 2
    shapes = [(m, starts) for m, starts, *_ in LATTICES]
    for m, starts in [(0, ()), *(shapes if size <= 2048 else shapes[:3])]:
        if m:
            d_bits = small.Lattice((1 << size) - 1, (1 << size) - 1, m, starts).reach
        while True:
            p, q, d = prime(size // 2), prime(size // 2), RANDOM.getrandbits(d_bits) | 1 | 1 << (d_bits - 1)
            if gmpy2.gcd(d, (p - 1) * (q - 1)) == 1:
                break
        n, e = p * q, int(gmpy2.invert(d, (p - 1) * (q - 1)))
        if not m:
            spent = seconds(partial(factoring.wiener, n, e))
            assert factoring.wiener(n, e) is not None
            yield f"convergents, d of {d_bits} bits", spent, f"N^{d_bits / size:.4f}"
            continue
        lattice = small.Lattice(n, e, m, starts)
        started = time.process_time()
        assert lattice.factor() in (p, q)
        spent = time.process_time() - started
        yield f"lattice of dimension {len(lattice.shifts)}, d of {d_bits} bits", spent, f"N^{d_bits / size:.4f}"
    n, e = prime(size // 2) * prime(size // 2), RANDOM.getrandbits(size) | 1
    for bits in (24, 28, 32):
        started = time.process_time()
        assert small.small_residue_factor(n, e, bits) is None
        yield f"d of {bits} bits modulo p - 1, a sound key", time.process_time() - started, ""


@attack
def nonces(size: int) -> Iterator[Row]:
    """Lattices over signatures, by curve, and all that is tried on a sound signer. With the smallest size only."""
    if size > 1024:
        return
    for name, counts in (("P-256", (4, 10, 20, 40, 60)), ("P-384", (4, 10, 20, 40)), ("P-521", (4, 10, 20, 40))):
        order = int(named_curves()[name].order)

        def lines(numbers: list[int], d: int, order: int = order) -> list[hidden_number.Line]:
            slopes = [RANDOM.randrange(1, order) for _ in numbers]
            return [((k - t * d) % order, t) for k, t in zip(numbers, slopes, strict=True)]

        for count in counts:
            bits = hidden_number.least_bits(order, count) if count < 60 else 6
            d = RANDOM.randrange(1, order)
            signed = lines([RANDOM.getrandbits(order.bit_length() - bits) for _ in range(count)], d)
            started = time.process_time()
            right = d in list(hidden_number.short(signed, order, bits))
            spent = time.process_time() - started
            yield f"{name}: {count} nonces, short by {bits} bits", spent, "found" if right else "not found"
        for count in (2, 10, 40):
            sound = lines([RANDOM.randrange(1, order) for _ in range(count)], RANDOM.randrange(1, order))
            started = time.process_time()
            attempts = [list(one.run()) for one in hidden_number.attempts(sound, order)]
            yield (
                f"{name}: a sound signer, {count} signatures",
                time.process_time() - started,
                f"{len(attempts)} lattices",
            )


@attack
def small_numbers(size: int) -> Iterator[Row]:
    """The deep steps of ec-weak-private-key on a sound key. With the smallest size only."""
    if size > 1024:
        return
    for name in ("P-256", "P-384"):
        curve = named_curves()[name]
        point = multiply(curve, RANDOM.randrange(1, int(curve.order)), curve.base)
        assert point is not None
        octets = b"\4" + b"".join(int(one).to_bytes(curve.field_bytes, "big") for one in point)
        findings, reports = examine_deeply(
            EcPublicKey(name, octets), [check("ec-weak-private-key")], Context(profile=Profile.DEEP), 20.0
        )
        assert not findings
        for report in reports:
            yield f"{name}: {report.step}", report.seconds, f"{report.outcome.value}, {report.detail}"


def main() -> None:
    """Run the attacks, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="attacks whose name contains this")
    parser.add_argument("--sizes", default="1024,2048,4096")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    rows: list[dict[str, object]] = []
    for name, function in ATTACKS.items():
        if given.only not in name:
            continue
        for size in map(int, given.sizes.split(",")):
            for row, spent, note in function(size):
                print(f"{name:20} {size:5} {row:45} {spent:9.4f} s  {note}", flush=True)
                rows.append({"attack": name, "bits": size, "row": row, "seconds": spent, "note": note})
    if given.json:
        given.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()

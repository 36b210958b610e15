"""A key of the npm package keypair before 1.0.4, whose random generator had next to no seed.

Weakness: keypair 1.0.3 and older (CVE-2021-41117) seeded its generator with 32 bytes of which nearly
all were zero: one is the clock's lowest, each of the others is non-zero for 9 characters in 256. A
third of all keys come from one of 256 seeds, so strangers get the same key.

Method: the generator is remade, checked against the original, and runs through the seeds. The highest
bits of a modulus are those of the product of the two numbers that its primes were searched from,
which needs no primality test. The shipped lists hold them for all 71,680 seeds with at most one
non-zero byte, for 1024, 2048, 3072 and 4096 bits: 70.2 % of the first keys of a process. A list of
the 9.6 million seeds with two, which makes it 90.6 %, is built by `keyassay lists build --key
keypair-2048` (and so on; 77 MB, 11 to 40 minutes of one core). A hit names the seed, the seed gives
the two numbers again, and one of them plus a distance below 2^15 is a factor of the modulus.

Cost: 0.1 us a key, 0.4 us more with the larger list, 1 ms once for each size of modulus. A hit takes
0.2 ms to prove at 2048 bits, 0.5 at 4096: a key is never searched again from its seed (25 ms, 2 s).

Profiles: fast does all of it, with the lists that are there.

Mistakes: none. A sound key meets an entry by chance once in 2^24 (the larger list: 2^16), and only a
factor of N that is as close to the seed's number as a prime can be makes a finding.

Blind spots: seeds with more non-zero bytes (29.8 % of first keys, 9.4 % with the larger list); the
second and later keys of one process; other sizes; keys made in browsers, which have another source
for the seed; keys with a prime that is 1 modulo the public exponent, which the program drew again
(one in 25,000 for 65537, most keys for 3).

Remedy: replace the key with one from the operating system's random source, and so every other key
that the same program made, whether it is found here or not: none of them is sound. Then update
keypair to 1.0.4.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from keyassay.certificates.batches import RsaBatch
from keyassay.certificates.item import Item
from keyassay.certificates.public_key import PublicKey, RsaPublicKey
from keyassay.checks import Context, batch_check
from keyassay.errors import KeyassayError
from keyassay.findings import Classification, Confidence, Factor, Profile, Severity, Step, Value, Verdict
from keyassay.lists import keypair
from keyassay.lists.recipes.keypair import (
    first_state,
    nonzero_bytes,
    pool_of,
    prime_of,
    starts,
    starts_of_primes,
)

#: What ``keyassay prove`` prints to repeat the generator: python3 for the counting, openssl for AES.
_REPEAT = """python3 -c '
import subprocess
def aes(key, block):
    command = ["openssl", "enc", "-aes-128-ecb", "-nopad", "-K", key.hex()]
    return subprocess.run(command, input=block, capture_output=True, check=True).stdout
key, counter = bytes.fromhex("{key}"), bytes.fromhex("{counter}")
for number in range({draws}):
    drawn = b""
    for _ in range({blocks}):
        following = counter[:12] + ((int.from_bytes(counter[12:], "big") + 1) % 2**32).to_bytes(4, "big")
        drawn += aes(key, counter)
        key = aes(key, following)
        counter = aes(key, following)
    start = int.from_bytes(drawn[1:{size} + 1], "big") | 1 << (8 * {size} - 1)
    print(number + 1, hex(start + 31 - start % 30))
'"""


@dataclass(frozen=True)
class KeypairPrime(Factor):
    """A factor, and the seed that it was made from (secret: whoever knows it makes the key)."""

    pool: bytes = b""

    def proves(self, subject: PublicKey | Item) -> bool:
        """The factor divides N, and is what the seed leads to."""
        return (
            super().proves(subject)
            and isinstance(subject, RsaPublicKey)
            and prime_of(subject.modulus, *starts_of_primes(self.pool, subject.bits)) == self.factor
        )

    def _place(self, start: int, bits: int) -> int:
        """Which of the generator's numbers a start is, from 0."""
        return next(place for place, drawn in enumerate(starts(self.pool, bits)) if drawn == start)

    def secrets(self) -> Mapping[str, Value]:
        return {**super().secrets(), "seed": self.pool}

    def steps(self, subject: PublicKey | Item) -> list[Step]:
        assert isinstance(subject, RsaPublicKey)
        one, two = starts_of_primes(self.pool, subject.bits)
        places = [self._place(start, subject.bits) for start in (one, two)]
        other = subject.modulus // self.factor
        key, counter = (part.hex() for part in first_state(self.pool))
        size = subject.bits // 16
        numbers = {"key": key, "counter": counter, "draws": max(places) + 1, "blocks": size // 16 + 1, "size": size}
        return [
            *super().steps(subject),
            Step(f"The 32 bytes of the seed are {self.pool.hex()}: the clock's, then 31 with few other than zero"),
            Step(
                f"SHA-1 of its SHA-1 starts with the AES key, SHA-1 of that with the counter (prints {key} {counter})",
                f'python3 -c \'from hashlib import sha1; k = sha1(sha1(bytes.fromhex("{self.pool.hex()}")).digest()); '
                "print(k.hexdigest()[:32], sha1(k.digest()).hexdigest()[:32])'",
            ),
            Step(
                f"Of the numbers that they lead to, number {places[0] + 1} plus {self.factor - one} is p and "
                f"number {places[1] + 1} plus {other - two} is q",
                _REPEAT.format(**numbers),
            ),
        ]


@batch_check(
    id="rsa-keypair-prng",
    title="key of a broken npm package",
    applies_to=(RsaPublicKey,),
    classification=Classification.BROKEN,
    severity=Severity.CRITICAL,
    confidence=Confidence.PROVEN,
    profile=Profile.FAST,
    references=(
        "CVE-2021-41117",
        "GHSL-2021-1012: poor random number generation in keypair",
        "CWE-335: Incorrect Usage of Seeds in Pseudo-Random Number Generator",
    ),
    explained_by=("rsa-invalid-modulus",),
)
def check(batch: RsaBatch, context: Context) -> Iterator[tuple[int, Verdict]]:
    """One sorted look-up of the highest bits in each list; the seed's primes for those that are found."""
    name = f"keypair-{batch.bits}"
    if name not in keypair.KINDS:
        return
    tops = batch.matrix[:, -8:].copy().view("<u8").reshape(-1).astype(np.uint64)
    found: set[int] = set()
    for listed in (keypair.shipped, keypair.built):
        try:
            entries = listed(name)
        except KeyassayError as error:
            context.leave_out("rsa-keypair-prng", str(error))
            continue
        for hit in keypair.find_many(entries, tops) if entries is not None else ():
            modulus = batch.key(hit.row).modulus
            pool = pool_of(hit.pool)
            factor = prime_of(modulus, *starts_of_primes(pool, batch.bits)) if hit.row not in found else None
            if factor is None:
                continue
            found.add(hit.row)
            notes: dict[str, Value] = {"package": "npm keypair before 1.0.4", "nonzero_seed_bytes": nonzero_bytes(pool)}
            yield (
                hit.row,
                Verdict(
                    "made by the npm package keypair before 1.0.4, from a seed that can be guessed",
                    KeypairPrime(factor, notes, pool),
                ),
            )

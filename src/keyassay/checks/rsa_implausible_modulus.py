"""A modulus that chance does not give.

Weakness: none that is proven. The bits of a modulus made of two random primes look random; here
they do not. Either somebody chose the modulus (a vanity key, a test key, a number that never was a
product of primes), or the modulus carries a message (the backdoor of xz 5.6, CVE-2024-3094, took
its commands from the modulus of an SSH certificate), or the random source was faulty in a way that
no other check could turn into a factor.

Method: six looks at the bytes of N. A word of 8 bytes comes twice. One byte comes nine times in a
row. All words of 2 to 32 bytes share zero bits, or one bits. The share of one bits in the modulus
or in one of its halves is extreme. Forty bytes of printable text. Or the first 16 bytes are a
header as the xz backdoor reads it: 32-bit a and b and 64-bit c, little-endian, with a b + c modulo
2^64 from 0 to 3.

Cost: 3 us a key.

Profiles: fast does all of it.

Mistakes: each look reports a random modulus of up to 16,384 bits with a probability of at most
2^-48, the header 2^-61; all together less than 2^-44. A finding says nothing about the primes: a
vanity modulus can be sound. The severity is that of a question to whoever made the key.

Blind spots: moduli whose bytes are encrypted or compressed messages look random. Of moduli chosen
in part, those with fewer than 9 equal bytes in a row and fewer than 23 bytes that come again.

Remedy: ask where the key comes from. If nobody chose the modulus on purpose, replace the key and
examine the generator; if it is an SSH key that was offered by a stranger, look for other signs of
an intrusion.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from keyassay.certificates.batches import RsaBatch
from keyassay.certificates.item import Item
from keyassay.certificates.public_key import PublicKey, RsaPublicKey
from keyassay.checks import Context, batch_check
from keyassay.findings import Classification, Confidence, Evidence, Profile, Severity, Value, Verdict
from keyassay.keymath import bits

#: Each look reports a random modulus with probability at most 2^-EXPONENT.
EXPONENT = 48

#: Adjacent words of 8 bytes that have to be printable: (95/256)^40 = 2^-57 for one place, 2^-49 for all 256.
TEXT_WORDS = 5

#: The highest bits are not uniform in products of primes with forced top bits; these many are given away.
MARGIN = 8

#: Equal bytes in a row: 2^-64 for one place, 2^-53 for all 2,048.
EQUAL_BYTES = 9

LOOKS = {
    "repetition": "the same 8 bytes come twice",
    "run": "one byte comes nine times in a row",
    "shared zeros": "all its words share zero bits",
    "shared ones": "all its words share one bits",
    "weight": "its share of one bits is not that of a random number",
    "text": "it contains printable text",
    "command header": "it begins like a command of the xz backdoor (CVE-2024-3094)",
}


def looks(batch: RsaBatch) -> dict[str, NDArray[np.bool_]]:
    """Which rows are implausible, by the name of the look (keys of ``LOOKS``)."""
    matrix = batch.matrix
    # 12 word sizes, and forced bits at the top that take a word from a position
    limits = np.array(bits.shared_zeros_limits(batch.bits, EXPONENT + 6))
    zeros = batch.column("shared zeros of words", lambda: bits.shared_zeros(matrix, batch.bits))
    return {
        "repetition": bits.repeated_words(matrix),
        "run": bits.equal_bytes(matrix[:, : (batch.bits + 7) // 8], EQUAL_BYTES),
        "shared zeros": np.any(zeros >= limits, axis=1),
        "shared ones": np.any(bits.shared_zeros(~matrix, batch.bits) >= limits, axis=1),
        "weight": _extreme_weight(matrix, batch.bits),
        "text": bits.printable_words(matrix, TEXT_WORDS),
        "command header": _command_header(matrix, batch.bits),
    }


def _extreme_weight(matrix: NDArray[np.uint8], size: int) -> NDArray[np.bool_]:
    ones = bits.ones_at_the_ends(matrix)[:, 8:]
    extreme = np.zeros(len(matrix), dtype=np.bool_)
    for column, length in enumerate(bits.window_bits(size)[8:].tolist()):
        low, high = bits.weight_limits(length, EXPONENT + 3)
        extreme |= (ones[:, column] < low - MARGIN) | (ones[:, column] > high + MARGIN)
    return extreme


def _command_header(matrix: NDArray[np.uint8], size: int) -> NDArray[np.bool_]:
    """A command of the backdoor, read from the bare modulus or from its encoding with a leading zero."""
    octets = (size + 7) // 8
    head = np.zeros((len(matrix), 17), dtype=np.uint8)
    head[:, 1:] = matrix[:, octets - 16 : octets][:, ::-1]
    found = _is_command(head[:, 1:])
    return found | _is_command(head[:, :16]) if size % 8 == 0 else found


def _is_command(head: NDArray[np.uint8]) -> NDArray[np.bool_]:
    octets = np.ascontiguousarray(head)
    a, b = (octets.view("<u4")[:, place].astype(np.uint64) for place in (0, 1))
    with np.errstate(over="ignore"):
        command = a * b + octets.view("<u8")[:, 1]
    return np.asarray((command <= 3) & (a != 0) & (b != 0))


@dataclass(frozen=True)
class Implausible(Evidence):
    """The names of the looks (keys of ``LOOKS``) that the modulus does not stand."""

    seen: tuple[str, ...]

    def proves(self, subject: PublicKey | Item) -> bool:
        """The modulus, looked at alone, shows the same."""
        if not isinstance(subject, RsaPublicKey) or subject.bits < 512:
            return False
        found = looks(RsaBatch([subject]))
        return bool(self.seen) and all(bool(found[name][0]) for name in self.seen)

    def describe(self) -> Mapping[str, Value]:
        return {"proof": "measurement", "looks": list(self.seen), "chance_below_2_to_the_power": -44}


@batch_check(
    id="rsa-implausible-modulus",
    title="modulus that chance does not give",
    applies_to=(RsaPublicKey,),
    classification=Classification.NOTICE,
    severity=Severity.LOW,
    confidence=Confidence.LIKELY,
    profile=Profile.FAST,
    version=2,
    references=(
        "CVE-2024-3094",
        "A. K. Lenstra, Generating RSA moduli with a predetermined portion, ASIACRYPT 1998",
    ),
    explained_by=(
        "rsa-invalid-modulus",
        "rsa-patterned-primes",
        "rsa-polynomial-modulus",
        "rsa-unseeded-prng",
        "rsa-small-factor",
    ),
)
def check(batch: RsaBatch, _context: Context) -> Iterator[tuple[int, Verdict]]:
    """Six looks at the bytes of the modulus."""
    if batch.bits < 512:
        return
    found = looks(batch)
    rows = np.flatnonzero(np.logical_or.reduce(list(found.values())))
    for row in rows.tolist():
        seen = tuple(name for name, hits in found.items() if hits[row])
        yield (
            row,
            Verdict(
                "the modulus does not look like a product of random primes: " + "; ".join(LOOKS[name] for name in seen),
                Implausible(seen),
                severity=Severity.HIGH if "command header" in seen else None,
            ),
        )

"""Nonces of one signer that are close to each other or not uniform: what lattices make of the signatures of a run.

Each generator yields candidates, one at a time. Whoever takes them proves each before it asks for the next, and enters
what is right in the dictionary of known private keys: the rest of that signer's work is then left.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import product
from typing import NamedTuple, TypeVar

import gmpy2

from keyassay.certificates.fleet import Fleet, Work
from keyassay.certificates.public_key import DsaPublicKey, EcPublicKey
from keyassay.certificates.signatures import AnySignature, Signature, Signer, order_of, verifies
from keyassay.certificates.signers import Signers
from keyassay.keymath.close_points import Reach, bytes_needed, close_pairs, relation
from keyassay.keymath.curves import multiply, named_curves, root
from keyassay.keymath.hidden_number import Attempt, attempts

#: (arms, giant steps): differences of nonces up to 65,884
_CLOSE: Reach = (181, 181)
#: times the budget of a key that one signer, and all of them, may take
_SIGNER_SHARE, _ALL_SHARE = 2, 120
#: name of the work in the notes for later runs
_STEP = "lattices"
#: bits by which the longest r may be shorter than the order
_SHORT = 40
#: signatures of one signer that are looked at
_MOST = 100_000

S = TypeVar("S", bound=AnySignature)


class Lost(NamedTuple):
    """A signer whose private key seems to be d."""

    signature: AnySignature
    holder: int
    key: Signer
    d: int
    what: str
    others: list[int]


class LostNonce(NamedTuple):
    """A nonce of a signer that is not in the run: kG has the x coordinate r on that curve."""

    signature: Signature
    curve: str
    k: int
    what: str
    others: list[int]


class Allowance:
    """CPU time for the lattices of a run, and what earlier runs have done.

    Args:
        budget: seconds that profile deep may spend on a key. A signer gets twice that, since more depends on it, all
            signers together 120 times.
        fleet: where the work of earlier runs is kept.
        check: whose work it is.
    """

    def __init__(self, budget: float, fleet: Fleet, check: str) -> None:
        self._each = _SIGNER_SHARE * budget
        self._end = time.process_time() + _ALL_SHARE * budget
        self._fleet, self._check = fleet, check
        self._turn = 0.0
        self._before = Work()
        self._what = b""
        self._signers = self._not_begun = self._not_ended = 0

    def is_spent(self) -> bool:
        """Whether there is no time for one more signer, of whom nothing else is to be known."""
        if self._fleet.keeps_work or time.process_time() < self._end:
            return False
        self._signers += 1
        self._not_begun += 1
        return True

    def begins(self, lines: Sequence[tuple[int, int]], order: int, *, low: bool) -> bool:
        """Whether there is anything left to do, and time, for a signer with these signatures (as for ``attempts``)."""
        digest = hashlib.sha256(f"{order:x} {low}".encode())
        for u, t in lines:
            digest.update(f" {u:x} {t:x}".encode())
        self._what = digest.digest()[:16]
        self._before = self._fleet.earlier_work(self._check, _STEP, self._what)
        self._signers += 1
        self._turn = time.process_time()
        if self._before.done:
            return False
        if self._turn < self._end:
            return True
        self._not_begun += 1
        return False

    def while_time(self, of_one: Iterable[Attempt]) -> Iterator[Attempt]:
        """Attempts on the signer that began last, from where earlier runs stopped, as long as there is time.

        Where whoever takes them stops, since one of them has found the private key, nothing is noted.
        """
        number = 0
        for attempt in of_one:
            if number >= self._before.units:
                if time.process_time() >= min(self._turn + self._each, self._end):
                    self._not_ended += 1
                    self._fleet.note_work(self._check, _STEP, self._what, Work(number))
                    return
                yield attempt
            number += 1
        self._fleet.note_work(self._check, _STEP, self._what, Work(number, done=True))

    @property
    def left_out(self) -> str:
        """What there was no time for, in words, or nothing."""
        if not self._not_begun and not self._not_ended:
            return ""
        begun = f"none of {self._not_begun:,}" if self._not_begun else ""
        ended = f"not all of {self._not_ended:,}" if self._not_ended else ""
        parts = " and ".join(part for part in (ended, begun) if part)
        return f"not all done: lattices for {parts} of {self._signers:,} signers; raise --budget"


def close_nonces(
    signers: Signers,
    made: Mapping[tuple[int, Signer], Sequence[AnySignature]],
    known: Mapping[Signer, int],
    leave_out: Callable[[str], None],
) -> Iterator[Lost]:
    """Two nonces of one signer whose sum or difference is small: their points differ by a small multiple of the base.

    Args:
        signers: of the run.
        made: signatures by signer, as ``Signers.work_of`` has them.
        known: private keys that are known; those signers are left alone.
        leave_out: told what there is no memory for.
    """
    by_curve: dict[str, dict[int, list[tuple[int, EcPublicKey, Signature]]]] = {}
    for (holder, key), signatures in made.items():
        if isinstance(key, EcPublicKey) and len(signatures) > 1 and key not in known:
            for one in signatures[:_MOST]:
                if isinstance(one, Signature):
                    by_curve.setdefault(key.curve, {}).setdefault(one.r, []).append((holder, key, one))
    for name, makers in by_curve.items():
        curve = named_curves()[name]
        needed = bytes_needed(len(makers), _CLOSE)
        if needed > signers.fleet.memory:
            reason = f"nonces close to each other: {len(makers):,} signatures, needs {needed / 1e9:.1f} GB"
            leave_out(f"not run: {reason}; raise --memory")
            continue
        rows = [(point, r) for r in makers if (point := root(curve, r, 0)) is not None]
        points = [point for point, _ in rows]
        for (left, right), sizes in close_pairs(curve, points, _CLOSE, curve.base).items():
            for (holder, key, one), (_, partner, other) in product(makers[rows[left][1]], makers[rows[right][1]]):
                if key != partner or key in known:
                    continue
                found = relation(curve, points[left], points[right], sizes, curve.base)
                if found is not None:
                    for d, what in _of_difference(one.line(key), other.line(key), found[1], int(curve.order)):
                        yield Lost(one, holder, key, d, what, [other.ordinal])


def _of_difference(one: tuple[int, int], other: tuple[int, int], v: int, order: int) -> Iterator[tuple[int, str]]:
    """Private keys for which two nonces differ by v but for signs: a point and its negative have one r."""
    (u, t), (u2, t2) = one, other
    for sign, size in product((1, -1), (v, -v)):
        if (t - sign * t2) % order:
            d = int((size - u + sign * u2) * gmpy2.invert(t - sign * t2, order) % order)
            yield d, f"two nonces whose {'difference' if sign > 0 else 'sum'} is {abs(v):,}"


def biased_nonces(
    signers: Signers,
    made: Mapping[tuple[int, Signer], Sequence[AnySignature]],
    known: Mapping[Signer, int],
    work: Allowance,
) -> Iterator[Lost]:
    """Lattices over the signatures of each signer, those with many signatures first.

    Args:
        signers: of the run.
        made: signatures by signer, as ``Signers.work_of`` has them.
        known: private keys that are known; those signers are left alone.
        work: the time there is.
    """
    for (holder, key), signatures in sorted(made.items(), key=lambda one: (-len(one[1]), one[0][0])):
        if key in known or work.is_spent():
            continue
        order = order_of(key)
        chosen = _distinct(_made_by(signers, key, signatures[:_MOST]))
        lines = [one.line(key) for one in chosen]
        low = isinstance(key, EcPublicKey | DsaPublicKey) and all(2 * one.s <= order for one in chosen)
        if not work.begins(lines, order, low=low):
            continue
        for attempt in work.while_time(attempts(lines, order, low=low)):
            involved = [chosen[place] for place in attempt.places]
            for d in attempt.run():
                yield Lost(involved[0], holder, key, d, attempt.what, [one.ordinal for one in involved])
            if key in known:
                break


def _made_by(signers: Signers, key: Signer, signatures: Sequence[AnySignature]) -> Iterator[AnySignature]:
    """The signatures that the key has made: where others of its name may have made them, verified."""
    for one, item in zip(signatures, signers.fleet.items([one.ordinal for one in signatures]), strict=True):
        if len(signers.of(item)) == 1 or verifies(key, one):
            yield one


def biased_nonces_of_absent(
    signers: Signers, nobody: Iterable[Signature], curves: Iterable[str], work: Allowance
) -> Iterator[LostNonce]:
    """The same for signers that are not in the run, told by name and key identifier, on some curves.

    Args:
        signers: of the run.
        nobody: ECDSA signatures whose signers are not in the run.
        curves: names of those to try.
        work: the time there is.
    """
    signatures = sorted(nobody, key=lambda one: one.ordinal)
    absent: dict[tuple[bytes, bytes | None], list[Signature]] = {}
    for one, item in zip(signatures, signers.fleet.items([one.ordinal for one in signatures]), strict=True):
        if item.signed is not None:
            absent.setdefault((item.signed.issuer, item.signed.authority_key_identifier), []).append(one)
    for made in sorted(absent.values(), key=lambda one: -len(one)):
        chosen = _distinct(made[:_MOST])
        largest = max(max(one.r, one.s) for one in chosen)
        for name in curves:
            curve = named_curves()[name]
            order = int(curve.order)
            fits = largest < order and largest.bit_length() > order.bit_length() - _SHORT
            if not fits or len(chosen) < 2 or work.is_spent():
                continue
            low = all(2 * one.s <= order for one in chosen)
            lines = [one.line_modulo(order) for one in chosen]
            if not work.begins(lines, order, low=low):
                continue
            for attempt in work.while_time(attempts(lines, order, low=low)):
                u, t = lines[attempt.places[0]]
                involved = [chosen[place] for place in attempt.places]
                nonces = [(u + t * d) % order for d in attempt.run()]
                points = [multiply(curve, k, curve.base) for k in nonces]
                right = [
                    k
                    for k, point in zip(nonces, points, strict=True)
                    if point is not None and point[0] % order == involved[0].r
                ]
                if right:
                    yield LostNonce(involved[0], name, right[0], attempt.what, [one.ordinal for one in involved])
                    break


def _distinct(signatures: Iterable[S]) -> list[S]:
    """Signatures without those that come again."""
    return list({(one.r, one.s): one for one in signatures}.values())

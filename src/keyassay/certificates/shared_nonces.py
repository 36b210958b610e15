"""One nonce, several signers: from signer to signer through the nonces they share, and around rings of signers.

Two signatures of two signers with one nonce are two equations in three unknowns. A ring of signers who share as many
nonces has as many equations as unknowns, and where one private key is known, shared nonces lead to the next.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Generic, TypeVar

import gmpy2

from keyassay.certificates.public_key import DsaPublicKey, EcPublicKey, OkpPublicKey
from keyassay.certificates.signatures import AnySignature, Signer, order_of, verifies
from keyassay.certificates.signers import MOST_SIGNERS, Signers

#: bytes that one edge takes
_BYTES = 700
#: signers in a ring of shared nonces: each doubles the signs to try, of half a millisecond each
_LONGEST_RING = 8
#: steps of searches, signatures verified and private keys tried for rings, in one run: at most half a minute
_RING_WORK = 50_000
_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight")

T = TypeVar("T")
#: the group, and R in it
_Nonce = tuple[object, object]


@dataclass
class SharedNonces(Generic[T]):
    """Signers and the nonces they share: a graph whose edges are signatures, k = u + t d.

    Attributes:
        signers: of the run.
        known: private keys that are known; ``report`` adds those that it finds right.
        check_id: of the check that says what is left out.
        report: gets a signature, an item that holds its signer's key, that key, what seems to be the private key,
            the cause and the other signatures of it; yields what becomes of it if the private key is right.
        proves: whether a number is a signer's private key.
        edges: signatures by signer and nonce.
        makers: signers by nonce.
        holders: an item that holds the signer's key.
        count: of edges.
        full: there is no memory for more.
        work: steps done.
    """

    signers: Signers
    known: dict[Signer, int]
    check_id: str
    report: Callable[[AnySignature, int, Signer, int, str, Sequence[int]], Iterator[T]]
    proves: Callable[[Signer, int], bool]
    edges: dict[Signer, dict[_Nonce, AnySignature]] = field(default_factory=dict)
    makers: dict[_Nonce, list[Signer]] = field(default_factory=dict)
    holders: dict[Signer, int] = field(default_factory=dict)
    count: int = 0
    full: bool = False
    work: int = 0

    def add(self, signatures: Iterable[AnySignature]) -> None:
        """Signatures with one nonce, each with another set of possible signers."""
        for signature in list(signatures)[:MOST_SIGNERS]:
            for holder, key in self.signers.of(self.signers.fleet.item(signature.ordinal)):
                order = order_of(key)
                r = signature.r
                if not order or (isinstance(r, int) and (r >= order or signature.s % order == 0)):
                    continue
                if isinstance(key, DsaPublicKey):
                    group: object = (key.p, key.q, key.g)
                else:
                    group = key.type if isinstance(key, OkpPublicKey) else key.curve
                if (self.count + 1) * _BYTES > self.signers.fleet.memory:
                    reason = f"nonces of several signers: more than {self.count:,} signatures; raise --memory"
                    if not self.full:
                        self.signers.fleet.not_run(self.check_id, f"not all done: {reason}")
                    self.full = True
                    return
                mine = self.edges.setdefault(key, {})
                if (group, r) not in mine:
                    mine[group, r] = signature
                    self.makers.setdefault((group, r), []).append(key)
                    self.holders.setdefault(key, signature.ordinal if holder < 0 else holder)
                    self.count += 1

    def solve(self) -> Iterator[T]:
        """Follow shared nonces from the signers that are known, and from those in rings."""
        known = self.known
        for key, holder in self.holders.items():
            d = self.signers.fleet.private_keys.get(holder)
            if d is not None and key not in known and self.proves(key, d):
                known[key] = d
        yield from self._follow([key for key in self.edges if key in known])
        seen: dict[Signer, dict[_Nonce, AnySignature]] = {}
        for key, signatures in self.edges.items():
            for nonce in signatures:
                if key in known:
                    break
                if self.work >= _RING_WORK:
                    reason = "rings of signers who share nonces: too many to try all"
                    self.signers.fleet.not_run(self.check_id, f"not all done: {reason}")
                    return
                ring = self._ring(seen, key, nonce)
                if ring:
                    yield from self._report(ring)
                    yield from self._follow([one for one, _, _ in ring if one in known])

    def _follow(self, starts: Iterable[Signer]) -> Iterator[T]:
        """Every signer who shares a nonce with one whose private key is known, and so on."""
        known = self.known
        waiting = deque(starts)
        what = "a nonce shared with a signer whose private key is known"
        while waiting:
            key = waiting.popleft()
            for nonce, signature in self.edges[key].items():
                u, t = signature.line(key)
                k = u + t * known[key]
                for partner in self.makers[nonce]:
                    if partner in known:
                        continue
                    theirs = self.edges[partner][nonce]
                    order = order_of(partner)
                    v, w = theirs.line(partner)
                    for sign in _signs(partner):
                        d = int((sign * k - v) * gmpy2.invert(w, order) % order) if w else 0
                        yield from self.report(theirs, self.holders[partner], partner, d, what, [signature.ordinal])
                        if partner in known:
                            waiting.append(partner)
                            break

    def _ring(
        self, seen: dict[Signer, dict[_Nonce, AnySignature]], key: Signer, nonce: _Nonce
    ) -> list[tuple[Signer, _Nonce, Signer]]:
        """The shortest ring that an edge closes with those seen before, which it then joins.

        Edges of a ring are verified: one of several keys of a name may not have made a signature.

        Returns:
            (signer, nonce, the next signer) all around, or [].
        """
        while True:
            path = self._path(seen, key, nonce)
            if not path:
                break
            ring = [*path, (path[-1][2], nonce, key)]
            wrong = [
                (one, shared)
                for left, shared, right in ring
                for one in (left, right)
                if not self._made(one, self.edges[one][shared])
            ]
            if not wrong:
                return ring
            for one, shared in wrong:
                seen.get(one, {}).pop(shared, None)
            if (key, nonce) in wrong:
                return []
        seen.setdefault(key, {})[nonce] = self.edges[key][nonce]
        return []

    def _path(
        self, seen: dict[Signer, dict[_Nonce, AnySignature]], key: Signer, goal: _Nonce
    ) -> list[tuple[Signer, _Nonce, Signer]]:
        """The shortest way from a signer to one who shares a nonce, through edges seen before, or []."""
        came: dict[Signer, tuple[Signer, _Nonce] | None] = {key: None}
        level = [key]
        for _ in range(_LONGEST_RING - 1):
            following: list[Signer] = []
            for one in level:
                for nonce in seen.get(one, ()):
                    for partner in self.makers[nonce]:
                        self.work += 1
                        if partner in came or nonce not in seen.get(partner, ()):
                            continue
                        came[partner] = (one, nonce)
                        if goal in seen[partner]:
                            return _way(came, partner)
                        following.append(partner)
            level = following
        return []

    def _made(self, key: Signer, signature: AnySignature) -> bool:
        """Whether a signer made a signature: it verifies."""
        self.work += 1
        return verifies(key, signature)

    def _report(self, ring: list[tuple[Signer, _Nonce, Signer]]) -> Iterator[T]:
        """Findings on all signers of a ring: d' = (+-(u + t d) - u')/t' all around leads back to d."""
        first = ring[0][0]
        order = order_of(first)
        links = []
        for one, nonce, other in ring:
            (u, t), (v, w) = self.edges[one][nonce].line(one), self.edges[other][nonce].line(other)
            inverse = gmpy2.invert(w, order) if w else 0
            links.append((t * inverse % order, u * inverse % order, v * inverse % order))
        for signs in product(_signs(first), repeat=len(ring)):
            self.work += 1
            factor, rest = 1, 0
            for sign, (slope, above, below) in zip(signs, links, strict=True):
                factor, rest = sign * slope * factor % order, (sign * (slope * rest + above) - below) % order
            if (1 - factor) % order == 0:
                continue
            d = int(rest * gmpy2.invert(1 - factor, order) % order)
            if not self.proves(first, d):
                continue
            number = _NUMBERS[len(ring)]
            what = f"{number} signers share {number} nonces"
            for sign, (one, nonce, _), (slope, above, below) in zip(signs, ring, links, strict=True):
                signature = self.edges[one][nonce]
                others = [self.edges[left][shared].ordinal for left, shared, right in ring for left in (left, right)]
                yield from self.report(signature, self.holders[one], one, d, what, others)
                d = int((sign * (slope * d + above) - below) % order)
            return


def _signs(key: Signer) -> tuple[int, ...]:
    """What r leaves open: an x coordinate belongs to k and -k, a number modulo p and an Edwards point to k alone."""
    return (1, -1) if isinstance(key, EcPublicKey) else (1,)


def _way(came: Mapping[Signer, tuple[Signer, _Nonce] | None], end: Signer) -> list[tuple[Signer, _Nonce, Signer]]:
    """The steps that a search took to its end, in order."""
    steps = []
    while (step := came[end]) is not None:
        steps.append((step[0], step[1], end))
        end = step[0]
    return steps[::-1]

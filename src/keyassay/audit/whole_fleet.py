"""Fleet checks that look at all keys anew whenever one has come: nonces of signatures, related keys and others.

They have no store of earlier keys to compare with, and cost little a key, so that they run over everything that an
account (or the server) has ever had. Nonces and wrong signatures speak of a signer whose key is among them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from keyassay.audit.across_accounts import ELSEWHERE, anonymous
from keyassay.audit.fleet_pool import SERVER, Place, Pool, places_in, without_numbers
from keyassay.audit.fleet_verdicts import Findings
from keyassay.audit.verdicts import PublicFinding, public
from keyassay.bulk.fleet import fleet_of
from keyassay.bulk.results import Settings
from keyassay.bulk.scan import Plan, assess_items
from keyassay.certificates.item import Item
from keyassay.checks import Check, Context, check
from keyassay.findings import (
    Classification,
    Confidence,
    EcPrivateKey,
    Finding,
    NonceOfSigner,
    Profile,
    Severity,
)
from keyassay.output.values import plain

NONCES, RELATED = "fleet-signature-nonce", "fleet-related-ec-keys"
COMMON_ENDS, SUBPRIMES = "fleet-common-prefix", "fleet-shared-subprime"
FAULTS, SEEDS = "signature-rsa-fault", "rsa-weak-seed"
#: in this order: related keys begin at private keys that nonces gave away
CHECKS = (NONCES, RELATED, COMMON_ENDS, FAULTS, SEEDS, SUBPRIMES)

#: what accounts are told where the other key is another account's: of a key that is broken, and of one that is not
_ELSEWHERE = {
    NONCES: (f"its signatures, some of them in {ELSEWHERE}, give its private key away", ""),
    RELATED: (
        f"its private key follows from that of {ELSEWHERE}, which is broken",
        f"its private key differs by little from that of {ELSEWHERE}",
    ),
    COMMON_ENDS: ("", f"its modulus begins or ends with the same bits as that of {ELSEWHERE}"),
    FAULTS: (f"a faulty signature that it made, in {ELSEWHERE}, gives its private key away", ""),
    SUBPRIMES: (
        f"p - 1 and q - 1 have a large factor in common, which {ELSEWHERE} has too: p and q follow from it",
        f"its modulus less 1 shares a large factor with that of {ELSEWHERE}",
    ),
}


def checks_of(profile: Profile) -> tuple[Check[Any], ...]:
    """The checks that run in a profile."""
    return tuple(one for one in map(check, CHECKS) if one.runs_in(profile))


@dataclass
class Comparison:
    """All checks of a profile over a pool.

    Args:
        pool: an account's certificates, or all of the server.
        profile: of the checks.
        budget: CPU seconds for a key, by which profile deep goes.

    Attributes:
        failed: what a check could not do, by its id.
        remarks: what it left out because the budget was spent.
    """

    pool: Pool
    profile: Profile
    budget: float
    failed: dict[str, str] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)

    def run(self) -> Findings:
        """Findings; none of a check that failed."""
        found: dict[tuple[str, bytes, str], PublicFinding] = {}
        pool = self.pool
        for one in checks_of(self.profile):
            if pool.scope == SERVER and one.id == SEEDS:  # says nothing about other keys
                continue
            before = len(pool.fleet.notes)
            try:
                hits = self._hits(one)
                told = self._across(one, hits) if pool.scope == SERVER else [(hit, _told(hit)) for hit in hits]
            except Exception as error:  # noqa: BLE001  one failing check must not lose the others' findings
                self.failed[one.id] = f"internal error: {type(error).__name__}: {error}"
                continue
            for note in pool.fleet.notes[before:]:
                self._note(note.check, note.reason)
            for hit, finding in told:
                key = (pool.owners[hit.ordinal], pool.digests[hit.ordinal], one.id)
                if key not in found or finding.rank < found[key].rank:
                    found[key] = finding
        for note in sorted(self._context.notes, key=str):
            self._note(note.check, note.reason)
        return found

    def _note(self, check_id: str, reason: str) -> None:
        reason = reason.removesuffix("; raise --memory").replace("raise --budget", "raise --audit-budget")
        if reason.startswith(("not run", "internal error")):
            self.failed[check_id] = reason
        else:
            self.remarks.append(f"{check_id}: {reason}")

    @cached_property
    def _context(self) -> Context:
        return Context(profile=self.profile, budget=self.budget)

    def _hits(self, one: Check[Any]) -> list[_Hit]:
        hits = list(self._find(one))
        if one.id == RELATED and self._learn(hits):
            hits = list(self._find(one))
        return hits

    def _find(self, one: Check[Any]) -> Iterator[_Hit]:
        fleet = self.pool.fleet
        verdicts = sorted(one.find(fleet, self._context), key=lambda pair: pair[0])
        verdicts = [pair for pair in verdicts if not isinstance(pair[1].evidence, NonceOfSigner)]
        items = fleet.items(ordinal for ordinal, _ in verdicts)
        for (ordinal, verdict), item in zip(verdicts, items, strict=True):
            finding = one.finding(item.key if item.key is not None else item, verdict)
            if one.id != RELATED:  # it goes on from keys that others broke
                fleet.learn(ordinal, (finding,))
            yield _Hit(ordinal, item, finding)

    def _learn(self, hits: Sequence[_Hit]) -> bool:
        """Have the checks of single keys look at related keys: one of them may break all."""
        fleet = self.pool.fleet
        before = len(fleet.private_keys)
        plan = Plan.of(Settings(profile=self.profile, fleet=False), 0)
        results = assess_items([hit.item for hit in hits], replace(plan, certificate_checks=())) if hits else ()
        for hit, result in zip(hits, results, strict=True):
            fleet.learn(hit.ordinal, result.findings)
        return len(fleet.private_keys) > before

    # Among accounts

    def _across(self, one: Check[Any], hits: Sequence[_Hit]) -> list[tuple[_Hit, PublicFinding]]:
        """Hits that another account's certificate is part of, without a word of it."""
        told: list[tuple[_Hit, PublicFinding]] = []
        alone: dict[str, list[_Hit]] = {}
        for hit in hits:
            owner = self.pool.owners[hit.ordinal]
            if any(place.account_id != owner for place in hit.places):
                told.append((hit, _elsewhere(hit)))
            elif one.id == RELATED:
                alone.setdefault(owner, []).append(hit)
        for owner, members in alone.items():
            own = self._by_itself(one, owner, members)
            told += [(hit, _elsewhere(hit)) for hit, kind in zip(members, own, strict=True) if kind > hit.rank]
        return told

    def _by_itself(self, one: Check[Any], owner: str, hits: Sequence[_Hit]) -> list[int]:
        """How bad related keys of an account are without other accounts' keys, which may be links of the chain."""
        roots = {
            ordinal: d for ordinal, d in self.pool.fleet.private_keys.items() if self.pool.owners[ordinal] == owner
        }
        items = [*(hit.item for hit in hits), *self.pool.items(sorted(roots))]
        meta = one.metadata
        known = {
            len(hits) + position: [
                Finding(one.id, meta.version, Classification.BROKEN, *_AXES, meta.reason_code, "", EcPrivateKey(d))
            ]
            for position, (_, d) in enumerate(sorted(roots.items()))
        }
        ranks = [len(Classification)] * len(items)
        for position, verdict in one.find(fleet_of(items, self.pool.fleet.memory, findings=known), self._context):
            ranks[position] = min(ranks[position], (verdict.classification or meta.classification).rank)
        return ranks[: len(hits)]


_AXES = (Severity.CRITICAL, Confidence.PROVEN)


@dataclass(frozen=True)
class _Hit:
    """A finding of a check on a certificate of the pool."""

    ordinal: int
    item: Item
    finding: Finding

    @property
    def rank(self) -> int:
        """Of its class: 0 for broken."""
        return self.finding.classification.rank

    @property
    def places(self) -> list[Place]:
        """The places that its evidence names."""
        return places_in(json.dumps(plain(self.finding.evidence.describe())))


def _told(hit: _Hit) -> PublicFinding:
    """A finding as the account may know it that has all of the keys."""
    finding = public(hit.finding)
    evidence = json.loads(without_numbers(json.dumps(finding.evidence)))
    partners = [
        {"source": f"{place.called} {place.certificate_id}", "sha256": place.certificate_id} for place in hit.places
    ]
    if partners:
        evidence["partners"] = partners
    return replace(finding, message=without_numbers(finding.message), evidence=evidence)


def _elsewhere(hit: _Hit) -> PublicFinding:
    """A finding as an account may know it where another one's certificate is part of it."""
    finding = public(hit.finding)
    message = _ELSEWHERE[finding.check][finding.classification is not Classification.BROKEN]
    proof = finding.evidence.get("proof")
    return anonymous(finding, message, **({"proof": proof} if proof else {}))

"""Shared primes and repeated keys among the accounts of a server: found in all keys, told to each account apart.

What an account learns is that its key is weak because of a key of another account. Not which account, which
certificate, how many, nor anything that was computed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import gmpy2
import numpy as np

from keyassay.audit.fleet_pool import Pool, certificate, places_in
from keyassay.audit.fleet_verdicts import Findings
from keyassay.audit.verdicts import PublicFinding, public
from keyassay.bulk.store import Store
from keyassay.certificates.fleet import Earlier
from keyassay.certificates.item import Item
from keyassay.certificates.public_key import RsaPublicKey
from keyassay.checks import Context, check
from keyassay.checks.fleet_shared_prime import SHORT, SharedPrime
from keyassay.findings import Classification, Confidence, Severity, Verdict
from keyassay.storage.database import Database

SHARED_PRIME, REPEATED_KEY = "fleet-shared-prime", "fleet-repeated-key"

#: what stands in findings for whatever the other certificate is
ELSEWHERE = "a certificate of another account of this server"


def anonymous(finding: PublicFinding, message: str, **evidence: Any) -> PublicFinding:
    """A finding without anything of the other key: ``message`` and ``evidence`` in the place of its own."""
    return replace(finding, message=message, evidence={**evidence, "across_accounts": True, "verified": True})


def compare(database: Database, store: Store, pool: Pool) -> Findings:
    """What the pool's new keys have in common with keys of other accounts: findings on them, and on the store's."""
    keys = _Keys(database, store, pool)
    return {**_shared_primes(keys), **_repeated_keys(keys)}


def _shared_primes(keys: _Keys) -> Findings:
    pool = keys.pool
    found: dict[tuple[str, bytes, str], PublicFinding] = {}
    sharing: dict[int, tuple[int, Earlier]] = {}
    for ordinal, item, verdict in verdicts_of(pool, SHARED_PRIME):
        evidence, key = note_factors(sharing, item, verdict)
        owner = pool.owners[ordinal]
        if keys.holders(evidence.partner.source) - {owner}:
            found[owner, pool.digests[ordinal], SHARED_PRIME] = _shared(verdict, key)
    for modulus, part, holder in keys.store.divided_by(list(sharing)):
        evidence_of = partner_of(modulus, part, sharing)
        there = None if evidence_of is None else keys.certificate(holder.source)
        if evidence_of is None or there is None or not isinstance(there[1].key, RsaPublicKey):
            continue
        others = keys.holders(evidence_of.partner.source)
        finding = _shared(Verdict("", evidence_of), there[1].key)
        for account_id in keys.holders(holder.source):
            if others - {account_id}:
                found[account_id, there[0], SHARED_PRIME] = finding
    return found


def verdicts_of(pool: Pool, name: str) -> Iterator[tuple[int, Item, Verdict]]:
    """What a check says of the pool's certificates, by rising ordinals."""
    found = sorted(check(name).find(pool.fleet, Context()), key=lambda pair: pair[0])
    items = pool.items(ordinal for ordinal, _ in found)
    for (ordinal, verdict), item in zip(found, items, strict=True):
        yield ordinal, item, verdict


def note_factors(
    sharing: dict[int, tuple[int, Earlier]], item: Item, verdict: Verdict
) -> tuple[SharedPrime, RsaPublicKey]:
    """Keep both factors of a key that shares a prime, for ``partner_of``; the verdict's evidence, and the key."""
    evidence, key = verdict.evidence, item.key
    assert isinstance(evidence, SharedPrime)
    assert isinstance(key, RsaPublicKey)
    place = Earlier(item.source, item.index, item.sha256)
    for factor in (evidence.factor, key.modulus // evidence.factor):
        sharing.setdefault(int(factor), (int(key.modulus), place))
    return evidence, key


def partner_of(modulus: int, part: int, sharing: Mapping[int, tuple[int, Earlier]]) -> SharedPrime | None:
    """A proper factor of a modulus of the store, with a new key that has it, too.

    Args:
        modulus: of the store.
        part: what it has in common with all factors of the new keys that share a prime.
        sharing: these factors, each with the modulus and the place of such a new key.
    """
    for factor in (part, modulus // part, *(sharing if part not in sharing else ())):
        found = sharing.get(factor)
        common = int(gmpy2.gcd(factor, modulus))
        if found is not None and 1 < common < modulus and found[0] != modulus:
            return SharedPrime(common, found[0], found[1], earlier=False, sharing=1)
    return None


def _shared(verdict: Verdict, key: RsaPublicKey) -> PublicFinding:
    evidence = verdict.evidence
    assert isinstance(evidence, SharedPrime)
    bits = evidence.factor.bit_length()
    if evidence.factor == evidence.partner_modulus:
        message = f"its modulus is divisible by that of {ELSEWHERE}: it is no product of two primes of its own"
    elif bits < SHORT:
        message = f"its modulus shares a factor of {bits} bits with {ELSEWHERE}: the numbers are probably damaged"
    else:
        message = f"its modulus shares a prime of {bits} bits with {ELSEWHERE}: both private keys follow by division"
    finding = public(check(SHARED_PRIME).finding(key, verdict))
    return anonymous(finding, message, proof="shared factor", factor_bits=bits)


class _Keys:
    """The keys of all accounts: those of the store, and the pool's new ones."""

    def __init__(self, database: Database, store: Store, pool: Pool) -> None:
        self.store = store
        self.pool = pool
        self._database = database
        own, earlier = pool.fleet.identities, store.identities
        self._new = len(own)
        self._subjects = np.concatenate([own["subject"], earlier["subject"]])
        keys = np.concatenate([own["spki"], earlier["spki"]])
        self._order = np.argsort(keys, kind="stable")  # a key's new certificates come before those of the store
        self._ranked = keys[self._order]
        self._holders: dict[str, set[str]] = {}

    def certificate(self, source: str) -> tuple[bytes, Item] | None:
        """Digest of the key, and item, of the certificate at a place."""
        (place,) = places_in(source)
        with self._database.read() as connection:
            return certificate(connection, place.account_id, place.certificate_id)

    def holders(self, source: str) -> set[str]:
        """The accounts that have the key of the certificate at a place."""
        if source not in self._holders:
            (place,) = places_in(source)
            there = self.certificate(source)
            accounts = {place.account_id}
            if there is not None:
                wanted = np.bytes_(there[0][:16])
                start, end = (int(np.searchsorted(self._ranked, wanted, side=side)) for side in ("left", "right"))
                accounts |= {account_id for account_id, _, _ in self._rows(start, end)}
            self._holders[source] = accounts
        return self._holders[source]

    def _rows(self, start: int, end: int) -> Iterator[tuple[str, str, bytes]]:
        """Account, certificate and subject's digest of rows in the order of keys."""
        for row in self._order[start:end].tolist():
            (place,) = places_in(
                self.pool.fleet.item(row).source if row < self._new else self.store.place(row - self._new).source
            )
            yield place.account_id, place.certificate_id, bytes(self._subjects[row])

    def shared(self) -> Iterator[tuple[bytes, list[tuple[str, str, bytes]]]]:
        """Keys of the pool that several accounts have, with the rows of all certificates that have them."""
        if not self._new:
            return
        starts = np.flatnonzero(np.concatenate([[True], self._ranked[1:] != self._ranked[:-1]]))
        ends = np.append(starts[1:], len(self._ranked))
        wanted = (ends - starts > 1) & (self._order[starts] < self._new) & (self._ranked[starts] != b"")
        for group in np.flatnonzero(wanted).tolist():
            rows = list(self._rows(int(starts[group]), int(ends[group])))
            if len({row[0] for row in rows}) > 1:
                yield self.pool.digests[int(self._order[starts[group]])], rows


def _repeated_keys(keys: _Keys) -> Findings:
    meta = check(REPEATED_KEY).metadata
    found: dict[tuple[str, bytes, str], PublicFinding] = {}
    for digest, rows in keys.shared():
        for account_id in {row[0] for row in rows}:
            mine = {row[1]: row[2] for row in rows if row[0] == account_id}
            theirs = {row[2] for row in rows if row[0] != account_id and row[1] not in mine}
            if not theirs:  # the very same certificate, transferred or registered twice
                continue
            several = len(theirs.union(mine.values())) > 1
            message = (
                f"its key is also in {ELSEWHERE}: whoever has one of the devices has the private key of all"
                if several
                else f"its key was kept: {ELSEWHERE} with the same subject has it too"
            )
            finding = PublicFinding(
                meta.id,
                meta.version,
                Classification.WEAK if several else Classification.NOTICE,
                meta.severity if several else Severity.LOW,
                Confidence.PROVEN,
                meta.reason_code,
                message,
            )
            found[account_id, digest, REPEATED_KEY] = anonymous(finding, message, spki_sha256=digest.hex())
    return found

"""Who signed what in a run: the keys that may have made a signature, and the signatures that a key may have made."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from keyassay.certificates.fleet import Fleet
from keyassay.certificates.item import Item, Kind
from keyassay.certificates.public_key import DsaPublicKey, EcPublicKey, OkpPublicKey
from keyassay.certificates.signatures import AnySignature, EdwardsSignature, Signature, Signer, may_sign, order_of
from keyassay.keymath.curves import named_curve

#: keys of one name that an issuer may have
MOST_SIGNERS = 8
#: keys to which one signature may belong
_MOST_OWNERS = 4
_LOW = (1 << 64) - 1

S = TypeVar("S", Signature, EdwardsSignature)


def _in_range(signature: AnySignature, order: int) -> bool:
    return signature.s < order and (isinstance(signature, EdwardsSignature) or signature.r < order)


@dataclass
class Signers:
    """The signers of a run, by name and key identifier."""

    fleet: Fleet
    _known: dict[tuple[bytes, bytes | None, str], list[tuple[int, Signer]]] = field(default_factory=dict)

    @cached_property
    def _by_subject(self) -> tuple[NDArray[np.void], NDArray[np.intp]]:
        """Digests of subjects, sorted, with ordinals."""
        names = self.fleet.identities["subject"]
        order = np.argsort(names, kind="stable")
        return names[order], order

    def of(self, item: Item) -> list[tuple[int, Signer]]:
        """Keys of the run that may have signed an item, with the ordinal of an item that holds each (-1: its own)."""
        fields = item.signed
        if fields is None:
            return []
        if item.kind is Kind.REQUEST or (fields.issuer == fields.subject and item.kind is Kind.CERTIFICATE):
            key = item.key
            if isinstance(key, EcPublicKey | DsaPublicKey | OkpPublicKey) and may_sign(fields.signature_algorithm, key):
                return [(-1, key)]
            return []
        mark = (fields.issuer, fields.authority_key_identifier, fields.signature_algorithm)
        if mark not in self._known:
            names, order = self._by_subject
            name = np.array([hashlib.sha256(fields.issuer).digest()[:16]], dtype="S16")
            begin, end = (int(np.searchsorted(names, name, side=side)[0]) for side in ("left", "right"))
            found: list[tuple[int, Signer]] = []
            for ordinal in sorted(order[begin : min(end, begin + 64)].tolist()):
                other = self.fleet.item(ordinal)
                if not isinstance(other.key, EcPublicKey | DsaPublicKey | OkpPublicKey) or other.signed is None:
                    continue
                if not may_sign(fields.signature_algorithm, other.key):
                    continue
                theirs = other.signed.subject_key_identifier
                if mark[1] is not None and theirs is not None and theirs != mark[1]:
                    continue
                if len(found) < MOST_SIGNERS and all(other.key != key for _, key in found):
                    found.append((ordinal, other.key))
            self._known[mark] = found
        return self._known[mark]

    def holders(self, ordinal: int) -> list[int]:
        """All items that have the key of an item."""
        mine = self.fleet.identities["spki"][ordinal]
        return [int(one) for one in np.flatnonzero(self.fleet.identities["spki"] == mine)]

    def work_of(
        self, ordinals: Iterable[int], parse: Callable[[Item, int], S | None]
    ) -> tuple[dict[tuple[int, Signer], list[S]], list[S]]:
        """Signatures by signer.

        Args:
            ordinals: signed items, rising.
            parse: gives the signature of an item and its ordinal, if it is of the kind that is asked for.

        Returns:
            By (ordinal of the first item that holds the key, the key): signatures in order of issue, those of whoever
            may have made them. And signatures of signers that are not in the run.
        """
        dated: dict[tuple[int, Signer], list[tuple[tuple[int, int], S]]] = {}
        nobody: list[S] = []
        first: dict[Signer, int] = {}
        rows = list(ordinals)
        for ordinal, item in zip(rows, self.fleet.items(rows), strict=True):
            signature = parse(item, ordinal)
            if signature is None:
                continue
            signers = [
                (ordinal if holder < 0 else holder, key)
                for holder, key in self.of(item)
                if (order := order_of(key)) and _in_range(signature, order)
            ]
            fields = item.signed
            for signer in signers[:_MOST_OWNERS]:
                when = (fields.not_before or 0, fields.serial_number or 0) if fields is not None else (0, 0)
                holder, key = signer
                dated.setdefault((first.setdefault(key, holder), key), []).append((when, signature))
            if not signers:
                nobody.append(signature)
        made = {
            signer: [signature for _, signature in sorted(all_of, key=lambda one: (one[0], one[1].ordinal))]
            for signer, all_of in dated.items()
        }
        return made, nobody


def signed_with(fleet: Fleet, algorithms: Iterable[str]) -> Iterator[tuple[int, Item]]:
    """Ordinals and items signed with one of these algorithms (dotted OIDs)."""
    rows = fleet.signed_ordinals
    ordinals = sorted(ordinal for oid in algorithms if oid in rows for ordinal in rows[oid].tolist())
    return zip(ordinals, fleet.items(ordinals), strict=True)


def key_tails(fleet: Fleet) -> NDArray[np.uint64]:
    """Low 64 bits of the x coordinates of all keys on prime curves, also of x less the order where x reaches beyond.

    Sorted, each once: what r is if a nonce is a private key of the run.
    """
    xs: list[int] = []
    for name, (_, octets) in fleet.points.items():
        curve = named_curve(name)
        if curve is not None and not curve.binary:
            size = curve.field_bytes
            xs.extend(int.from_bytes(point[1 + size - 8 : 1 + size], "big") for point in octets if len(point) > size)
            if curve.order < curve.p:
                # x modulo the order: few x reach beyond it
                order = int(curve.order)
                heads = (int.from_bytes(point[1 : 1 + size], "big") for point in octets if len(point) > size)
                xs.extend((x - order) & _LOW for x in heads if x >= order)
    return np.unique(np.array(xs, dtype=np.uint64))

"""From encodings to items: strict parser as a gate, columns of offsets by arrays, a bounded walk for the rest.

``decode`` never raises; whatever it cannot read becomes an unreadable item with a reason.
"""

from __future__ import annotations

from collections.abc import Sequence

from keyassay.certificates.item import Item, RawItem, SignedFields
from keyassay.certificates.limits import DEFAULT_LIMITS, Limits


def decode(raw: Sequence[RawItem], limits: Limits = DEFAULT_LIMITS) -> list[Item]:
    """Items for raw items, one for one, in order."""
    raise NotImplementedError


def signed_fields(item: Item) -> SignedFields | None:
    """Names, validity and signature of an item, or None where it is not a signed structure."""
    raise NotImplementedError

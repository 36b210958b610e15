"""Attributes of things and thing groups: texts by name, replaced or merged, an empty value removes."""

from __future__ import annotations

from collections.abc import Mapping

from keyassay.registry.errors import InvalidError

#: attributes of a thing without a type, of one with a type, of a group (quotas of AWS)
UNTYPED, TYPED, OF_A_GROUP = 3, 50, 50


def combined(
    present: Mapping[str, str], given: Mapping[str, str] | None, *, merge: bool, most: int, whose: str
) -> dict[str, str]:
    """What the attributes are after an update.

    Args:
        present: before it.
        given: by the caller; None changes nothing.
        merge: keep what is not given.
        most: how many there may be.
        whose: "a thing without a type", for the message.

    Raises:
        InvalidError: more than there may be.
    """
    wanted = dict(present) if given is None else {**(present if merge else {}), **given}
    found = {name: value for name, value in wanted.items() if value}
    if len(found) > most:
        raise InvalidError(f"{whose} has at most {most} attributes")
    return found

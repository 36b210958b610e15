"""The library's front door: ``assay`` one encoding, ``assay_many`` of them; the package's docstring is the manual.

Both are ``Scan`` without files: the same reading, the same checks, the same results. Whoever needs progress, the
summary of a run or paths takes ``Scan`` itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from keyassay.bulk.results import Result, Settings
from keyassay.bulk.scan import Scan
from keyassay.certificates.item import Item, Kind
from keyassay.errors import KeyassayError
from keyassay.findings import Profile

#: what the front door takes: DER, PEM or any other form that a file may have
Encoded = bytes | bytearray | memoryview | str


def _bytes(encoded: Encoded) -> bytes:
    if isinstance(encoded, str):
        return encoded.encode("utf-8", "surrogateescape")
    if isinstance(encoded, bytes):
        return encoded
    if isinstance(encoded, (bytearray, memoryview)):
        return bytes(encoded)
    message = f"an encoding has to be bytes or text, not {type(encoded).__name__}"
    hint = "a file is read by Path.read_bytes(), a certificate object gives public_bytes()"
    raise KeyassayError(message, hint)


def _settings(profile: Profile | str, budget: float | None, settings: Settings | None) -> Settings:
    if isinstance(profile, str):
        try:
            profile = Profile[profile.upper()]
        except KeyError:
            known = ", ".join(one.label for one in Profile)
            raise KeyassayError(f"there is no profile {profile!r}", f"there are {known}") from None
    chosen = replace(settings or Settings(), profile=profile)
    if budget is None:
        return chosen
    if profile is not Profile.DEEP:
        raise KeyassayError(f"a budget is for profile deep, not for {profile.label}", 'add profile="deep"')
    if not 0 < budget < float("inf"):
        raise KeyassayError(f"a budget of {budget!r} is no number of seconds")
    return replace(chosen, budget=float(budget))


def assay(
    encoded: Encoded,
    *,
    profile: Profile | str = Profile.STANDARD,
    budget: float | None = None,
    settings: Settings | None = None,
) -> Result:
    """Assess one certificate, request or key.

    Args:
        encoded: DER or PEM, or another form that ``keyassay scan`` reads.
        profile: how much work it is worth: "aws", "fast", "standard" or "deep".
        budget: profile deep: CPU seconds for a key that nothing else breaks; 5 if not given.
        settings: more choices (checks, limits, passwords); its profile is overruled by ``profile``.

    Returns:
        The item with its findings. What cannot be read is an item of kind ``unreadable`` with its ``error``; so is
        an encoding that holds several items (``assay_many`` takes those).

    Raises:
        KeyassayError: wrong use: no bytes, an unknown profile or check, a budget for another profile than deep.
    """
    chosen = replace(_settings(profile, budget, settings), fleet=False, against=None, jobs=1)
    results = list(Scan((), chosen, encodings=[_bytes(encoded)]))
    if len(results) == 1:
        return results[0]
    reason = f"holds {len(results)} items: assay_many takes them" if results else "nothing to read here"
    return Result(Item("0", 0, 0, Kind.UNREADABLE, error=reason))


def assay_many(
    encodings: Iterable[Encoded],
    *,
    profile: Profile | str = Profile.STANDARD,
    budget: float | None = None,
    fleet: bool = True,
    against: Path | str | None = None,
    jobs: int = 1,
    settings: Settings | None = None,
) -> Iterator[Result]:
    """Assess many certificates, requests or keys, and compare them with each other.

    Args:
        encodings: as for ``assay``; each may hold any number of items. May be a generator: it is read as results
            are asked for (with ``fleet`` or profile deep all of it before the first result).
        profile: how much work a key is worth.
        budget: profile deep: CPU seconds for each different key that nothing else breaks; 5 if not given.
        fleet: find shared primes, repeated keys and nonces among them.
        against: folder of a store of earlier runs' keys, which these keys join.
        jobs: worker processes.
        settings: more choices; its profile, fleet, against and jobs are overruled.

    Yields:
        One result per item, in order: ``result.item.source`` is the position of the encoding as text,
        ``result.item.index`` counts the items within it.

    Raises:
        KeyassayError: as ``assay``, at once; an encoding of a wrong type when it is reached.
    """
    chosen = replace(
        _settings(profile, budget, settings), fleet=fleet, against=None if against is None else Path(against), jobs=jobs
    )
    return iter(Scan((), chosen, encodings=map(_bytes, encodings)))

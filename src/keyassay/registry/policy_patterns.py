"""Patterns of policies: texts with ``*``, ``?`` and variables (``${iot:ClientId}``), and what they match.

A ``Pattern`` is read once and matched often; who matches says what its variables stand for. A variable without a value
matches nothing, and one whose value nobody knows leaves open whether the pattern matches.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from enum import Enum
from functools import lru_cache
from typing import Final

_VARIABLE = re.compile(r"\$\{([^}]*)\}")
#: variables for characters that would be wildcards or begin a variable
_CHARACTERS = ("*", "?", "$")


class Unknown(Enum):
    """Has one member, which says that nobody knows a value."""

    VALUE = "unknown"


UNKNOWN: Final = Unknown.VALUE

#: what a variable stands for: a text, None if it has no value, UNKNOWN if nobody knows
Value = str | None | Unknown
Lookup = Callable[[str], Value]


class Wild(Enum):
    """What is not taken by the letter."""

    ANY = "*"
    ONE = "?"


Token = str | Wild


def pieces(pattern: str) -> Iterator[tuple[str | None, str]]:
    """Parts of a pattern: (name, letters) of a variable, (None, letters) between variables; nothing is empty."""
    start = 0
    for found in _VARIABLE.finditer(pattern):
        if found.start() > start:
            yield None, pattern[start : found.start()]
        yield found[1], found[0]
        start = found.end()
    if start < len(pattern):
        yield None, pattern[start:]


class Pattern:
    """A pattern that has been read.

    Args:
        text: as it stands in a policy.

    Attributes:
        text: the same.
        variables: names of its variables, as they are written.
    """

    __slots__ = ("_fixed", "_parts", "text", "variables")

    def __init__(self, text: str) -> None:
        self.text = text
        parts: list[tuple[str | None, tuple[Token, ...]]] = []
        for name, letters in pieces(text):
            if name is None:
                parts.append((None, tuple(_tokens(letters))))
            elif name in _CHARACTERS:
                parts.append((None, (name,)))
            else:
                parts.append((name, ()))
        self._parts = tuple(parts)
        self.variables = frozenset(name for name, _ in parts if name is not None)
        self._fixed = None if self.variables else _joined([one for _, tokens in parts for one in tokens])

    def resolved(self, lookup: Lookup) -> tuple[tuple[Token, ...], bool] | None:
        """The pattern with its variables filled in.

        Args:
            lookup: name of a variable -> what it stands for, by the letter.

        Returns:
            Tokens, no two texts next to each other, and whether all values were known (an unknown one is a ``*``
            there); None if a variable has no value.
        """
        if self._fixed is not None:
            return self._fixed, True
        tokens: list[Token] = []
        known = True
        for name, fixed in self._parts:
            if name is None:
                tokens += fixed
                continue
            value = lookup(name)
            if value is None:
                return None
            if isinstance(value, Unknown):
                known = False
                tokens.append(Wild.ANY)
            else:
                tokens.append(value)
        return _joined(tokens), known

    def matches(self, text: str, lookup: Lookup) -> bool | None:
        """Whether it matches a whole text; None if that depends on an unknown value."""
        found = self.resolved(lookup)
        if found is None or not fits(found[0], text):
            return False
        return True if found[1] else None


@lru_cache(maxsize=8192)
def read(text: str) -> Pattern:
    """A pattern, read once."""
    return Pattern(text)


def filled(text: str, lookup: Lookup) -> Value:
    """A text with its variables filled in, in which ``*`` and ``?`` are letters.

    Returns:
        None if a variable has no value, UNKNOWN if nobody knows it.
    """
    if "${" not in text:
        return text
    found = ""
    for name, letters in pieces(text):
        value = letters if name is None else name if name in _CHARACTERS else lookup(name)
        if not isinstance(value, str):
            return value
        found += value
    return found


def _tokens(letters: str) -> Iterator[Token]:
    for part in re.split(r"([*?])", letters):
        if part:
            yield Wild(part) if part in "*?" else part


def _joined(tokens: Sequence[Token]) -> tuple[Token, ...]:
    """Texts next to each other put together, empty ones left out, and of several ``*`` in a row one."""
    found: list[Token] = []
    for one in tokens:
        if one == "" or (one is Wild.ANY and found and found[-1] is Wild.ANY):
            continue
        if isinstance(one, str) and found and isinstance(found[-1], str):
            found[-1] += one
        else:
            found.append(one)
    return tuple(found)


def fits(tokens: Sequence[Token], text: str) -> bool:
    """Whether tokens match a whole text; each run between two ``*`` is taken at the first place where it fits."""
    runs: list[list[Token]] = [[]]
    for one in tokens:
        if one is Wild.ANY:
            runs.append([])
        else:
            runs[-1].append(one)
    at = _run_at(runs[0], text, 0)
    if len(runs) == 1:
        return at == len(text)
    if at < 0:
        return False
    for run in runs[1:-1]:
        at = _find(run, text, at)
        if at < 0:
            return False
    start = len(text) - sum(1 if one is Wild.ONE else len(one) for one in runs[-1] if one is not Wild.ANY)
    return start >= at and _run_at(runs[-1], text, start) == len(text)


def _run_at(run: Sequence[Token], text: str, at: int) -> int:
    """Where a run without ``*`` that begins at a place ends; -1 if it is not there."""
    for one in run:
        if isinstance(one, str):
            if not text.startswith(one, at):
                return -1
            at += len(one)
        elif at >= len(text):
            return -1
        else:
            at += 1
    return at


def _find(run: Sequence[Token], text: str, at: int) -> int:
    """Where the first occurrence of a run from a place on ends; -1 if there is none."""
    if len(run) == 1 and isinstance(run[0], str):
        found = text.find(run[0], at)
        return -1 if found < 0 else found + len(run[0])
    match = _expression(tuple(run)).search(text, at)
    return -1 if match is None else match.end()


@lru_cache(maxsize=4096)
def _expression(run: tuple[Token, ...]) -> re.Pattern[str]:
    return re.compile("".join(re.escape(one) if isinstance(one, str) else "." for one in run), re.DOTALL)


def after(tokens: Sequence[Token], beginning: str) -> set[tuple[Token, ...]]:
    """What is left of a pattern behind a beginning of texts.

    Args:
        tokens: of the pattern.
        beginning: of all texts that are asked for.

    Returns:
        Patterns: the text ``beginning + rest`` matches if and only if ``rest`` matches one of them.
    """
    return {_joined(one) for one in _after(tuple(tokens), beginning)}


def _after(tokens: tuple[Token, ...], beginning: str) -> set[tuple[Token, ...]]:
    places: set[tuple[Token, ...]] = set(_without_any(tokens))
    at = 0
    while at < len(beginning) and places:
        following: set[tuple[Token, ...]] = set()
        if len(places) == 1:  # one text by the letter, which nearly all patterns begin with
            (only,) = places
            if only and isinstance(only[0], str):
                common = min(len(only[0]), len(beginning) - at)
                if only[0][:common] != beginning[at : at + common]:
                    return set()
                rest = (only[0][common:], *only[1:]) if common < len(only[0]) else only[1:]
                places, at = set(_without_any(rest)), at + common
                continue
        letter = beginning[at]
        for place in places:
            if not place:
                continue
            first, rest = place[0], place[1:]
            if first is Wild.ANY:
                following.add(place)
            elif first is Wild.ONE:
                following.update(_without_any(rest))
            elif first[0] == letter:
                following.update(_without_any((first[1:], *rest) if len(first) > 1 else rest))
        # a ``*`` may also end here: what follows it is a place of its own
        places = {other for one in following for other in _without_any(one)}
        at += 1
    return places


def _without_any(tokens: tuple[Token, ...]) -> Iterator[tuple[Token, ...]]:
    """The tokens, and what they are once the ``*`` that they begin with has matched nothing."""
    yield tokens
    while tokens and tokens[0] is Wild.ANY:
        tokens = tokens[1:]
        yield tokens

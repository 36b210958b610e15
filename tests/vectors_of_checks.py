"""Reads tests/vectors/checks/<id>.toml: what each check has to find, and what it has to leave alone."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from keyassay.certificates.decoding import decode, item_of_key
from keyassay.certificates.item import Item
from keyassay.certificates.public_key import (
    DsaPublicKey,
    EcPublicKey,
    ExplicitParameters,
    OkpPublicKey,
    PublicKey,
    RsaPublicKey,
)
from keyassay.certificates.reading import ReadOptions, read_bytes
from keyassay.findings import Classification, Confidence, Profile

FOLDER = Path(__file__).parent / "vectors" / "checks"


@dataclass(frozen=True)
class Case:
    """One case: items, and the positions of those that must have the finding."""

    check: str
    name: str
    verdict: str
    profile: Profile
    classification: Classification | None
    confidence: Confidence | None
    items: tuple[Item, ...]
    weak: frozenset[int]
    private: dict[str, int]

    def __str__(self) -> str:
        return f"{self.check}: {self.name}"


def _integer(value: int | str) -> int:
    return value if isinstance(value, int) else int(value, 16)


def key_of(table: dict[str, Any]) -> PublicKey:
    """A key from its table."""
    kind = table["type"]
    if kind == "rsa":
        return RsaPublicKey(_integer(table["modulus"]), _integer(table.get("exponent", 65537)))
    if kind == "ec":
        parameters = None
        if "parameters" in table:
            given = table["parameters"]
            parameters = ExplicitParameters(
                given.get("field", "prime"),
                _integer(given["p"]),
                _integer(given["a"]),
                _integer(given["b"]),
                bytes.fromhex(given["generator"]),
                _integer(given["order"]),
                None if given.get("cofactor") is None else _integer(given["cofactor"]),
            )
        return EcPublicKey(table["curve"], bytes.fromhex(table["point"]), parameters)
    if kind == "dsa":
        return DsaPublicKey(*(_integer(table[name]) for name in "pqgy"))
    return OkpPublicKey(kind, bytes.fromhex(table["encoded"]))


def _items(table: dict[str, Any]) -> list[Item]:
    if "pem" in table:
        return [item for block in read_bytes(table["pem"].encode(), ReadOptions()) for item in decode(block)]
    return [item_of_key(key_of(table["key"]))]


def _case(check: str, table: dict[str, Any]) -> Case:
    items = [item for part in table["items"] for item in _items(part)] if "items" in table else _items(table)
    everything = range(len(items)) if table["verdict"] == "weak" else ()
    private = dict(table.get("private", {}))
    if "key" in table:
        private.update(table["key"].get("private", {}))
    return Case(
        check,
        table["name"],
        table["verdict"],
        Profile[table.get("profile", "standard").upper()],
        Classification(table["classification"]) if "classification" in table else None,
        Confidence(table["confidence"]) if "confidence" in table else None,
        tuple(items),
        frozenset(table.get("weak", everything)),
        {name: _integer(value) for name, value in private.items()},
    )


@cache
def cases() -> tuple[Case, ...]:
    """All cases of all vector files."""
    found = []
    for path in sorted(FOLDER.glob("*.toml")):
        content = tomllib.loads(path.read_text())
        found.extend(_case(path.stem, table) for table in content["case"])
    return tuple(found)


def cases_of(check: str) -> tuple[Case, ...]:
    """The cases of one check."""
    return tuple(case for case in cases() if case.check == check)

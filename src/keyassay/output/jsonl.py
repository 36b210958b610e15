"""JSON Lines, the contract for programs: one object a line, one line an item, in input order, clean items too.

docs/json-contract.md explains the fields, schema/item.schema.json defines them. A line of a clean item is put together
from parts that hardly ever change; ``json.dumps`` sees only what has findings.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from functools import lru_cache
from hashlib import sha256
from json.encoder import encode_basestring_ascii as quoted
from typing import TextIO

from keyassay.bulk.results import Result, StepReport, Summary
from keyassay.certificates.decoding import outline
from keyassay.certificates.item import Item, Kind
from keyassay.certificates.names import rfc4514, rfc4514_once
from keyassay.certificates.public_key import EcPublicKey, PublicKey, RsaPublicKey, UnsupportedPublicKey
from keyassay.findings import Finding
from keyassay.output import Options
from keyassay.output.values import error_text, evidence_fields, hex_number, key_fields

#: characters to gather before writing, and seconds after which they are written anyway
_BUFFER = 1 << 16
_PATIENCE = 0.25
#: longer issuers are not kept
_CACHED_BYTES = 1024

_KINDS = {kind: quoted(kind.value) for kind in Kind}
_NO_NAMES = '"subject": null, "issuer": null, "serial": null'


@lru_cache(maxsize=4096)
def _cached(der: bytes) -> str:
    return quoted(rfc4514(der))


def _issuer(der: bytes) -> str:
    # a cache must not grow with what an attacker sends
    return _cached(der) if len(der) <= _CACHED_BYTES else quoted(rfc4514(der))


@lru_cache(maxsize=256)
def _rsa(bits: int, exponent: int) -> str:
    shown: int | str = exponent if exponent <= 2**53 else f'"{exponent:x}"'
    return f'{{"type": "rsa", "bits": {bits}, "exponent": {shown}}}'


def _key(key: PublicKey | None) -> str:
    if key is None:
        return "null"
    if isinstance(key, RsaPublicKey):
        return _rsa(key.modulus.bit_length(), key.exponent)
    if isinstance(key, EcPublicKey) and key.parameters is None:
        return _curve(key.curve)
    return json.dumps(key_fields(key))


@lru_cache(maxsize=256)
def _curve(curve: str) -> str:
    return json.dumps(key_fields(EcPublicKey(curve, b"")))


class Lines:
    """Makes the lines of one run."""

    def __init__(self, summary: Summary, options: Options) -> None:
        """Prepare what all lines share: profile and catalogue."""
        self._options = options
        self._source = ""
        self._source_quoted = '""'
        self._run = f'"profile": {quoted(summary.profile.label)}, "catalogue": {quoted(summary.catalogue)}'
        self._clean = f', "findings": [], "assessed": true, "error": null, {self._run}, "not_run": []}}'

    def line(self, result: Result) -> str:
        """The object of one item, without a line end."""
        item = result.item
        if item.source != self._source:
            self._source = item.source
            self._source_quoted = quoted(item.source)
        # the hash of an enumeration's member is a call: nearly all items are certificates
        kind = '"certificate"' if item.kind is Kind.CERTIFICATE else _KINDS[item.kind]
        key = item.key
        start = (
            f'{{"source": {self._source_quoted}, "index": {item.index}, "kind": {kind}, {_names(item)}, '
            f'"sha256": {_digest(item.der)}, "spki_sha256": {_digest(item.spki)}, "key": {_key(key)}'
        )
        if result.findings or result.not_run or item.error is not None or item.notices or result.steps:
            return start + self._rest(result)
        if key is None or type(key) is UnsupportedPublicKey:
            return start + self._rest(result)
        return start + self._clean

    def _rest(self, result: Result) -> str:
        item = result.item
        findings = json.dumps([self._finding(item, finding) for finding in result.findings])
        not_run = json.dumps([{"check": one.check, "reason": one.reason} for one in result.not_run])
        notices = f', "notices": {json.dumps(list(item.notices))}' if item.notices else ""
        steps = f', "steps": {json.dumps([_step(one) for one in result.steps])}' if result.steps else ""
        return (
            f', "findings": {findings}, "assessed": {json.dumps(item.assessed)}, '
            f'"error": {json.dumps(error_text(item))}, {self._run}, "not_run": {not_run}{notices}{steps}}}'
        )

    def _finding(self, item: Item, finding: Finding) -> dict[str, object]:
        fields: dict[str, object] = {
            "check": finding.check,
            "class": finding.classification.value,
            "severity": finding.severity.value,
            "confidence": finding.confidence.value,
            "reason_code": finding.reason_code,
            "message": finding.message,
            "evidence": evidence_fields(finding, reveal=self._options.reveal),
        }
        acceptance = self._options.gate.acceptance(item, finding)
        if acceptance is not None:
            fields["accepted"] = {"reason": acceptance.reason, "expires": acceptance.expires.isoformat()}
        return fields


def _step(report: StepReport) -> dict[str, object]:
    return {
        "check": report.check,
        "step": report.step,
        "outcome": report.outcome.value,
        "detail": report.detail,
        "seconds": round(report.seconds, 3),
        "units": report.units,
    }


def _digest(encoding: bytes | None) -> str:
    return "null" if encoding is None else f'"{sha256(encoding).hexdigest()}"'


def _names(item: Item) -> str:
    """Subject, issuer and serial number; a request has no issuer, a plain key none of them."""
    parts = outline(item)
    if parts is not None:
        der, by, contents = parts
        serial = contents.hex()
        if contents[:1] > b"\x7f" or serial[:2] == "00":
            serial = hex_number(int.from_bytes(contents, "big", signed=True))
        subject = quoted(rfc4514_once(der)) if der else "null"
        return f'"subject": {subject}, "issuer": {_issuer(by) if by else "null"}, "serial": "{serial}"'
    fields = item.signed
    if fields is None:
        return _NO_NAMES
    subject = quoted(rfc4514(fields.subject)) if fields.subject else "null"
    issuer = _issuer(fields.issuer) if fields.issuer and item.kind is not Kind.REQUEST else "null"
    number = fields.serial_number
    serial = "null" if number is None else f'"{hex_number(number)}"'
    return f'"subject": {subject}, "issuer": {issuer}, "serial": {serial}'


def render(results: Iterable[Result], summary: Summary, stream: TextIO, options: Options) -> None:
    """Write a line per item as it comes; memory does not grow with the run."""
    lines = Lines(summary, options)
    waiting: list[str] = []
    size = 0
    written = time.monotonic()
    try:
        for result in results:
            line = lines.line(result)
            waiting.append(line)
            size += len(line)
            if size > _BUFFER or time.monotonic() - written > _PATIENCE:
                _write(stream, waiting)
                size = 0
                written = time.monotonic()
    finally:
        _write(stream, waiting)


def _write(stream: TextIO, waiting: list[str]) -> None:
    if waiting:
        waiting.append("")
        stream.write("\n".join(waiting))
        stream.flush()
        waiting.clear()

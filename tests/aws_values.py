"""Values for the shapes of AWS's service models, valid and invalid, from a seeded generator."""

from __future__ import annotations

import math
import random
import string
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import regex

#: Strings that some pattern of the model asks for and chance would not find.
SAMPLES = [
    "2001:db8::/32",
    "arn:aws:acm:us-east-1:123456789012:certificate/a-b",
    "arn:aws:iam::123456789012:role/x",
    "https://ingestion-a1.b2.sfdcnow.com/streams/s/x/event",
    "https://example.org/a?b=c",
    "p99.9",
    "LAST",
    "31",
    ",",
    "\r\n",
    "1.0",
    "0xAbC",
    "ab+/==",
    "0123456789abcdef0123456789abcdef0123",
    "2026-01-01",
]
ALPHABETS = [
    "aZ09 /+%&=?#~'\",;:@!$*()[]{}<>|\\^`_.-é日\u00a0\U0001f511",
    string.ascii_letters + string.digits + ":_-",
    string.ascii_letters + string.digits + "_-",
    string.ascii_uppercase + string.digits + "_",
    string.hexdigits[:16],
    string.digits,
    string.ascii_letters + string.digits,
]
PLAIN = string.ascii_letters + string.digits + ":/_-."


def fits(shape: Mapping[str, Any], text: str) -> bool:
    """The constraints of a string, read from the model without the code under test."""
    pattern = shape.get("pattern")
    flags = 0 if pattern and r"\p" in pattern else regex.ASCII
    return (
        shape.get("min", 0) <= len(text) <= shape.get("max", math.inf)
        and ("enum" not in shape or text in shape["enum"])
        and (not pattern or regex.fullmatch(pattern, text, flags) is not None)
    )


class Values:
    """A source of values.

    Args:
        shapes: of the model.
        seed: the same seed gives the same values.
        whole_seconds: timestamps without fraction, as botocore writes them into bodies.
    """

    def __init__(self, shapes: Mapping[str, Any], seed: str, *, whole_seconds: bool = False) -> None:
        self.shapes = shapes
        self.random = random.Random(seed)
        self.whole_seconds = whole_seconds

    def structure(self, shape: Mapping[str, Any], depth: int = 0) -> dict[str, Any]:
        chosen = {}
        for name, member in shape["members"].items():
            if (
                name in shape.get("required", ())
                or member.get("idempotencyToken")
                or self.random.random() < 0.6 / (1 + depth / 3)
            ):
                chosen[name] = self.value(member, depth + 1)
        return chosen

    def value(self, member: Mapping[str, Any], depth: int = 0) -> Any:
        shape = self.shapes[member["shape"]]
        kind = shape["type"]
        low, high = shape.get("min", 0), shape.get("max", 10**6)
        if kind == "structure":
            return self.structure(shape, depth)
        if kind == "list":
            return [self.value(shape["member"], depth + 1) for _ in range(self.random.randint(low, min(high, low + 3)))]
        if kind == "map":
            size = self.random.randint(low, min(high, low + 2))
            return {self.value(shape["key"], depth): self.value(shape["value"], depth + 1) for _ in range(size)}
        if kind == "string":
            return self.text(shape, member.get("location"))
        if kind in ("integer", "long"):
            bound = 2**31 - 1 if kind == "integer" else 2**63 - 1
            high = shape.get("max", bound)
            return self.random.choice([low, high, self.random.randint(low, high)])
        if kind == "double":
            return self.random.choice([float(low), 0.1 + low, 1e-9 + low])
        if kind == "boolean":
            return self.random.random() < 0.5
        if kind == "blob":
            return self.random.randbytes(self.random.randint(low, min(high, low + 40)))
        assert kind == "timestamp"
        moment = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(milliseconds=self.random.randrange(10**11))
        in_body = self.whole_seconds and member.get("location") is None
        return moment.replace(microsecond=0) if in_body else moment

    def text(self, shape: Mapping[str, Any], location: str | None) -> str:
        if "enum" in shape:
            return self.random.choice(shape["enum"])
        low = max(shape.get("min", 0), 1 if location else 0)
        high = shape.get("max", 10**6)
        alphabets = [PLAIN] if location == "header" else ALPHABETS
        for attempt in range(400):
            size = self.random.randint(low, min(high, low + (12 if attempt % 2 else 1)))
            alphabet = alphabets[attempt % len(alphabets)] if attempt > 8 else alphabets[0]
            text = "".join(self.random.choices(alphabet, k=size))
            if attempt > 100 and location != "header":
                text = self.random.choice(SAMPLES)
            if fits(shape, text) and not (location == "uri" and text.strip("/") in (".", "..", "")):
                if location == "uri" and ("//" in text or "/./" in text or "/../" in text):
                    continue
                return text
        raise AssertionError(f"no value for {shape}")


def violations(shapes: Mapping[str, Any], member: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Values of a member that its shape does not permit, each with the constraint in a word."""
    shape = shapes[member["shape"]]
    kind, location = shape["type"], member.get("location")
    if kind == "string":
        if "enum" in shape:
            yield "enum", "NO_SUCH_VALUE"
        elif "max" in shape and shape["max"] < 10000:
            sample = next(
                (
                    one
                    for one in "a0A-/"
                    if not shape.get("pattern") or fits({**shape, "max": 10**9, "min": 0}, one * (shape["max"] + 1))
                ),
                None,
            )
            if sample:
                yield "length", sample * (shape["max"] + 1)
        if shape.get("pattern") and "enum" not in shape:
            for wrong in ("é\x01", "\x01a", "ab c\x01"):
                wrong = wrong.ljust(shape.get("min", 0), "0")
                if not fits(shape, wrong) and location != "header":
                    yield "pattern", wrong
                    break
        if location is None:
            yield "string", 5
            yield "string", {"a": 1}
    elif kind in ("integer", "long"):
        if "max" in shape:
            yield "less than or equal", shape["max"] + 1
        if shape.get("min") is not None:
            yield "greater than or equal", shape["min"] - 1
        yield "less than or equal" if location is None else "", 2**63
        if location is None:
            yield "integer", "5"
            yield "integer", True
            yield "integer", 1.5
    elif kind == "boolean":
        if location is None:
            yield "true or false", "true"
    elif kind == "list":
        yield "list", {"a": 1}
        if "max" in shape and shapes[shape["member"]["shape"]]["type"] == "string":
            inner = shapes[shape["member"]["shape"]]
            yield "length less", [Values(shapes, "list").text(inner, None)] * (shape["max"] + 1)
    elif kind in ("map", "structure"):
        yield "object", [1]
        yield "object", "text"

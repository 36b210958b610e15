"""Values by their shape: JSON or text in, checked Python values out, and the way back.

A shape is a dict in the language of AWS service models (``type``, ``members``, ``required``, ``min``, ``max``,
``pattern``, ``enum``, ...). ``Shapes`` makes of each one a function that reads and one that writes; they are
built once and then cost about a microsecond a value. botocore's own validator knows only required members, types
and minima; all constraints are checked here, and names, null characters and lone surrogates too, which no
database takes.

Python values: string, integer, boolean, float as they are; timestamp = aware ``datetime`` in UTC; blob = bytes;
structure and map = dict; list = list. Absent and null members are left out, unknown ones ignored, as in AWS.
"""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, NoReturn

import regex

Shape = Mapping[str, Any]
Reader = Callable[[Any], Any]

#: Inclusive ranges of the integer types.
RANGES = {"integer": (-(2**31), 2**31 - 1), "long": (-(2**63), 2**63 - 1)}
#: Seconds since 1970 that a timestamp may have: years 1 to 9999, a day off each end.
EARLIEST, LATEST = -62135510400.0, 253402214400.0
#: Types that go out as they are: most members, without a call.
EXACT = {"string": str, "integer": int, "long": int, "boolean": bool}
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

ISO_8601 = regex.compile(
    r"(\d{4})-?(\d\d)-?(\d\d)"
    r"(?:[Tt ](\d\d):?(\d\d):?(\d\d)(?:\.(\d{1,9}))?(?:[Zz]|([+-])([01]\d|2[0-3]):?([0-5]\d))?)?",
    regex.ASCII,
)
INTEGER = regex.compile(r"[+-]?\d{1,19}", regex.ASCII)


class ConstraintError(Exception):
    """A value that its shape does not permit.

    Args:
        constraint: what the member must do or be, a sentence without a full stop.
    """

    def __init__(self, constraint: str) -> None:
        super().__init__(constraint)
        self.constraint = constraint
        #: names from the inside out; readers of structures add theirs when the error passes
        self.path: list[str] = []

    @property
    def message(self) -> str:
        """The sentence in AWS's form; it names the member and never quotes the value."""
        where = "".join(reversed(self.path)).removeprefix(".") or "body"
        return f"1 validation error detected: Value at '{where}' failed to satisfy constraint: {self.constraint}"


def refuse_null() -> NoReturn:
    """What happens to a required member, or an element, that is absent or null."""
    raise ConstraintError("Member must not be null")


def _length(shape: Shape, what: str) -> Callable[[Any], None] | None:
    """The check of min and max on ``len``; None if the shape has neither."""
    low, high = int(shape.get("min", 0)), shape.get("max")
    if not low and high is None:
        return None
    ceiling = math.inf if high is None else int(high)

    def check(value: Any) -> None:
        size = len(value)
        if size < low:
            raise ConstraintError(f"Member must have {what} greater than or equal to {low}")
        if size > ceiling:
            raise ConstraintError(f"Member must have {what} less than or equal to {ceiling}")

    return check


def _pattern(text: str) -> Callable[[str], Any]:
    r"""Java's reading of a pattern: ``\w`` and ``\d`` are ASCII, classes like ``\p{L}`` are Unicode's."""
    return regex.compile(text, 0 if r"\p" in text else regex.ASCII).fullmatch


def _string(shape: Shape) -> Reader:
    enum, text = shape.get("enum"), shape.get("pattern")
    allowed = frozenset(enum or ())
    length = _length(shape, "length")
    matches = _pattern(text) if text and text not in (r"[\s\S]*", ".*") else None

    def read(value: Any) -> str:
        if type(value) is not str:
            raise ConstraintError("Member must be a string")
        if enum:
            if value not in allowed:
                raise ConstraintError(f"Member must satisfy enum value set: [{', '.join(enum)}]")
            return value
        if "\0" in value:
            raise ConstraintError("Member must not contain null characters")
        if not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError:
                raise ConstraintError("Member must be valid Unicode") from None
        if length:
            length(value)
        if matches and not matches(value):
            raise ConstraintError(f"Member must satisfy regular expression pattern: {text}")
        return value

    return read


def _number(shape: Shape) -> Reader:
    kind = shape["type"]
    whole = kind in RANGES
    types, noun = ((int,), "an integer") if whole else ((int, float), "a number")
    low, high = RANGES.get(kind, (-math.inf, math.inf))
    low, high = max(low, shape.get("min", low)), min(high, shape.get("max", high))

    def read(value: Any) -> int | float:
        if type(value) not in types or not (whole or math.isfinite(value)):
            raise ConstraintError(f"Member must be {noun}")
        if value < low:
            raise ConstraintError(f"Member must have value greater than or equal to {low}")
        if value > high:
            raise ConstraintError(f"Member must have value less than or equal to {high}")
        return value  # type: ignore[no-any-return]

    return read


def _boolean(value: Any) -> bool:
    if type(value) is not bool:
        raise ConstraintError("Member must be true or false")
    return value


def _timestamp(value: Any) -> datetime:
    """A JSON number of seconds since 1970."""
    if type(value) not in (int, float) or not EARLIEST <= value <= LATEST:
        raise ConstraintError("Member must be a timestamp in seconds since 1970")
    return EPOCH + timedelta(microseconds=round(value * 1_000_000))


def _blob(shape: Shape) -> Reader:
    length = _length(shape, "length")

    def read(value: Any) -> bytes:
        if type(value) is not str:
            raise ConstraintError("Member must be a string in base64")
        try:
            data = base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            raise ConstraintError("Member must be a string in base64") from None
        if length:
            length(data)
        return data

    return read


def integer_from_text(text: str) -> int:
    """A decimal number of a query or path."""
    if not INTEGER.fullmatch(text):
        raise ConstraintError("Member must be an integer")
    return int(text)


def boolean_from_text(text: str) -> bool:
    """``true`` or ``false`` of a query."""
    if text not in ("true", "false"):
        raise ConstraintError("Member must be true or false")
    return text == "true"


def timestamp_from_text(text: str) -> datetime:
    """ISO 8601 with or without fraction and offset; without one it is UTC, as AWS's clients send it."""
    wrong = ConstraintError("Member must be a timestamp in ISO 8601")
    found = ISO_8601.fullmatch(text)
    if not found:
        raise wrong
    try:
        year, month, day, hour, minute, second, fraction, sign, hours, minutes = found.groups()
        moment = datetime(int(year), int(month), int(day), int(hour or 0), int(minute or 0), int(second or 0),
                          int((fraction or "").ljust(6, "0")[:6]), tzinfo=UTC)  # fmt: skip
        if sign:
            offset = timedelta(hours=int(hours), minutes=int(minutes))
            moment = moment - offset if sign == "+" else moment + offset
    except (ValueError, OverflowError):
        raise wrong from None
    if not EARLIEST <= moment.timestamp() <= LATEST:
        raise wrong
    return moment


FROM_TEXT: dict[str, Callable[[str], Any]] = {
    "string": lambda text: text,
    "integer": integer_from_text,
    "long": integer_from_text,
    "boolean": boolean_from_text,
    "timestamp": timestamp_from_text,
}


def seconds(value: Any) -> float:
    """A timestamp as AWS writes it: seconds since 1970 with milliseconds.

    Args:
        value: an aware datetime, or a number of seconds.

    Raises:
        TypeError: a datetime without time zone, or something else.
    """
    if isinstance(value, datetime):
        past = value - EPOCH
        return (past.days * 86_400_000 + past.seconds * 1000 + past.microseconds // 1000) / 1000
    if not isinstance(value, int | float):
        raise TypeError(f"{type(value).__name__} is no timestamp")
    return round(float(value), 3)


class Shapes:
    """Readers and writers of all shapes of a model, built on demand, by one thread.

    Args:
        named: shapes by name, as in a service model's ``shapes``. References are ``{"shape": NAME}``; a shape
            may also stand in the place of a reference, whole.
    """

    def __init__(self, named: Mapping[str, Shape]) -> None:
        self._named = named
        self._readers: dict[str, Reader] = {}
        self._writers: dict[str, Reader] = {}

    def resolve(self, reference: Shape) -> Shape:
        """The shape that a reference means."""
        return self._named[reference["shape"]] if "shape" in reference else reference

    def reader(self, reference: Shape) -> Reader:
        """The function that checks a JSON value; it raises ConstraintError."""
        return self._built(reference, self._readers, self._make_reader)

    def text_reader(self, reference: Shape) -> Reader:
        """The function that reads a value from text: path, query, header."""
        kind, read = self.resolve(reference)["type"], self.reader(reference)
        if kind == "string":
            return read
        convert = FROM_TEXT[kind]
        return convert if kind in ("boolean", "timestamp") else lambda text: read(convert(text))

    def writer(self, reference: Shape) -> Reader:
        """The function that makes a JSON value of a result; it raises TypeError for what does not fit the model."""
        return self._built(reference, self._writers, self._make_writer)

    def _built(self, reference: Shape, cache: dict[str, Reader], make: Callable[[Shape], Reader]) -> Reader:
        name = reference.get("shape")
        if name is None:
            return make(reference)
        if name not in cache:
            cache[name] = lambda value: cache[name](value)  # noqa: PLW0108  a shape that contains itself finds this
            cache[name] = make(self._named[name])
        return cache[name]

    def _make_reader(self, shape: Shape) -> Reader:
        kind = shape["type"]
        if kind == "structure":
            return self.structure_reader(shape, shape["members"])
        if kind == "list":
            return self._list_reader(shape)
        if kind == "map":
            return self._map_reader(shape)
        if kind in ("integer", "long", "double", "float"):
            return _number(shape)
        return {"string": _string, "boolean": lambda _: _boolean, "timestamp": lambda _: _timestamp, "blob": _blob}[
            kind
        ](shape)

    def structure_reader(self, shape: Shape, members: Mapping[str, Shape]) -> Reader:
        """A reader of the given members of a structure.

        Args:
            shape: the structure; says which members are required.
            members: those that stand in the JSON object (others may stand in the path or query).
        """
        required = shape.get("required", ())
        plan = [
            (name, member.get("locationName", name), self.reader(member), name in required)
            for name, member in members.items()
        ]

        def read(value: Any) -> dict[str, Any]:
            if type(value) is not dict:
                raise ConstraintError("Member must be an object")
            result = {}
            for name, key, reader, needed in plan:
                given = value.get(key)
                try:
                    if given is not None:
                        result[name] = reader(given)
                    elif needed:
                        refuse_null()
                except ConstraintError as error:
                    error.path.append(f".{key}")
                    raise
            return result

        return read

    def _list_reader(self, shape: Shape) -> Reader:
        reader, length = self.reader(shape["member"]), _length(shape, "length")

        def read(value: Any) -> list[Any]:
            if type(value) is not list:
                raise ConstraintError("Member must be a list")
            if length:
                length(value)
            result = []
            for index, element in enumerate(value):
                try:
                    if element is None:
                        refuse_null()
                    result.append(reader(element))
                except ConstraintError as error:
                    error.path.append(f"[{index}]")
                    raise
            return result

        return read

    def _map_reader(self, shape: Shape) -> Reader:
        key_reader, reader, length = self.reader(shape["key"]), self.reader(shape["value"]), _length(shape, "length")

        def read(value: Any) -> dict[str, Any]:
            if type(value) is not dict:
                raise ConstraintError("Member must be an object")
            if length:
                length(value)
            result = {}
            for key, element in value.items():
                try:
                    key_reader(key)
                except ConstraintError as error:
                    raise ConstraintError(f"Map keys must satisfy constraint: [{error.constraint}]") from None
                try:
                    if element is None:
                        refuse_null()
                    result[key] = reader(element)
                except ConstraintError as error:
                    error.path.append(f".{key[:64]}")
                    raise
            return result

        return read

    def _make_writer(self, shape: Shape) -> Reader:
        kind = shape["type"]
        if kind == "structure":
            return self.structure_writer(shape["members"])
        if kind == "list":
            element = self.writer(shape["member"])
            return lambda value: [element(one) for one in value]
        if kind == "map":
            element = self.writer(shape["value"])
            return lambda value: {key: element(one) for key, one in value.items()}
        if kind == "timestamp":
            return seconds
        if kind == "blob":
            return lambda value: base64.b64encode(value).decode("ascii")
        types = {"string": str, "boolean": bool, "integer": int, "long": int}.get(kind, (int, float))

        def write(value: Any) -> Any:
            if not isinstance(value, types) or (type(value) is bool) is not (types is bool):
                raise TypeError(f"the model wants {kind}, not {type(value).__name__}")
            return value

        return write

    def structure_writer(self, members: Mapping[str, Shape]) -> Reader:
        """A writer of a structure: absent and None members are left out, unknown ones are our own mistake."""
        plan = {
            name: (member.get("locationName", name), EXACT.get(self.resolve(member)["type"]), self.writer(member))
            for name, member in members.items()
        }

        def write(value: Any) -> dict[str, Any]:
            result = {}
            for name, given in value.items():
                if name not in plan:
                    raise TypeError(f"the model has no member {name!r} here")
                if given is not None:
                    key, exact, writer = plan[name]
                    result[key] = given if type(given) is exact else writer(given)
            return result

        return write

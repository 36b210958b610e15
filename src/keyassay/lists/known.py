"""Keys whose private half is known: those printed in RFCs, and the user's own lists of them.

A list holds SHA-256 of what each key is recognised by (``bare_number``), its type, and where it comes from. The list of
RFCs keeps the private numbers as well, so that a hit is a proof; a user's list holds hashes only, and primes of RSA
keys in a file of their own if the user wants them to be tried on all moduli.

Layout of a user's list ``NAME.known``, numbers little-endian: a header of 56 bytes (8 bytes "KAknown" and 1; count of
keys, bytes of the names, 4 bytes each; 8 zeros; SHA-256 of the rest), then columns sorted by hash: the first 8 bytes of
each hash as a big-endian number, its other 24 bytes, the number of its type and that of its source, 4 bytes each; last
the names of types, then of sources, each group ended by an empty one, each name by a zero. ``NAME.primes``: the same
header with "KAprime", count of primes and bytes of the names; then the length of each prime in bytes, 4 bytes each, and
the number of its source, 4 bytes each; then the primes, big-endian; last the names of sources, a zero between them.
"""

from __future__ import annotations

import hashlib
import os
import re
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import gmpy2
import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x448 import X448PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from numpy.typing import NDArray

from keyassay.certificates.decoding import decode
from keyassay.certificates.item import Kind
from keyassay.certificates.public_key import (
    EcPublicKey,
    ExplicitParameters,
    PublicKey,
    RsaPublicKey,
    UnsupportedPublicKey,
    bare_number,
)
from keyassay.certificates.reading import ReadOptions, read
from keyassay.errors import KeyassayError
from keyassay.keymath.curves import multiply, named_curves
from keyassay.lists.lookup import DATA, data_folder, write_atomically

#: name of the built-in list in reports
PUBLISHED = "published-rfc"
#: shorter numbers are no sure sign of one key, and no secret either (the least curves have 14)
LEAST_BYTES = 14
#: shorter primes would accuse strangers
LEAST_PRIME_BITS = 128

_HEADER = struct.Struct("<8sII8x32s")
_MAGIC = b"KAknown\x01"
_PRIMES_MAGIC = b"KAprime\x01"
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_U4 = np.dtype("<u4")


@dataclass(frozen=True, slots=True)
class KnownKey:
    """A key whose private half is known.

    Attributes:
        list_name: which list has it.
        key_type: "rsa", "dsa", "ed25519", ..., or the name of the curve.
        digest: SHA-256 of its bare number.
        source: the RFC and its section, or the file in the user's folder.
        secret: hexadecimal private numbers where the list keeps them: p and q; d; the private octets; x, p, q, g. Else
            empty.
    """

    list_name: str
    key_type: str
    digest: bytes
    source: str
    secret: tuple[str, ...] = ()


@dataclass(frozen=True)
class KnownList:
    """A list in memory, sorted by hash.

    Attributes:
        name: the list's.
        prefixes: first 8 bytes of the hashes.
        rests: their other 24 bytes, shape (keys, 24).
        types: numbers into ``type_names``.
        sources: numbers into ``source_names``.
        type_names, source_names: texts.
        secrets: private numbers by row, only where the list keeps them.
    """

    name: str
    prefixes: NDArray[np.uint64]
    rests: NDArray[np.uint8]
    types: NDArray[np.uint32]
    sources: NDArray[np.uint32]
    type_names: tuple[str, ...]
    source_names: tuple[str, ...]
    secrets: tuple[tuple[str, ...], ...] = ()

    def __len__(self) -> int:
        """Number of keys."""
        return len(self.prefixes)

    def key(self, row: int) -> KnownKey:
        """The key in that row."""
        digest = int(self.prefixes[row]).to_bytes(8, "big") + self.rests[row].tobytes()
        return KnownKey(
            self.name,
            self.type_names[int(self.types[row])],
            digest,
            self.source_names[int(self.sources[row])],
            self.secrets[row] if self.secrets else (),
        )

    def __iter__(self) -> Iterator[KnownKey]:
        """All of them, by rising hash."""
        return map(self.key, range(len(self)))

    def at(self, digest: bytes) -> Iterator[KnownKey]:
        """The keys of that hash: one, or several of different types."""
        prefix = np.uint64(int.from_bytes(digest[:8], "big"))
        first, last = (int(np.searchsorted(self.prefixes, prefix, side)) for side in ("left", "right"))
        for row in range(first, last):
            if self.rests[row].tobytes() == digest[8:]:
                yield self.key(row)


def _list_of(name: str, keys: Sequence[KnownKey]) -> KnownList:
    ordered = sorted(keys, key=lambda key: (key.digest, key.key_type))
    types = sorted({key.key_type for key in ordered})
    sources = sorted({key.source for key in ordered})
    type_numbers = {text: number for number, text in enumerate(types)}
    source_numbers = {text: number for number, text in enumerate(sources)}
    joined = np.frombuffer(b"".join([key.digest for key in ordered]), dtype=np.uint8).reshape(-1, 32)
    return KnownList(
        name,
        np.ascontiguousarray(joined[:, :8]).view(">u8").astype(np.uint64).reshape(-1),
        joined[:, 8:].copy(),
        np.array([type_numbers[key.key_type] for key in ordered], dtype=np.uint32),
        np.array([source_numbers[key.source] for key in ordered], dtype=np.uint32),
        tuple(types),
        tuple(sources),
        tuple(key.secret for key in ordered) if any(key.secret for key in ordered) else (),
    )


# What a key is recognised by


def _same_curve(given: ExplicitParameters) -> str:
    """The named curve that parameters spell out, generator and order included; "" if it is none."""
    for curve in named_curves().values():
        if (given.p, given.order) == (curve.p, curve.order) and curve.binary == (given.field == "binary"):
            size = curve.field_bytes
            same = given.a % curve.p == curve.a % curve.p and given.b % curve.p == curve.b % curve.p
            if same and given.generator[1 : 1 + size] == int(curve.gx).to_bytes(size, "big"):
                return curve.name
    return ""


def key_type(key: PublicKey) -> str:
    """The type that a known key has: "rsa", "dsa", "ed25519", ..., the curve's name; "" if there is none to compare."""
    if isinstance(key, EcPublicKey):
        return key.curve if key.parameters is None else _same_curve(key.parameters)
    return "" if isinstance(key, UnsupportedPublicKey) else key.type


def digest_of(key: PublicKey) -> bytes:
    """SHA-256 of what the key is recognised by, 32 bytes; empty for numbers too short to name one key."""
    number = bare_number(key)
    return hashlib.sha256(number).digest() if len(number) >= LEAST_BYTES else b""


def digest_of_secret(key: KnownKey) -> bytes:
    """SHA-256 of the bare number that the private numbers of a listed key make; empty if they make none."""
    kind = key.key_type
    if kind in _OKP:
        octets = _OKP[kind].from_private_bytes(bytes.fromhex(key.secret[0])).public_key().public_bytes_raw()
        return hashlib.sha256(octets).digest()
    numbers = [gmpy2.mpz(text, 16) for text in key.secret]
    if kind == "rsa":
        p, q = numbers
        sound = gmpy2.is_strong_bpsw_prp(p) and gmpy2.is_strong_bpsw_prp(q)
        return hashlib.sha256(gmpy2.to_binary(p * q)[:1:-1]).digest() if sound else b""
    if kind == "dsa":
        x, p, q, g = numbers
        sound = (p - 1) % q == 0 and 1 < g < p and gmpy2.powmod(g, q, p) == 1 and 0 < x < q
        return hashlib.sha256(gmpy2.to_binary(gmpy2.powmod(g, x, p))[:1:-1]).digest() if sound else b""
    curve = named_curves()[kind]
    point = multiply(curve, numbers[0], curve.base)
    return b"" if point is None else hashlib.sha256(int(point[0]).to_bytes(curve.field_bytes, "big")).digest()


_OKP: dict[str, Any] = {
    "ed25519": Ed25519PrivateKey,
    "ed448": Ed448PrivateKey,
    "x25519": X25519PrivateKey,
    "x448": X448PrivateKey,
}


# The built-in list


@cache
def published() -> KnownList:
    """The keys printed in RFCs, with their private numbers.

    Raises:
        KeyassayError: the list that came with the program cannot be read.
    """
    path = DATA / "known" / "rfc.tsv"
    keys = []
    try:
        for line in path.read_text("ascii").splitlines():
            if line and not line.startswith("#"):
                kind, digest, secret, source = line.split("\t")
                keys.append(KnownKey(PUBLISHED, kind, bytes.fromhex(digest), source, tuple(secret.split(" "))))
    except (OSError, ValueError) as error:
        raise KeyassayError(f"{path} cannot be read as a list: {error}", "reinstall keyassay") from error
    return _list_of(PUBLISHED, keys)


# The user's lists


def folder() -> Path:
    """Where the user's lists are (XDG)."""
    return _known_in(data_folder())


@cache
def _known_in(data: Path) -> Path:
    return data / "known"


def _pack(listed: KnownList) -> bytes:
    names = b"".join(
        b"".join(text.encode("utf-8", "surrogateescape") + b"\0" for text in group) + b"\0"
        for group in (listed.type_names, listed.source_names)
    )
    body = (
        listed.prefixes.astype("<u8").tobytes()
        + listed.rests.tobytes()
        + listed.types.astype("<u4").tobytes()
        + listed.sources.astype("<u4").tobytes()
        + names
    )
    return _HEADER.pack(_MAGIC, len(listed), len(names), hashlib.sha256(body).digest()) + body


def _contents(path: Path, magic: bytes) -> tuple[int, int, bytes]:
    """Count, second number and body of a file.

    Raises:
        KeyassayError: it cannot be read, or is damaged.
    """
    try:
        data = path.read_bytes()
        found, count, second, digest = _HEADER.unpack_from(data)
    except (OSError, struct.error) as error:
        raise KeyassayError(f"{path} cannot be read as a list: {error}", _AGAIN) from error
    body = data[_HEADER.size :]
    if found != magic or hashlib.sha256(body).digest() != digest:
        raise KeyassayError(f"{path} is damaged", _AGAIN)
    return count, second, body


_AGAIN = "delete it and make it again by `keyassay lists add`"


def _open(path: Path) -> KnownList:
    count, size, body = _contents(path, _MAGIC)
    at = 40 * count
    try:
        if len(body) != at + size or not body[at:].endswith(b"\0"):
            raise ValueError("lengths disagree")  # noqa: TRY301  one place says what is wrong
        types_text, sources_text = body[at:].split(b"\0\0", 1)
        sources_text = sources_text.removesuffix(b"\0").removesuffix(b"\0")
        listed = KnownList(
            path.stem,
            np.frombuffer(body, dtype="<u8", count=count),
            np.frombuffer(body, dtype=np.uint8, count=24 * count, offset=8 * count).reshape(-1, 24),
            np.frombuffer(body, dtype=_U4, count=count, offset=32 * count),
            np.frombuffer(body, dtype=_U4, count=count, offset=36 * count),
            tuple(text.decode() for text in types_text.split(b"\0")),
            tuple(text.decode("utf-8", "surrogateescape") for text in sources_text.split(b"\0")),
        )
        wrong = count and (
            int(listed.types.max()) >= len(listed.type_names) or int(listed.sources.max()) >= len(listed.source_names)
        )
    except ValueError as error:
        raise KeyassayError(f"{path} is damaged: {error}", _AGAIN) from error
    if wrong or np.any(listed.prefixes[1:] < listed.prefixes[:-1]):
        raise KeyassayError(f"{path} is damaged", _AGAIN)
    return listed


def _names() -> list[str]:
    try:
        return sorted(path.stem for path in folder().glob("*.known") if _NAME.fullmatch(path.stem))
    except OSError:
        return []


def _stamp() -> tuple[tuple[str, int, int], ...]:
    """Names, sizes and times of the user's files: tells whether what is in memory is current."""
    found = []
    with suppress(OSError):
        for entry in sorted(os.scandir(folder()), key=lambda one: one.name):
            with suppress(OSError):
                status = entry.stat()
                found.append((entry.path, status.st_size, status.st_mtime_ns))
    return tuple(found)


@cache
def _own(_state: tuple[tuple[str, int, int], ...]) -> tuple[tuple[KnownList, ...], tuple[str, ...]]:
    lists, problems = [], []
    for name in _names():
        try:
            lists.append(_open(folder() / f"{name}.known"))
        except KeyassayError as error:
            problems.append(str(error))
    return tuple(lists), tuple(problems)


def own() -> tuple[KnownList, ...]:
    """The user's lists that can be read, by name."""
    return _own(_stamp())[0]


def problems() -> tuple[str, ...]:
    """What is wrong with lists that cannot be read."""
    found = list(_own(_stamp())[1])
    found.extend(_primes_of_all(_stamp()).problems)
    return tuple(found)


# Primes


@dataclass(frozen=True)
class Primes:
    """The primes of all of the user's lists.

    Attributes:
        values: the primes.
        origins: (list, source) of each.
        problems: what is wrong with files that cannot be read.
    """

    values: tuple[gmpy2.mpz, ...] = ()
    origins: tuple[tuple[str, str], ...] = ()
    problems: tuple[str, ...] = ()

    @cached_property
    def numbers(self) -> frozenset[gmpy2.mpz]:
        """The primes as a set."""
        return frozenset(self.values)

    def factor(self, modulus: gmpy2.mpz) -> int | None:
        """Number of the first prime that divides a modulus properly."""
        for number, prime in enumerate(self.values):
            if modulus % prime == 0 and prime < modulus:
                return number
        return None


def primes() -> Primes:
    """The primes that the user keeps."""
    return _primes_of_all(_stamp())


@cache
def _primes_of_all(_state: tuple[tuple[str, int, int], ...]) -> Primes:
    values: dict[gmpy2.mpz, tuple[str, str]] = {}
    problems = []
    for name in _names():
        path = folder() / f"{name}.primes"
        if path.exists():
            try:
                for prime, source in _read_primes(path):
                    values.setdefault(gmpy2.mpz(prime), (name, source))
            except KeyassayError as error:
                problems.append(str(error))
    return Primes(tuple(values), tuple(values.values()), tuple(problems))


def _read_primes(path: Path) -> list[tuple[int, str]]:
    count, size, body = _contents(path, _PRIMES_MAGIC)
    try:
        lengths = np.frombuffer(body, dtype=_U4, count=count).tolist()
        numbers = np.frombuffer(body, dtype=_U4, count=count, offset=4 * count).tolist()
        text = body[len(body) - size :].decode("utf-8", "surrogateescape")
        sources = text.split("\0")
        if 8 * count + sum(lengths) + size != len(body):
            raise ValueError("lengths disagree")  # noqa: TRY301  one place says what is wrong
        at, found = 8 * count, []
        for length, number in zip(lengths, numbers, strict=True):
            found.append((int.from_bytes(body[at : at + length], "big"), sources[number]))
            at += length
    except (ValueError, IndexError) as error:
        raise KeyassayError(f"{path} is damaged: {error}", _AGAIN) from error
    return found


def _pack_primes(found: dict[int, str]) -> bytes:
    sources = sorted(set(found.values()))
    numbers = {text: number for number, text in enumerate(sources)}
    octets = [prime.to_bytes((prime.bit_length() + 7) // 8, "big") for prime in found]
    text = "\0".join(sources).encode("utf-8", "surrogateescape")
    body = (
        np.array([len(one) for one in octets], dtype=_U4).tobytes()
        + np.array([numbers[source] for source in found.values()], dtype=_U4).tobytes()
        + b"".join(octets)
        + text
    )
    return _HEADER.pack(_PRIMES_MAGIC, len(found), len(text), hashlib.sha256(body).digest()) + body


# Look-up


def find(digest: bytes) -> list[KnownKey]:
    """The known keys behind a whole SHA-256 of a bare number, those of RFCs first."""
    return [key for listed in (published(), *own()) for key in listed.at(digest)]


def find_many(prefixes: NDArray[np.uint64]) -> list[int]:
    """Rows whose first 8 bytes of SHA-256 are in a list: candidates for ``find``.

    Args:
        prefixes: first 8 bytes as big-endian numbers, any order.
    """
    hits = np.zeros(len(prefixes), dtype=bool)
    for listed in (published(), *own()):
        if len(listed):
            places = np.searchsorted(listed.prefixes, prefixes)
            hits |= listed.prefixes[np.minimum(places, len(listed) - 1)] == prefixes
    return [int(row) for row in np.flatnonzero(hits)]


# Adding


@dataclass
class Report:
    """What ``add`` did.

    Attributes:
        path: the list.
        added: keys that are new in the list.
        already: keys that were in it.
        primes: primes kept that are new.
        total: keys in the list now.
        left_out: (place, reason) of private keys that were not added.
        unreadable: (place, reason) of what could not be read.
        public: certificates and public keys met, which are not added.
        passed_over: files without anything of ours.
    """

    path: Path
    added: int = 0
    already: int = 0
    primes: int = 0
    total: int = 0
    left_out: list[tuple[str, str]] = field(default_factory=list)
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    public: int = 0
    passed_over: int = 0


def add(source: Path, name: str, *, with_primes: bool = False, passwords: tuple[bytes, ...] = ()) -> Report:
    """Add the private keys of a folder to one of the user's lists: their hashes, and primes if they are wanted.

    Nothing else is taken: a certificate or public key in the folder says nothing of who knows its private key.

    Args:
        source: a folder, searched through, or a file.
        name: the list, made if there is none of that name.
        with_primes: keep the primes of RSA keys too, in a file of their own.
        passwords: for encrypted keys and key stores.

    Raises:
        KeyassayError: the name is none, the source is not there, the list is damaged or cannot be written.
    """
    if not _NAME.fullmatch(name) or name == PUBLISHED:
        raise KeyassayError(
            f"{name!r} is no name for a list", "names are lower-case letters, digits and . _ -, at most 64"
        )
    if not source.exists():
        raise KeyassayError(f"there is no {str(source)!r}", "FOLDER has to exist")
    path = folder() / f"{name}.known"
    report = Report(path)
    keys, found_primes = _private_keys(source, report, passwords, with_primes=with_primes)
    with _locked(path):
        merged = {(key.digest, key.key_type): key for key in (_open(path) if path.exists() else ())}
        for key in keys:
            identity = (key.digest, key.key_type)
            if identity in merged:
                report.already += 1
            else:
                merged[identity] = KnownKey(name, key.key_type, key.digest, key.source)
                report.added += 1
        report.total = len(merged)
        if report.added:
            _write(path, _pack(_list_of(name, list(merged.values()))))
        if found_primes:
            beside = path.with_suffix(".primes")
            kept = dict(_read_primes(beside)) if beside.exists() else {}
            fresh = {prime: origin for prime, origin in found_primes.items() if prime not in kept}
            report.primes = len(fresh)
            if fresh:
                _write(beside, _pack_primes({**kept, **fresh}))
    return report


def _private_keys(
    source: Path, report: Report, passwords: tuple[bytes, ...], *, with_primes: bool
) -> tuple[list[KnownKey], dict[int, str]]:
    """Hashes of the private keys below a folder, and the primes."""
    private: dict[tuple[str, int], tuple[int, ...]] = {}

    def note(name: str, position: int, primes: tuple[int, ...]) -> None:
        private[name, position] = primes

    def pass_over(_name: str) -> None:
        report.passed_over += 1

    keys: list[KnownKey] = []
    primes: dict[int, str] = {}
    base = str(source)
    options = ReadOptions(passwords=passwords, private_keys=note, passed_over=pass_over)
    for block in read([base], options):
        for item in decode(block):
            place = item.source.replace("\0", "?")
            place = place if item.source == base else place.removeprefix(base.rstrip("/") + "/")
            if item.kind is Kind.UNREADABLE:
                report.unreadable.append((f"{place}[{item.index}]", item.error or ""))
                continue
            numbers = private.pop((item.source, item.index), None)
            if numbers is None or item.key is None:
                report.public += item.key is not None
                continue
            digest = digest_of(item.key)
            kind = key_type(item.key)
            if isinstance(item.key, UnsupportedPublicKey):
                report.left_out.append((f"{place}[{item.index}]", item.key.reason))
            elif not digest or not kind:
                report.left_out.append((f"{place}[{item.index}]", "nothing in it tells it from other keys"))
            else:
                keys.append(KnownKey("", kind, digest, place))
                if with_primes and isinstance(item.key, RsaPublicKey):
                    usable = _usable(numbers, item.key.modulus)
                    if not usable:
                        report.left_out.append(
                            (f"{place}[{item.index}]", "kept without its primes: they are not there")
                        )
                    for prime in usable:
                        primes.setdefault(prime, place)
    return keys, primes


def _usable(numbers: tuple[int, ...], modulus: int) -> tuple[int, ...]:
    """The two primes of a modulus, () if they are not that: a composite or tiny one would accuse strangers."""
    if len(numbers) != 2 or numbers[0] * numbers[1] != modulus:
        return ()
    if any(prime.bit_length() < LEAST_PRIME_BITS or not gmpy2.is_strong_bpsw_prp(prime) for prime in numbers):
        return ()
    return numbers


def _write(path: Path, data: bytes) -> None:
    try:
        write_atomically(path, data, mode=0o600)
    except OSError as error:
        raise _closed(path, error) from error


def _closed(path: Path, error: OSError) -> KeyassayError:
    return KeyassayError(
        f"{path} cannot be written: {error.strerror or error}", "set XDG_DATA_HOME to a folder that can be written"
    )


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the folder of lists, readable by its owner only, while a list is read and written."""
    import fcntl  # noqa: PLC0415  only additions need a system that has it, scans do not

    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.parent.chmod(0o700)
        handle = os.open(path.parent / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise _closed(path, error) from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)

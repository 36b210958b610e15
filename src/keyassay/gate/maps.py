"""What a gate lets in: map files, the same maps in HAProxy, and their twin in the agent's memory.

A change goes to the file first, then to HAProxy; each step can be repeated. Files are the truth after a crash:
HAProxy is brought in line with them, and whatever the files do not have yet is asked of the registry again.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from keyassay.errors import KeyassayError
from keyassay.gate.rendering import LONGEST_CLIENT_ID, MAPS, GateSettings
from keyassay.gate.runtime import Runtime

#: blocked certificates that may stay in the other maps before those are rewritten without them, and deleted ones that
#: may stay in blocked.map
COMPACT_AT = 1_000
#: seconds after which they are rewritten even for a single one
COMPACT_AFTER = 600.0
#: entries that HAProxy would walk over for deletions and changes (each walks over its whole map) from which on the map
#: is replaced as a whole: about half a second
_WALK_LIMIT = 5_000_000
_NOBODY = "keyassay gate: no authority"
_ID = re.compile(r"[0-9a-f]{64}")
_ENCODED = r"(?:[A-Za-z0-9._~-]|%[0-9A-F]{2})"
_LINES = {
    "active": re.compile(rf"([0-9a-f]{{64}}) (A:(?:\*|{_ENCODED}*))"),
    "blocked": re.compile(r"([0-9a-f]{64}) (B)"),
    "pairs": re.compile(rf"([0-9a-f]{{64}}/{_ENCODED}+) (1)"),
    "things": re.compile(rf"({_ENCODED}+) (1)"),
    "exacts": re.compile(rf"([0-9a-f]{{64}}/{_ENCODED}+) (1)"),
    "prefixes": re.compile(rf"([0-9a-f]{{64}}/{_ENCODED}*) (1)"),
    "sync": re.compile(r"(synced|revision|epoch) (\S+)"),
}
_REFUSED = re.compile(r"%(?:[01].|7F|2F|2B|23)")


class Rights(NamedTuple):
    """What an ACTIVE certificate may call itself, client ids encoded as in the maps.

    ``value`` is its line in active.map, None if it has none there; ``pairs`` are things, ``exacts`` other ids.
    """

    value: str | None = None
    pairs: frozenset[str] = frozenset()
    exacts: frozenset[str] = frozenset()
    prefixes: frozenset[str] = frozenset()


_NONE = Rights()
_SETS = ("pairs", "exacts", "prefixes")


def encoded(client_id: str) -> str:
    """A client id as HAProxy's ``url_enc`` writes it: letters, digits, ``-._~``, and %XX."""
    return quote(client_id, safe="")


def usable(client_id: str) -> bool:
    """Whether a gate lets in a client id at all: 1 to 128 bytes, no ``/ + #``, no control characters."""
    try:
        size = len(client_id.encode())
    except UnicodeEncodeError:
        return False
    return 0 < size <= LONGEST_CLIENT_ID and _REFUSED.search(encoded(client_id)) is None


def rights_of(entry: dict[str, Any]) -> Rights:
    """The rights in an entry of the registry; unusable client ids are left out, never widened.

    Args:
        entry: ACTIVE, as the source gives it.
    """
    things = [encoded(name) for name in entry["things"] if usable(name)]
    exacts = frozenset(encoded(name) for name in entry["exact"] if usable(name)) - frozenset(things)
    # a prefix itself is no client id: an empty one would be "anything", and is taken as such
    anything = entry["anything"] or "" in entry["prefixes"]
    prefixes = frozenset(encoded(start) for start in entry["prefixes"] if start and usable(start))
    if anything:
        return Rights("A:*", frozenset(things), exacts, prefixes)
    return Rights("A:" + (things[0] if things else ""), frozenset(things[1:]), exacts, prefixes)


def write_atomically(path: Path, text: str) -> None:
    """Replace a file so that a crash leaves the old or the new one, mode 0600.

    Raises:
        OSError: it cannot be written.
    """
    temporary = path.with_name(path.name + ".new")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def prepare(settings: GateSettings) -> None:
    """Make the files that HAProxy wants at its start, where they are missing.

    Raises:
        KeyassayError: the folder cannot be written.
    """
    try:
        settings.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in MAPS:
            if not settings.map(name).exists():
                write_atomically(settings.map(name), "synced 0\nrevision 0\nepoch -\n" if name == "sync" else "")
        if not settings.authorities.exists():
            write_atomically(settings.authorities, nobody())
    except OSError as error:
        raise KeyassayError(f"{settings.folder}: {error.strerror}") from None


def nobody() -> str:
    """An authority whose key nobody has, PEM: HAProxy does not start with an empty file."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, _NOBODY)])
    start = datetime.now(UTC) - timedelta(days=1)
    made = x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(key.public_key())
    made = made.serial_number(x509.random_serial_number())
    made = made.not_valid_before(start).not_valid_after(start + timedelta(days=2))
    return made.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()


def is_nobody(pem: str) -> bool:
    """Whether a file of authorities has nothing but what ``nobody`` makes."""
    try:
        found = x509.load_pem_x509_certificates(pem.encode())
    except ValueError:
        return False
    return [one.subject.rfc4514_string() for one in found] == [f"CN={_NOBODY}"]


class Maps:
    """The maps of one gate. One thread changes them; others may ask.

    Args:
        settings: of the gate.
        runtime: its HAProxy.
        after_step: called with the name of each step that was just done, for tests of crashes.

    Attributes:
        damaged: a file had lines that are none; what is missing has to come from a snapshot.
    """

    def __init__(
        self, settings: GateSettings, runtime: Runtime, after_step: Callable[[str], None] = lambda _: None
    ) -> None:
        self._settings = settings
        self._runtime = runtime
        self._after_step = after_step
        self._lock = threading.RLock()
        self._rights: dict[str, Rights] = {}
        self._blocked: set[str] = set()
        self._things: set[str] = set()
        self._sync: dict[str, str] = {}
        self._compacted = time.monotonic()
        #: blocked certificates that still have rights in the maps
        self._leftover: set[str] = set()
        #: blocked certificates that the account does not have any more; those of an earlier process stay blocked
        self._gone: set[str] = set()
        self.damaged = False
        self._load()

    # state

    @property
    def revision(self) -> int:
        """Of the registry's feed: everything up to it has been carried out."""
        return int(self._sync["revision"])

    @property
    def epoch(self) -> str:
        """Of the registry's feed; empty before the first snapshot."""
        epoch = self._sync["epoch"]
        return "" if epoch == "-" or self.damaged else epoch

    @property
    def counts(self) -> dict[str, int]:
        """How many certificates are let in, blocked, and how many things there are."""
        with self._lock:
            return {
                "active": len(self._rights) - len(self._leftover),
                "blocked": len(self._blocked),
                "things": len(self._things),
            }

    def permits(self, certificate_id: str, client: str) -> bool:
        """Whether a connection may stand, by the rules that HAProxy has.

        Args:
            certificate_id: 64 lower-case hexadecimal digits.
            client: its client id, encoded.
        """
        with self._lock:
            rights = self._rights.get(certificate_id)
            if rights is None or rights.value is None or certificate_id in self._blocked:
                return False
            if not client or _REFUSED.search(client):
                return False
            if rights.value == f"A:{client}" or client in rights.pairs:
                return True
            if client in self._things:
                return False
            return (
                client in rights.exacts or rights.value == "A:*" or any(client.startswith(p) for p in rights.prefixes)
            )

    def _load(self) -> None:
        """Read the files; lines that are none are left out and make the state ``damaged``."""
        found = {name: dict(self._read(name)) for name in MAPS}
        self._sync = {"synced": "0", "revision": "0", "epoch": "-"} | found["sync"]
        if not self._sync["revision"].isdigit() or not self._sync["synced"].isdigit():
            self._sync |= {"revision": "0", "epoch": "-", "synced": "0"}
        parts: dict[str, dict[str, set[str]]] = {name: {} for name in _SETS}
        for name in _SETS:
            for key in found[name]:
                parts[name].setdefault(key[:64], set()).add(key[65:])
        for certificate_id in {*found["active"], *(key for part in parts.values() for key in part)}:
            sets = [frozenset(parts[name].get(certificate_id, ())) for name in _SETS]
            self._rights[certificate_id] = Rights(found["active"].get(certificate_id), *sets)
        self._blocked = set(found["blocked"])
        self._things = set(found["things"])
        self._leftover = self._blocked & self._rights.keys()

    def _read(self, name: str) -> Iterator[tuple[str, str]]:
        try:
            text = self._settings.map(name).read_text("ascii", "replace")
        except OSError as error:
            raise KeyassayError(f"{self._settings.map(name)}: {error.strerror}") from None
        whole = text.endswith("\n") or not text
        lines = text.splitlines()
        if not whole:
            lines.pop()
        self.damaged = self.damaged or not whole
        pattern = _LINES[name]
        for line in lines:
            matched = pattern.fullmatch(line)
            if matched is None:
                self.damaged = True
            else:
                yield matched[1], matched[2]

    def _lines(self, name: str) -> dict[str, str]:
        """The whole content of a map."""
        if name == "sync":
            return dict(self._sync)
        if name == "blocked":
            return dict.fromkeys(self._blocked, "B")
        if name == "things":
            return dict.fromkeys(self._things, "1")
        if name == "active":
            return {one: rights.value for one, rights in self._rights.items() if rights.value is not None}
        place = 1 + _SETS.index(name)
        # most certificates have nothing there
        return {f"{one}/{client}": "1" for one, rights in self._rights.items() for client in _set(rights, place)}

    def _write(self, name: str) -> None:
        text = "".join([f"{key} {value}\n" for key, value in self._lines(name).items()])
        write_atomically(self._settings.map(name), text)
        self._after_step(f"{name} file")

    # changes

    def block(self, certificate_ids: Iterable[str], *, gone: Collection[str] = ()) -> set[str]:
        """Let certificates in no more: blocked.map, file and HAProxy.

        Args:
            certificate_ids: which.
            gone: those of them that the account does not have (any more); ``compact`` forgets them.

        Returns:
            Those that were not blocked before.

        Raises:
            HaproxyError: HAProxy does not answer; the file has them all the same.
            OSError: the file cannot be written.
        """
        with self._lock:
            all_of_them = {one for one in certificate_ids if _ID.fullmatch(one)}
            self._gone = (self._gone - all_of_them) | (all_of_them & set(gone))
            new = all_of_them - self._blocked
            if not new:
                return new
            lines = dict.fromkeys(sorted(new), "B")
            with self._settings.map("blocked").open("a") as file:
                file.write("".join(f"{one} B\n" for one in lines))
                file.flush()
                os.fsync(file.fileno())
            self._blocked |= new
            self._leftover |= new & self._rights.keys()
            self._after_step("blocked file")
            self._runtime.add(self._settings.map("blocked"), lines.items())
            self._after_step("blocked in HAProxy")
        return new

    def admit(self, rights: dict[str, Rights]) -> bool:
        """Let certificates in by these rights, which replace what they had.

        What is taken away goes first; the block is lifted last.

        Returns:
            Whether something was taken away from one that was let in.
        """
        with self._lock:
            before = {one: self._rights.get(one, _NONE) for one in rights}
            shrunk = any(
                one not in self._blocked and before[one].value is not None and not _covers(new, before[one])
                for one, new in rights.items()
            )
            unblocked = rights.keys() & self._blocked
            self._rights |= rights
            self._gone -= rights.keys()
            changes: dict[str, tuple[dict[str, str], set[str]]] = {}
            for place, name in enumerate(_SETS, 1):
                added = {
                    f"{one}/{c}": "1"
                    for one, new in rights.items()
                    for c in _set(new, place) - _set(before[one], place)
                }
                gone = {
                    f"{one}/{c}" for one, new in rights.items() for c in _set(before[one], place) - _set(new, place)
                }
                changes[name] = (added, gone)
            values = {one: new.value for one, new in rights.items() if new.value and new.value != before[one].value}
            for name in _SETS:
                if changes[name] != ({}, set()):
                    self._write(name)
            if values:
                self._write("active")
            for name in _SETS:
                self._tell(name, {}, {}, changes[name][1])
            fresh = {one: value for one, value in values.items() if before[one].value is None}
            self._tell("active", fresh, {one: value for one, value in values.items() if one not in fresh}, set())
            for name in _SETS:
                self._tell(name, changes[name][0], {}, set())
            self._after_step("rights in HAProxy")
            if unblocked:
                self._blocked -= unblocked
                self._leftover -= unblocked
                self._write("blocked")
                self._tell("blocked", {}, {}, set(unblocked))
                self._after_step("unblocked in HAProxy")
        return shrunk

    def name_things(self, added: Iterable[str]) -> bool:
        """Reserve names of things for the certificates that are attached to them.

        Returns:
            Whether there are new ones.
        """
        with self._lock:
            new = {encoded(name) for name in added if usable(name)} - self._things
            if new:
                self._things |= new
                self._write("things")
                self._tell("things", dict.fromkeys(new, "1"), {}, set())
                self._after_step("things in HAProxy")
        return bool(new)

    def forget_things(self, removed: Iterable[str]) -> None:
        """Free names of things that are gone; call it after the rights that depend on them were changed."""
        with self._lock:
            gone = {encoded(name) for name in removed} & self._things
            if gone:
                self._things -= gone
                self._write("things")
                self._tell("things", {}, {}, gone)

    def replace_all(self, rights: dict[str, Rights], blocked: set[str], things: set[str]) -> None:
        """Exchange everything for what a snapshot says. Names of things are plain here, not encoded."""
        with self._lock:
            self._rights, self._blocked = dict(rights), set(blocked)
            self._things = {encoded(name) for name in things if usable(name)}
            self._leftover, self._gone = set(), set()
            # blocks and reserved names first: in between, less is let in, never more
            for name in ("blocked", "things", "active", *_SETS):
                self._write(name)
            for name in ("blocked", "things", "active", *_SETS):
                self._runtime.replace(self._settings.map(name), self._lines(name).items())
                self._after_step(f"{name} replaced in HAProxy")
            self.damaged = False
            self._compacted = time.monotonic()

    def compact(self, *, now: bool = False) -> bool:
        """Take blocked certificates out of the other maps, when there are many or it was long ago.

        Those that are gone leave blocked.map, too, afterwards: then nothing lets them in.

        Returns:
            Whether something was done.
        """
        with self._lock:
            many = max(len(self._leftover), len(self._gone)) >= COMPACT_AT
            due = many or time.monotonic() - self._compacted > COMPACT_AFTER
            if not (self._leftover or self._gone) or not (due or now):
                return False
            gone = {one: self._rights.pop(one) for one in self._leftover}
            for place, name in enumerate(("active", *_SETS)):
                keys = (
                    {one for one, rights in gone.items() if rights.value is not None}
                    if place == 0
                    else {f"{one}/{client}" for one, rights in gone.items() for client in _set(rights, place)}
                )
                if keys:
                    self._write(name)
                    self._tell(name, {}, {}, keys)
            self._leftover = set()
            self._forget_gone()
            self._compacted = time.monotonic()
            return True

    def _forget_gone(self) -> None:
        """Shorten blocked.map by what is gone, but not by what HAProxy still lets in, since a command had failed."""
        gone = (self._gone & self._blocked) - self._rights.keys()
        if gone and not gone.isdisjoint(self._runtime.map_entries(self._settings.map("active"))):
            return  # the next repair takes it out of there
        self._gone = set()
        if gone:
            self._blocked -= gone
            self._write("blocked")
            self._tell("blocked", {}, {}, gone)
            self._after_step("forgotten in HAProxy")

    def _tell(self, name: str, added: dict[str, str], changed: dict[str, str], gone: set[str]) -> None:
        """Bring HAProxy's map to what the file has, knowing the difference."""
        file = self._settings.map(name)
        size = len(self._blocked) + len(gone) if name == "blocked" else len(self._rights)
        if (len(changed) + len(gone)) * max(size, 1_000) > _WALK_LIMIT:
            self._runtime.replace(file, self._lines(name).items())
            return
        for key in gone:
            self._runtime.remove(file, key)
        for key, value in changed.items():
            self._runtime.change(file, key, value)
        if added:
            self._runtime.add(file, added.items())

    def repair(self) -> bool:
        """Bring HAProxy in line with the files, whatever it has: after a restart or a failed command.

        Returns:
            Whether something was different.
        """
        different = False
        with self._lock:
            found = {name: self._runtime.map_entries(self._settings.map(name)) for name in MAPS}
            wanted = {name: self._lines(name) for name in MAPS}
            new = {key: value for key, value in wanted["blocked"].items() if key not in found["blocked"]}
            if new:
                different = True
                self._runtime.add(self._settings.map("blocked"), new.items())
            counts = self._runtime.counts()
            for name in ("things", "active", *_SETS, "sync", "blocked"):
                have, want = found[name], wanted[name]
                if name == "blocked":
                    have = have | new
                if have == want and counts.get(str(self._settings.map(name))) == len(want):
                    continue
                different = True
                self._runtime.replace(self._settings.map(name), want.items())
        return different

    def counted(self) -> bool:
        """Whether HAProxy's maps have as many entries as they should: a quick look."""
        with self._lock:
            counts = self._runtime.counts()
            sizes = {
                "active": sum(1 for rights in self._rights.values() if rights.value is not None),
                "blocked": len(self._blocked),
                "things": len(self._things),
            } | {
                name: sum(len(_set(rights, place)) for rights in self._rights.values())
                for place, name in enumerate(_SETS, 1)
            }
            return all(counts.get(str(self._settings.map(name))) == size for name, size in sizes.items())

    # the registry's feed

    def advance(self, epoch: str, revision: int) -> None:
        """Everything up to a revision has been carried out."""
        self._synchronize({"epoch": epoch or "-", "revision": str(revision), "synced": str(int(time.time()))})

    def touch(self) -> None:
        """The registry has answered just now."""
        self._synchronize({"synced": str(int(time.time()))})

    def _synchronize(self, values: dict[str, str]) -> None:
        with self._lock:
            changed = {key: value for key, value in values.items() if self._sync[key] != value}
            if not changed:
                return
            self._sync |= changed
            self._write("sync")
            file = self._settings.map("sync")
            self._runtime.ask(";".join(f"set map {file} {key} {value}" for key, value in changed.items()))
            self._after_step("sync in HAProxy")


def _set(rights: Rights, place: int) -> frozenset[str]:
    """``pairs``, ``exacts`` or ``prefixes`` by its place in the tuple."""
    found = rights[place]
    assert isinstance(found, frozenset)
    return found


def _covers(new: Rights, old: Rights) -> bool:
    """Whether rights contain others, looked at simply: a doubt counts as no."""
    if new.value == "A:*" and new.pairs >= old.pairs:
        return True
    had, has = {old.value, *(f"A:{one}" for one in old.pairs)}, {new.value, *(f"A:{one}" for one in new.pairs)}
    return has >= had - {"A:"} and new.exacts >= old.exacts and new.prefixes >= old.prefixes

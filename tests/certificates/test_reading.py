"""Files, folders, streams and every form of input, cut at every place: items or reasons, with their places."""

from __future__ import annotations

import io
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from certificate_forms import (
    armoured,
    der,
    errors,
    forms,
    items_of,
    kinds,
    openssh_line,
    paths_of,
    pem,
    rsa_key,
    tarred,
)
from keyassay.certificates import reading
from keyassay.certificates.item import Kind
from keyassay.certificates.limits import Limits
from keyassay.certificates.public_key import RsaPublicKey
from keyassay.certificates.reading import ReadOptions, read, total_bytes


@pytest.mark.parametrize("form", forms())
def test_form_is_read(form: str) -> None:
    data, expected = forms()[form]
    items = items_of(data)
    assert kinds(items) == expected, errors(items)
    assert all(item.assessed for item in items)
    assert all("private" in " ".join(item.notices) for item in items if item.kind is Kind.PRIVATE_KEY)
    if not form.startswith("tar"):
        assert [item.index for item in items] == list(range(len(items)))


@pytest.mark.parametrize("form", ["pkcs8 der", "rsa private", "rsa private der"])
def test_private_numbers_are_not_kept(form: str) -> None:
    secret = rsa_key().private_numbers().p.to_bytes(128, "big")
    (item,) = items_of(forms()[form][0])
    assert isinstance(item.key, RsaPublicKey)
    assert secret not in (item.der or b"")


def test_the_kind_is_found_by_content_not_by_name(tmp_path: Path) -> None:
    for number, form in enumerate(("der", "pem", "pkcs7 der", "jwks", "openssh", "crl der", "tar.gz", "gzip")):
        path = tmp_path / f"{number}.{('zip', 'der', 'pem', 'p12')[number % 4]}"
        path.write_bytes(forms()[form][0])
        assert kinds(paths_of(path)) == forms()[form][1]


@given(st.lists(st.sampled_from(["a", "b", "c"]), max_size=5), st.lists(st.sampled_from(["a", "d"]), max_size=5))
@settings(max_examples=30, deadline=None)
def test_items_of_a_concatenation_are_those_of_its_parts(first: list[str], second: list[str]) -> None:
    one, two = b"".join(map(pem, first)), b"".join(map(pem, second))
    apart = [item.der for part in (one, two) if part for item in items_of(part)]
    assert [item.der for item in items_of(one + two) if item.der] == apart


@pytest.mark.parametrize("chunk", [64, 100, 1000, 4096])
def test_the_size_of_chunks_changes_nothing(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    data = (
        b"x\n"
        + pem()
        + b"between\r\n"
        + pem("b")
        + openssh_line()
        + pem("c")[:-30]
        + pem("d")
        + armoured(b"\x30" + bytes(100_000))
        + b"\n".join(b"> " + line for line in pem("e").splitlines())
        + b"\n"
        + b"\n".join(b"+" + line for line in pem("f").splitlines())
        + b'\n{"pem": "-----BEGIN CERTIFICATE-----"}\n-----END CERTIFICATE-----\n'
        + b'{"kty": "oct"}\n{"cut\n'
    )
    options = ReadOptions(limits=Limits(item_bytes=20_000))

    def found() -> list[tuple[Kind, int, bytes | None, str | None]]:
        return [(item.kind, item.offset, item.der, item.error) for item in items_of(data, options)]

    whole = found()
    monkeypatch.setattr(reading, "CHUNK", chunk)
    assert found() == whole
    assert [kind.value for kind, *_ in whole] == [
        "certificate", "certificate", "public-key", "unreadable", "certificate", "unreadable", "certificate",
        "certificate", "unreadable", "unreadable", "public-key", "unreadable",
    ]  # fmt: skip


@pytest.mark.parametrize("chunk", [64, 1000])
def test_der_structures_are_found_across_chunks(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    data = der() + b"\r\n" + der("b") + der("c") + b"rest"
    monkeypatch.setattr(reading, "CHUNK", chunk)
    items = items_of(data)
    assert kinds(items) == ["certificate", "certificate", "certificate", "unreadable"]
    assert [item.offset for item in items] == [0, len(der()) + 2, len(der() + der("b")) + 2, len(data) - 4]


def test_a_structure_larger_than_a_file_may_be_is_one_record() -> None:
    data = der() + b"\x30\x83\x00\xff\xff"[:2] + b"\x01\x00\x00" + bytes(65_536) + der()
    items = items_of(data, ReadOptions(limits=Limits(file_bytes=10_000)))
    assert kinds(items) == ["certificate", "unreadable"]
    assert items[1].offset == len(der())


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_places_in_utf_16_count_its_bytes(encoding: str) -> None:
    text = "\ufeff\u00e9\u4e2d\U0001f600 prose\n" + pem().decode() + "-----BEGIN CERTIFICATE-----\n"
    items = items_of(text.encode(encoding))
    assert kinds(items) == ["certificate", "unreadable"]
    assert [item.offset for item in items] == [
        len(text[: text.index("-----BEGIN")].encode(encoding)),
        len(text[: text.rindex("-----BEGIN")].encode(encoding)),
    ]


def test_an_empty_file_and_one_of_nothing_say_so() -> None:
    assert errors(items_of(b"")) == ["empty"]
    assert errors(items_of(b"hello")) == ["no certificate, request or key found"]
    assert "format 7z" in errors(items_of(b"7z\xbc\xaf\x27\x1c\0\0"))[0]


# Folders


@pytest.fixture
def anyones_folder() -> Iterator[Path]:
    """A folder that other users can reach too (those of pytest are for the owner)."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    for path in folder.rglob("*"):
        path.chmod(0o700)
    shutil.rmtree(folder)


@pytest.fixture
def not_root() -> Iterator[None]:
    """Root may read everything: be somebody else for a while."""
    was = os.geteuid()
    if was == 0:
        os.seteuid(65_534)
    yield
    os.seteuid(was)


def test_folders_are_walked_in_order_and_foreign_files_passed_over(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "one.txt").write_bytes(pem())
    (tmp_path / "a.pem").write_bytes(pem("b"))
    (tmp_path / "readme").write_text("hello")
    (tmp_path / "package.json").write_text('{"name": "x"}')
    (tmp_path / "broken.crt").write_text("hello")
    (tmp_path / "evil\n\u202ename.pem").write_bytes(pem("c"))
    (tmp_path / "odd").write_bytes(tarred({}))
    over: list[str] = []
    items = paths_of(tmp_path, options=ReadOptions(passed_over=over.append))
    assert [(item.source.removeprefix(f"{tmp_path}/"), item.kind.value) for item in items] == [
        ("a.pem", "certificate"),
        ("b/one.txt", "certificate"),
        ("broken.crt", "unreadable"),
        ("evil\n\u202ename.pem", "certificate"),
    ]
    assert {Path(path).name for path in over} == {"readme", "package.json", "odd"}


def test_links_in_circles_and_things_that_are_no_files_hold_nothing_up(tmp_path: Path) -> None:
    folder = tmp_path / "fleet"
    folder.mkdir()
    (folder / "a.pem").write_bytes(pem())
    (folder / "loop").symlink_to(folder)
    (folder / "self").symlink_to(folder / "self")
    (folder / "dangling").symlink_to(folder / "nothing")
    (folder / "again").symlink_to(folder / "a.pem")
    (folder / "zero").symlink_to("/dev/zero")
    os.mkfifo(folder / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "socket"))
        over: list[str] = []
        items = paths_of(folder, options=ReadOptions(passed_over=over.append))
    assert [(Path(item.source).name, item.kind.value) for item in items] == [
        ("a.pem", "certificate"),
        ("again", "certificate"),
        ("dangling", "unreadable"),
        ("self", "unreadable"),
    ]
    assert {Path(path).name for path in over} == {"pipe", "socket", "zero"}


def test_what_may_not_be_read_is_a_record_and_reading_goes_on(anyones_folder: Path, not_root: None) -> None:
    owner = os.geteuid()
    os.seteuid(os.getuid())
    (anyones_folder / "a.pem").write_bytes(pem())
    (anyones_folder / "closed").mkdir(mode=0o000)
    (anyones_folder / "secret.pem").write_bytes(pem())
    (anyones_folder / "secret.pem").chmod(0o000)
    (anyones_folder / "z.pem").write_bytes(pem("z"))
    os.seteuid(owner)
    items = paths_of(anyones_folder)
    assert kinds(items) == ["certificate", "unreadable", "unreadable", "certificate"]
    assert [Path(item.source).name for item in items] == ["a.pem", "closed", "secret.pem", "z.pem"]
    assert all("Permission denied" in (items[row].error or "") for row in (1, 2))


def test_missing_and_odd_paths_are_records(tmp_path: Path) -> None:
    (item,) = paths_of(tmp_path / "nothing")
    assert item.kind is Kind.UNREADABLE
    assert "No such file" in (item.error or "")
    assert kinds(paths_of("bad\0name")) == kinds(paths_of("")) == ["unreadable"]
    assert errors(paths_of("/dev/null")) == ["neither a file nor a folder"]
    os.mkfifo(tmp_path / "pipe")
    assert kinds(paths_of(os.fsdecode(b"\xff\xfe"))) == ["unreadable"]


def test_standard_input_and_named_pipes_are_read(tmp_path: Path) -> None:
    (raw,) = next(read(["-"], ReadOptions(), io.BytesIO(pem())))
    assert (raw.source, raw.label) == ("-", "CERTIFICATE")
    reader, writer = os.pipe()
    os.write(writer, pem())
    os.close(writer)
    assert kinds(paths_of(f"/dev/fd/{reader}")) == ["certificate"]
    os.close(reader)


def test_progress_counts_every_byte(tmp_path: Path) -> None:
    (tmp_path / "a.pem").write_bytes(pem() * 10)
    (tmp_path / "b.tar.gz").write_bytes(tarred({"a": pem()}))
    done: list[int] = []
    paths_of(tmp_path, options=ReadOptions(progress=done.append))
    assert sum(done) == total_bytes([str(tmp_path)]) > 0


def test_blocks_have_a_useful_size() -> None:
    blocks = list(reading.read_bytes(pem() * 10_000, ReadOptions()))
    assert [len(block) for block in blocks] == [4096, 4096, 10_000 - 8192]
    assert [raw.position for block in blocks for raw in block] == list(range(10_000))


def test_unreadable_items_of_one_source_are_kept_up_to_a_limit_and_counted_beyond() -> None:
    items = items_of(b"-----BEGIN X-----\n" * 10, ReadOptions(limits=Limits(unreadable_per_source=3)))
    assert len(items) == 4
    assert (items[3].error or "").startswith("7 more unreadable items in this source, the last at byte 162")

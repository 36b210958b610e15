"""Archives: members by name, archives in archives, damage and bombs that cost only what the limits allow."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import subprocess
import tarfile
import tracemalloc
import zipfile
import zlib
from pathlib import Path

import pytest

from certificate_forms import der, errors, items_of, kinds, paths_of, pem, tarred, zipped
from keyassay.certificates import reading
from keyassay.certificates.limits import Limits
from keyassay.certificates.reading import ReadOptions, read

PACKERS = (gzip.compress, bz2.compress, lzma.compress)


def sources(path: Path) -> list[tuple[str, str]]:
    return [(item.source.removeprefix(f"{path.parent}/"), item.kind.value) for item in paths_of(path)]


def test_members_have_names_and_one_bomb_is_one_record(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    path.write_bytes(
        zipped(
            {
                "x.pem": pem() + pem("b"),
                "deep/y.tar.gz": tarred({"z.der": der("c")}),
                "bomb.pem": bytes(60_000_000),
                "after.pem": pem("d"),
            }
        )
    )
    assert sources(path) == [
        ("a.zip!x.pem", "certificate"),
        ("a.zip!x.pem", "certificate"),
        ("a.zip!deep/y.tar.gz!z.der", "certificate"),
        ("a.zip!bomb.pem", "unreadable"),
        ("a.zip!after.pem", "certificate"),
    ]


@pytest.mark.parametrize("format_", ["gnu", "ustar", "pax", "v7", "oldgnu"])
def test_archives_by_gnu_tar_are_read(format_: str, tmp_path: Path) -> None:
    folder = tmp_path / "fleet"
    folder.mkdir()
    long = "long-" * 15 + "name.pem"
    (folder / long).write_bytes(pem("long"))
    (folder / "\u00e9.pem").write_bytes(pem())
    (folder / "empty").mkdir()
    (folder / "link.pem").symlink_to("\u00e9.pem")
    archive = tmp_path / "a.tar"
    subprocess.run(["tar", f"--format={format_}", "-cf", archive, "-C", tmp_path, "fleet"], check=True)
    assert sorted(sources(archive)) == [
        (f"a.tar!fleet/{long}", "certificate"),
        ("a.tar!fleet/\u00e9.pem", "certificate"),
    ]


def test_very_long_names_are_read(tmp_path: Path) -> None:
    name = "d/" * 150 + "x.pem"
    for format_ in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=format_) as archive:
            info = tarfile.TarInfo(name)
            info.size = len(pem())
            archive.addfile(info, io.BytesIO(pem()))
        (tmp_path / "a.tar").write_bytes(buffer.getvalue())
        assert sources(tmp_path / "a.tar") == [(f"a.tar!{name}", "certificate")]


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_empty_members_are_records_and_hide_nothing(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "CHUNK", 700)
    items = items_of(tarred({"a.pem": b"", "b.pem": pem(), "c.pem": b"", "d.pem": b"", "e.pem": pem("e")}, mode))
    assert kinds(items) == ["unreadable", "certificate", "unreadable", "unreadable", "certificate"]
    assert errors(items)[0] == "empty"


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2])
def test_methods_of_zip_and_their_bombs(method: int) -> None:
    data = zipped({"a": pem(), "b/": b"", "c": bytes(50_000_000)}, method)
    tracemalloc.start()
    found = kinds(items_of(data))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found == ["certificate"] + ["unreadable"] * (method != zipfile.ZIP_STORED)
    assert peak < len(data) + 30_000_000


def test_other_methods_of_zip_are_records() -> None:
    items = items_of(zipped({"a": pem()}, zipfile.ZIP_LZMA))
    assert errors(items) == ["damaged or not supported: compression method 14"]


def test_encrypted_members_are_records(tmp_path: Path) -> None:
    data = bytearray(zipped({"a.pem": pem()}))
    for mark, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(mark) + place] |= 1
    assert errors(items_of(bytes(data))) == ["encrypted: keyassay reads no encrypted archives"]


def test_a_zip_archive_from_a_pipe_is_read() -> None:
    reader, writer = os.pipe()
    os.write(writer, zipped({"a": pem(), "b": der("b")}))
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        blocks = list(read(["-"], ReadOptions(), stream))
    assert [raw.source for block in blocks for raw in block] == ["-!a", "-!b"]


def test_a_zip_stream_without_end_is_given_up() -> None:
    class Endless(io.RawIOBase):
        def read(self, count: int = -1) -> bytes:
            return b"PK\x03\x04" * (count // 4)

    (block,) = read(["-"], ReadOptions(limits=Limits(archive_bytes=10_000_000)), Endless())  # type: ignore[arg-type]
    assert [raw.error for raw in block] == ["a zip archive of more than 10,000,000 bytes in a stream"]


@pytest.mark.parametrize("pack", PACKERS, ids=["gzip", "bzip2", "xz"])
def test_streams_one_after_another_and_padding_are_one(pack) -> None:
    data = pack(pem()[:300]) + pack(pem()[300:]) + pack(pem("b"))
    assert kinds(items_of(data)) == ["certificate", "certificate"]
    assert kinds(items_of(data + bytes(10_000))) == ["certificate", "certificate"]


@pytest.mark.parametrize("pack", PACKERS, ids=["gzip", "bzip2", "xz"])
def test_truncated_and_damaged_streams_are_records(pack) -> None:
    packed = pack(pem() + os.urandom(5_000))
    assert kinds(items_of(packed[:-400]))[-1:] == ["unreadable"]
    assert kinds(items_of(packed + b"something else"))[-1:] == ["unreadable"]
    damaged = bytearray(packed)
    damaged[len(packed) // 2] ^= 0xFF
    assert kinds(items_of(bytes(damaged)))[-1:] == ["unreadable"]


def test_an_xz_stream_may_not_ask_for_gigabytes() -> None:
    data = bytearray(lzma.compress(pem()))
    # the size of the dictionary is one byte of the block's header, which has a check sum
    header = bytearray(data[12 : 12 + (data[12] + 1) * 4])
    header[4] = 36  # (2 | 36 & 1) << (36 // 2 + 11) = 1 GiB
    header[-4:] = zlib.crc32(bytes(header[:-4])).to_bytes(4, "little")
    data[12 : 12 + len(header)] = header
    (item,) = items_of(bytes(data))
    assert "Memory usage limit" in (item.error or "")


def test_damaged_tar_archives_are_records() -> None:
    data = bytearray(tarred({"a.pem": pem(), "b.pem": pem("b"), "c.pem": pem("c")}, "w"))
    second = 512 + (len(pem()) + 511) // 512 * 512
    broken = bytearray(data)
    broken[second] ^= 1
    assert kinds(items_of(bytes(broken))) == ["certificate", "unreadable"]
    assert kinds(items_of(bytes(data[: second + 600]))) == ["certificate", "unreadable"]
    for size in (b"-0000000010\0", b"99999999999\0", b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff"):
        lying = bytearray(data)
        lying[second + 124 : second + 136] = size
        lying[second + 148 : second + 156] = b" " * 8
        lying[second + 148 : second + 156] = b"%06o\0 " % sum(lying[second : second + 512])
        found = kinds(items_of(bytes(lying)))
        assert found[0] == "certificate"
        assert found.count("unreadable") == 1


def test_the_number_of_members_is_bounded() -> None:
    files = {str(number): pem() for number in range(5)}
    options = ReadOptions(limits=Limits(archive_members=3))
    for data in (zipped(files), tarred(files)):
        items = items_of(data, options)
        assert kinds(items) == ["certificate"] * 3 + ["unreadable"]
        assert errors(items)[3] == "more than 3 members"


def test_a_zip_directory_of_absurd_size_is_not_read() -> None:
    data = zipped({str(number): b"" for number in range(100)})
    (item,) = items_of(data, ReadOptions(limits=Limits(zip_directory_bytes=1_000)))
    assert "its directory takes" in (item.error or "")


def test_archives_in_archives_end_at_the_limit_of_nesting() -> None:
    data = pem()
    for _ in range(4):
        data = zipped({"x": data}, zipfile.ZIP_STORED)
    assert kinds(items_of(data)) == ["certificate"]
    (item,) = items_of(data, ReadOptions(limits=Limits(nesting=3)))
    assert item.source == "-!x!x!x"
    assert item.error == "archives are nested deeper than 3"


@pytest.mark.parametrize("pack", PACKERS, ids=["gzip", "bzip2", "xz"])
def test_what_comes_before_damage_is_read(pack) -> None:
    data = pem() + pem("b")[:200] + os.urandom(1_200_000)
    packed = pack(data)
    for cut in (packed[:-1_000], packed[:-1_000] + bytes(1_000), packed[:1_000_000] + b"x" + packed[1_000_001:]):
        for nested in (cut, tarred({"a": cut})):
            items = items_of(nested)
            assert items[0].der == der()
            assert items[-1].error is not None


@pytest.mark.parametrize("pack", PACKERS, ids=["gzip", "bzip2", "xz"])
def test_bombs_give_one_record_also_when_nested(pack) -> None:
    bomb = pack(bytes(30_000_000))
    assert [(item.kind.value, item.index) for item in items_of(bomb)] == [("unreadable", 0)]
    assert "times its size" in errors(items_of(bomb))[0]
    for nested in (gzip.compress(bomb), tarred({"a": bomb}), zipped({"a": bomb})):
        assert "times its size" in errors(items_of(nested))[0]


def test_many_members_share_what_their_archive_may_expand_to() -> None:
    data = zipped({f"{number}.pem": bytes(5_000_000) for number in range(8)})
    items = items_of(data, ReadOptions(limits=Limits(archive_bytes=12_000_000, archive_ratio=10_000)))
    assert kinds(items) == ["unreadable"] * 8
    assert errors(items)[7] == "the archive expands to more than 12,000,000 bytes"

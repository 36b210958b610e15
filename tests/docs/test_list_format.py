"""docs/list-format.md against the code, to the byte: tables of headers, and its reader on a list of ours."""

from __future__ import annotations

import re
import struct
from pathlib import Path
from typing import Any

from keyassay.lists import format as layout
from keyassay.lists import keypair, known, lookup
from keyassay.lists.format import (
    KINDS,
    SHIPPED,
    BlockName,
    Record,
    block_names,
    pack_block,
    pack_merged,
    read_block,
)
from keyassay.lists.recipes.debian_openssl import ARCHS, STATES, VARIANTS, Stream, rsa_keys

ROOT = Path(__file__).resolve().parent.parent.parent
TEXT = (ROOT / "docs" / "list-format.md").read_text(encoding="utf-8")


def table(after: str) -> list[tuple[int, int | None]]:
    """(offset, bytes) of the rows of the first table after a phrase; None for a size that is a letter."""
    rest = TEXT.split(after, 1)[1]
    rows = re.findall(r"^\| (\d+) \| (\w+) \|", rest.split("\n\n", 2)[1], re.MULTILINE)
    return [(int(offset), int(size) if size.isdecimal() else None) for offset, size in rows]


def fields(form: struct.Struct) -> list[tuple[int, int | None]]:
    """(offset, bytes) of the fields of a struct without alignment."""
    offset = 0
    found: list[tuple[int, int | None]] = []
    for part in re.findall(r"\d*\w", form.format.lstrip("<")):
        size = struct.calcsize("<" + part) if part.endswith("s") else 0
        for one in [part] if size else [part[-1]] * int(part[:-1] or 1):
            size = struct.calcsize("<" + one)
            found.append((offset, size))
            offset += size
    return found


def test_headers_are_as_told() -> None:
    assert table("Header of a block, 96 bytes:") == fields(layout._HEADER)
    assert layout._HEADER.size == 96
    assert table("Header, 80 bytes:") == fields(layout._MERGED_HEADER)
    assert layout._MERGED_HEADER.size == 80
    assert table("Header, 64 bytes:") == fields(keypair._HEADER)
    assert keypair._HEADER.size == 64
    padded = known._HEADER.format.replace("8x", "8s")
    assert table("Header of both, 56 bytes:") == fields(struct.Struct(padded))
    assert known._HEADER.size == 56


def test_records_are_as_told() -> None:
    assert table("A record:") == fields(struct.Struct("<8sHH"))
    assert table("another one with e = 3:") == [*fields(layout._EXTRA), (layout._EXTRA.size, None)]
    name = BlockName("rsa-1024", "le32", "rnd", 8192)
    record = Record(bytes(range(8)), (0x0102, 0x0304))
    data = pack_block(name, [record], [(0, 3, record)])
    assert data[96:108] == bytes(range(8)) + b"\x02\x01\x04\x03"
    assert data[108:] == b"\x00\x00\x03\x00" + data[96:108]
    assert name.path == "rsa-1024/le32-rnd-2.bin"


def test_kinds_and_numbers_are_as_told() -> None:
    rows = re.findall(r"^\| `([\w-]+)` \| `([\w-]+)` \| (\d+) bytes \| (yes|no) \|$", TEXT, re.MULTILINE)
    assert rows == [
        (kind.name, kind.list_name, str(kind.record_bytes), "yes" if kind.confirmed else "no")
        for kind in SHIPPED.values()
    ]
    for number, arch in enumerate(ARCHS):
        assert f"{number} `{arch}`" in TEXT
    for number, state in enumerate(STATES):
        assert f"{number} `{state}`" in TEXT
    assert Stream("be32", "noreadrnd", 77).number == (2 * 4 + 2) * 32768 + 77
    assert layout.STREAM_BITS == 19
    assert {len(block_names(kind)) for kind in SHIPPED} == {96}
    rows = re.findall(r"^\| `(\w{3})` \| (.+?) \| (.+?) \| (.+?) \| (\d+) \|$", TEXT, re.MULTILINE)
    assert [(name, archs, states, int(blocks)) for name, _, archs, states, blocks in rows] == [
        (
            variant.name,
            "all" if variant.archs == ARCHS else ", ".join(f"`{arch}`" for arch in variant.archs),
            "all" if variant.states == STATES else ", ".join(f"`{state}`" for state in variant.states),
            len(block_names(f"ec-p256-{variant.name}")),
        )
        for variant in VARIANTS.values()
    ]


def test_the_reader_of_the_page_reads_our_lists(tmp_path: Path) -> None:
    code = TEXT.split("```python\n", 1)[1].split("```", 1)[0]
    namespace: dict[str, Any] = {}
    exec(code, namespace)
    name = BlockName("rsa-1024", "le64", "rnd", 0)
    path = tmp_path / "list.bin"
    path.write_bytes(pack_merged(KINDS["rsa-1024"], [read_block(lookup.DATA / name.path)], 72, bytes(32)))
    modulus = rsa_keys(Stream("le64", "rnd", 321), 1024)[65537].modulus
    assert list(namespace["candidates"](path, modulus.to_bytes(128, "big"))) == [("le64", "rnd", 321)]
    assert list(namespace["candidates"](path, (modulus + 2).to_bytes(128, "big"))) == []

"""``--walk`` in a scan: keys without a list become findings of rsa-debian-openssl, and the summary says how deep."""

from __future__ import annotations

from pathlib import Path

import pytest

from keyassay.bulk import walking
from keyassay.bulk.results import Settings
from keyassay.bulk.scan import Scan
from keyassay.certificates.public_key import RsaPublicKey
from keyassay.certificates.spki import encode
from keyassay.checks.rsa_debian_openssl import WalkedRsaKey, walked
from keyassay.findings import Factor, Profile
from keyassay.lists import lookup, walk
from keyassay.lists.recipes.debian_openssl import Stream, odd_rsa_key, rsa_key_from_hints, rsa_keys
from keyassay.lists.walk import Divisor, draws_to

#: makes keys of 1023 and of 1026 bits from early blocks
STREAM = Stream("be32", "rnd", 2)


@pytest.fixture(autouse=True)
def few_streams(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(walking, "PIDS", range(3))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))


def spki(modulus: int) -> bytes:
    return encode(RsaPublicKey(modulus, 65537))


def settings(depth: float = 2.0, **more: object) -> Settings:
    return Settings(profile=Profile.FAST, only=("rsa-debian-openssl",), walk=depth, jobs=1, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("bits", [1023, 1026])
def test_a_key_without_a_list_becomes_a_finding(bits: int) -> None:
    key = odd_rsa_key(STREAM, bits) if bits % 2 else rsa_keys(STREAM, bits)[65537]
    depth = key.blocks[0] / draws_to(walk.prime_bits(bits), 1.0) + 0.2
    scan = Scan((), settings(depth, fleet=False), encodings=[spki(key.modulus)] * 2)
    results = list(scan)
    for result in results:
        (finding,) = result.findings
        assert finding.check == "rsa-debian-openssl"
        assert finding.message.endswith("arch=be32 state=rnd pid=2 gives the whole key")
        assert finding.evidence.describe() == {"proof": "key made again", "arch": "be32", "state": "rnd", "pid": 2}
        assert finding.evidence.secrets() == {"factor": key.first, "blocks": list(key.blocks)}
        steps = [step.says for step in finding.evidence.steps(RsaPublicKey(key.modulus, 65537))]
        assert steps[0].startswith("A vulnerable OpenSSL on platform be32, as process 2, with a readable ~/.rnd, makes")
    (remark,) = scan.summary.lists
    assert remark == (
        f"1 key of {bits} bits without a complete list: 1 walked to depth {depth:g}, a weak one is missed with "
        f"probability {walk.missed(depth):.1e}"
    )
    assert not scan.summary.not_run


def test_what_a_walk_found_is_known_to_later_scans(tmp_path: Path) -> None:
    key = odd_rsa_key(STREAM, 1023)
    walk.remember(key.modulus, STREAM, key.blocks)
    walk.remember(key.modulus, STREAM, key.blocks)
    path = tmp_path / "data" / "keyassay" / "lists" / "walked.txt"
    assert path.read_text().count("\n") == 1
    (finding,) = next(iter(Scan((), settings(0.0), encodings=[spki(key.modulus)]))).findings
    assert finding.evidence == WalkedRsaKey(key.first, stream=STREAM, blocks=key.blocks)
    # nothing there is believed: another stream for the same modulus makes another key
    digest = path.read_text().split()[0]
    for text in (f"{digest} 5 0 1\n", f"{digest} -1 0 0\nrubbish\n{digest} 99999999 0 0\n", "\xff\n"):
        path.write_text(text, "latin-1")
        walk._remembered.cache_clear()
        assert not next(iter(Scan((), settings(0.0), encodings=[spki(key.modulus)]))).findings


@pytest.mark.slow
def test_a_key_of_2050_bits_is_found() -> None:
    stream = Stream("le64", "nornd", 1)
    modulus = rsa_keys(stream, 2050)[65537].modulus
    (finding,) = next(iter(Scan((), settings(0.06), encodings=[spki(modulus)]))).findings
    assert finding.message.endswith(f"{stream} gives the whole key")


@pytest.mark.slow
def test_a_key_of_8192_bits_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Stream("le32", "direct", 18)
    monkeypatch.setattr(walking, "PIDS", range(17, 19))
    monkeypatch.setattr(walk, "ARCHS", (stream.arch,))
    modulus = rsa_key_from_hints(stream, 8192, (16, 651)).modulus  # as rsa_keys makes it in half a minute
    assert modulus.bit_length() == 8192
    (finding,) = next(iter(Scan((), settings(0.06), encodings=[spki(modulus)]))).findings
    assert finding.message.endswith(f"{stream} gives the whole key")


def test_without_walk_the_summary_names_it() -> None:
    scan = Scan((), Settings(only=("rsa-debian-openssl",)), encodings=[spki(9 << 1022 | 1)])
    assert not next(iter(scan)).findings
    (note,) = [one for one in scan.summary.not_run if one.check == walking.CHECK]
    assert "no list; `keyassay scan --walk`" in note.reason


def test_what_cannot_be_a_debian_key_is_not_walked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walk, "_run", lambda _task: pytest.fail("walked"))
    scan = Scan((), settings(), encodings=[spki((9 << 1022) + 5)])  # 2 modulo 3
    list(scan)
    (remark,) = scan.summary.lists
    assert "1 cannot be Debian's by N modulo 3 or its leading bits" in remark


def test_keys_with_a_complete_list_are_not_walked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    key = rsa_keys(STREAM, 1026)[65537]
    monkeypatch.setattr(walk, "unlisted", lambda _bits, _pids: ())
    scan = Scan((), settings(), encodings=[spki(key.modulus)])
    assert not next(iter(scan)).findings
    assert scan.summary.lists == ()


def test_an_interruption_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_task: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(walk, "_run", interrupted)
    scan = Scan((), settings(), encodings=[spki(rsa_keys(STREAM, 1026)[65537].modulus)])
    assert len(list(scan)) == 1
    assert scan.summary.interrupted
    assert any("the same scan with --walk goes on" in note.reason for note in scan.summary.not_run)
    assert scan.summary.lists == ()


def test_a_folder_that_cannot_be_written_is_a_note(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    scan = Scan((), settings(0.1), encodings=[spki(rsa_keys(STREAM, 1026)[65537].modulus)])
    assert not next(iter(scan)).findings
    assert any("cannot be written" in note.reason for note in scan.summary.not_run)
    assert scan.summary.lists == ()


def test_only_missing_blocks_are_walked(monkeypatch: pytest.MonkeyPatch) -> None:
    listed = lookup.whole("rsa-1024")
    assert listed is not None
    missing = walk.unlisted(1024)
    assert sum(part.count for part in missing) == 4_096 * (listed.complete_blocks - listed.blocks)
    monkeypatch.setattr(lookup, "whole", lambda _kind: None)
    assert walk.unlisted(1024) == walk.parts()
    assert walk.unlisted(1026) == walk.parts()


def test_a_shared_prime_is_a_finding_by_its_factor() -> None:
    key = rsa_keys(STREAM, 1026)[65537]
    other = (key.first + 2) | 1
    divisor = Divisor(key.first * other, STREAM, key.blocks[0], key.first)
    assert walk.key_of(divisor) is None
    verdict = walked(STREAM, key.first, None)
    assert isinstance(verdict.evidence, Factor)
    assert verdict.evidence.proves(RsaPublicKey(divisor.modulus, 65537))
    assert verdict.message == "shares a prime with Debian's predictable generator: arch=be32 state=rnd pid=2"


def test_evidence_of_another_stream_does_not_prove() -> None:
    key = odd_rsa_key(STREAM, 1023)
    subject = RsaPublicKey(key.modulus, 65537)
    assert WalkedRsaKey(key.first, stream=STREAM, blocks=key.blocks).proves(subject)
    assert not WalkedRsaKey(key.first, stream=Stream("be32", "rnd", 1), blocks=key.blocks).proves(subject)
    assert not WalkedRsaKey(key.first, stream=STREAM, blocks=(key.blocks[0], key.blocks[1] + 1)).proves(subject)

import os
import stat
from datetime import UTC, datetime

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyassay.cli.parameters import Duration, Size, Time, passwords_of, writing_to
from keyassay.errors import KeyassayError


@pytest.mark.parametrize(
    ("text", "size"),
    [("1", 1), ("800M", 800 << 20), ("4G", 4 << 30), ("1.5GiB", 3 << 29), ("2 kB", 2048), ("1t", 1 << 40), (" 7b ", 7)],
)
def test_sizes(text, size):
    assert Size().convert(text, None, None) == size


@given(st.text(max_size=20))
def test_a_size_is_a_number_or_a_sentence(text):
    try:
        assert 0 < Size().convert(text, None, None) < 1 << 60
    except click.BadParameter as error:
        assert "is no size" in error.message or "out of range" in error.message


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("5s", 5),
        ("90", 90),
        ("1.5m", 90),
        ("10 min", 600),
        ("2h", 7200),
        ("1d", 86400),
        (".5s", 0.5),
        ("3 Hours", 10800),
    ],
)
def test_durations(text, seconds):
    assert Duration().convert(text, None, None) == seconds


@given(st.text(max_size=20))
def test_a_duration_is_a_number_or_a_sentence(text):
    try:
        assert 0 < Duration().convert(text, None, None) < 1e9
    except click.BadParameter as error:
        assert "is no duration" in error.message or "out of range" in error.message


@pytest.mark.parametrize("text", ["", "s", "5 w", "-5s", "1e3", "0s", "nan", "inf", "5s5", "99999999d"])
def test_what_is_no_duration(text):
    with pytest.raises(click.BadParameter):
        Duration().convert(text, None, None)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2027-01-31", datetime(2027, 1, 31, tzinfo=UTC)),
        ("2027-01-31T12:00:00Z", datetime(2027, 1, 31, 12, tzinfo=UTC)),
        ("2027-01-31T12:00:00+02:00", datetime(2027, 1, 31, 10, tzinfo=UTC)),
    ],
)
def test_times_are_utc_unless_they_say_otherwise(text, moment):
    assert Time().convert(text, None, None) == int(moment.timestamp())


@given(st.text(max_size=30))
def test_a_time_is_a_time_or_a_sentence(text):
    try:
        assert isinstance(Time().convert(text, None, None), int)
    except click.BadParameter as error:
        assert "is no time" in error.message


def test_a_file_keeps_its_text_if_the_new_one_fails(tmp_path):
    path = tmp_path / "report"
    path.write_text("old")
    with pytest.raises(ValueError, match="lost"), writing_to(path) as stream:
        stream.write("half of the n")
        raise ValueError("lost")
    assert path.read_text() == "old"
    assert [one.name for one in tmp_path.iterdir()] == ["report"]


def test_a_private_file_is_private_from_the_beginning(tmp_path):
    path = tmp_path / "report"
    path.write_text("old")
    path.chmod(0o644)
    before = os.umask(0)
    try:
        with writing_to(path, private=True) as stream:
            (new,) = [one for one in tmp_path.iterdir() if one != path]
            assert stat.S_IMODE(new.stat().st_mode) == 0o600
            stream.write("secret")
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_text() == "secret"


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "target").write_text("old")
    (tmp_path / "link").symlink_to("target")
    with writing_to(tmp_path / "link") as stream:
        stream.write("new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_text() == "new"


def test_names_that_no_encoding_knows_are_written(tmp_path):
    with writing_to(tmp_path / "report") as stream:
        stream.write("a\udcff")
    assert (tmp_path / "report").read_text() == "a\\udcff"


def test_passwords_are_lines(tmp_path):
    path = tmp_path / "passwords"
    path.write_bytes(b"one\r\n\ntwo words\n\xff")
    assert passwords_of(path) == (b"one", b"two words", b"\xff")
    assert passwords_of(None) == ()
    with pytest.raises(KeyassayError, match="cannot read the password file"):
        passwords_of(tmp_path)

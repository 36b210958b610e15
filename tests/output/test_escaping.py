import os
import shlex
import subprocess
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from keyassay.output.escaping import code_span, markdown_text, shell_word, visible

ANYTHING = st.text(st.characters(codec=None, exclude_categories=[]))


@given(ANYTHING)
def test_visible_text_moves_nothing_and_hides_nothing(text):
    shown = visible(text)
    assert shown.isprintable()
    for character in shown:
        assert unicodedata.category(character) not in {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


@given(st.text(st.characters(categories=["L", "N", "P", "S"], exclude_characters="\u3164\uffa0\u115f\u1160")))
def test_ordinary_text_stays_as_it_is(text):
    assert visible(text) == text


def test_what_is_spelled_out():
    assert visible("\x1b[2J\u202e\u200b\u2066\r\n\udcff\U000e0001\u3164") == (
        "\\x1b[2J\\u202e\\u200b\\u2066\\x0d\\x0a\\udcff\\U000e0001\\u3164"
    )


@given(ANYTHING, st.integers(1, 50))
def test_a_limit_bounds_what_is_kept(text, limit):
    assert len(visible("a" * 10 + text.replace("\\", ""), 5)) == 5
    kept = visible(text, limit)
    if len(text) > limit:
        assert kept.endswith("…")


@given(ANYTHING)
def test_a_code_span_is_one_code_span(text):
    page = MarkdownIt("commonmark").enable("table").render(f"| a |\n| --- |\n| x{code_span(text)}y |\n")
    assert page.count("<code>") == (1 if text else 0)
    assert page.count("<td>") == 1


@given(ANYTHING)
def test_markdown_text_has_no_markup(text):
    page = MarkdownIt("commonmark", {"html": True}).render("x " + markdown_text(text))
    assert set(page.split("<")) == set(page.split("<")) and page.startswith("<p>")
    for tag in ("<a", "<em", "<strong", "<img", "<code", "<script", "<h1", "<li", "<br"):
        assert tag not in page


@given(st.binary(max_size=30).filter(lambda octets: b"\0" not in octets))
def test_a_shell_word_is_safe_to_see(octets):
    word = shell_word(os.fsdecode(octets))
    assert visible(word) == word


@pytest.mark.parametrize(
    "octets", [b"a b'c\"$(id)`x`\\", b"\xff\n\x1b[2J'", "ü\u202e".encode(), b"-x", b"*?~", b"\\x41'\x01"]
)
def test_a_shell_reads_a_word_back(octets):
    done = subprocess.run(
        ["bash", "-c", f"printf %s {shell_word(os.fsdecode(octets))}"], capture_output=True, check=True
    )
    assert done.stdout == octets
    assert shlex.split(shell_word("a b")) == ["a b"]

"""Makes foreign text safe to show: names and file names come from strangers and may hold anything.

``visible`` comes first in every format for people; the others add what one format needs (cells of CSV, code spans of
Markdown, words of a shell). Nothing here is for JSON, whose encoder escapes by itself.
"""

from __future__ import annotations

import os
import re
import shlex

# Letters and marks that Unicode calls printable, although nothing is to be seen: the default-ignorable ones.
_INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]",
)
#: what spreadsheets take for the beginning of a formula, full-width forms included
_FORMULA = frozenset("=+-@\t\r\n＝＋－＠|%")


def _escape(character: str) -> str:
    code = ord(character)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def visible(text: str, limit: int = 0) -> str:
    r"""The text with everything that cannot be seen, moves the cursor or turns the direction spelled out.

    Control characters, line ends, bidirectional and zero-width characters, lone surrogates (undecodable bytes of
    file names) and unassigned code points become ``\x1b``, ``\u202e``, ``\U000e0001``.

    Args:
        text: anything.
        limit: characters to keep at most, an ellipsis taking the place of the rest; 0 for all.
    """
    if limit and len(text) > limit:
        text = text[: limit - 1] + "…"
    if text.isprintable() and (text.isascii() or not _INVISIBLE.search(text)):
        return text
    return "".join(
        character if character.isprintable() and not _INVISIBLE.match(character) else _escape(character)
        for character in text
    )


def csv_cell(text: str) -> str:
    """A cell that no spreadsheet takes for a formula: an apostrophe goes before what could begin one."""
    text = visible(text)
    return "'" + text if text.lstrip(" '\"\u3000")[:1] in _FORMULA and text.strip(" '\"\u3000") else text


def code_span(text: str, limit: int = 0) -> str:
    """A Markdown code span for a table cell: no markup, link, mention or cell border inside has any effect."""
    text = visible(text, limit)
    if not text:
        return ""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * (longest + 1)
    padding = " " if text[0] in "` " or text[-1] in "` " else ""
    return f"{fence}{padding}{text}{padding}{fence}".replace("|", "\\|")


def markdown_text(text: str) -> str:
    """A sentence for Markdown: no character in it has a meaning there, and no link or mention is made of it."""
    text = re.sub(r"([\\`*_{}\[\]<>|~])", r"\\\1", visible(text))
    text = re.sub("([@#])", r"\1<!-- -->", text)  # code hosts link @name and #1 after Markdown has been read
    return re.sub(r"(?i)(https?|ftp)(://)|\b(www)(\.)", r"\1\3<!-- -->\2\4", text)


def shell_word(text: str) -> str:
    """A word that a shell reads back as the text, and that is safe to look at."""
    if visible(text) == text:
        return shlex.quote(text)
    shown = "".join(
        chr(octet) if 0x20 <= octet < 0x7F and octet not in b"'\\" else f"\\x{octet:02x}" for octet in os.fsencode(text)
    )
    return f"$'{shown}'"

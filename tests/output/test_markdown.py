import re

from markdown_it import MarkdownIt

from keyassay.output.gate import Gate
from sample_run import HOSTILE, TODAY, weak_result


def test_the_head_has_the_counts_and_the_verdict(rendered):
    text = rendered("markdown")
    assert text.startswith("## keyassay: **2 broken**, **1 weak**, **0 notice**\n")
    assert "**2 findings of class broken; 1 item could not be read.** (exit code 1)" in text


def test_findings_are_rows_of_one_table(rendered):
    table = [line for line in rendered("markdown").splitlines() if line.startswith("|")]
    assert len(table) == 2 + 5
    for row in table:
        assert len(re.findall(r"(?<!\\)\|", row)) == 7, row
    assert table[2].startswith("| broken | CRITICAL | `rsa-near-primes` | `fleet/a.pem #0` | `CN=device-17` |")


def test_foreign_text_has_no_effect(rendered):
    text = rendered("markdown", [weak_result(HOSTILE, f"{HOSTILE}.pem")])
    page = MarkdownIt("commonmark", {"html": True}).enable("table").render(text)
    assert "<td><code>rsa-near-primes</code></td>" in page
    for tag in ("<script", "<a ", "<img"):
        assert tag not in page, tag
    # code hosts look for mentions after Markdown, everywhere but in code
    assert "@all" not in re.sub("<code>.*?</code>", "", page)
    assert "\x1b" not in page
    assert "\u202e" not in page


def test_what_was_not_read_is_listed(rendered):
    text = rendered("markdown")
    assert "- `fleet/bad.pem #2`: `base64 ends in the middle of a group (at byte 77)`" in text
    assert "- `rsa-odd-shape`: its table would not fit" in text
    assert "- `rsa-near-primes`: `internal error: ValueError: x`: `fleet/n.pem #0`, 1 in all" in text


def test_the_report_fits_into_a_comment(rendered):
    many = [weak_result("x`|" * 20, f"fleet/{'`|' * 200}{number}.pem", also=True) for number in range(60)]
    text = rendered("markdown", many)
    assert len(text) < 65_536
    shown = text.count("| broken |")
    assert 20 < shown <= 50
    assert f"and {60 - shown} more items: rsa-near-primes {60 - shown}, " in text


def test_accepted_findings_and_what_was_left_out_are_told(rendered, accepting):
    text = rendered("markdown", gate=Gate(baseline=accepting("rsa-near-primes"), today=TODAY))
    assert "2 findings are accepted by the baseline." in text
    assert "accepted until 2026-12-31: `a test device`" in text
    assert "from profile deep: rsa-deep-thing" in text
    assert "`keyassay scan --profile deep fleet/`" in text

import re

import pytest

from keyassay.findings import Classification
from keyassay.output.gate import Gate
from sample_run import HOSTILE, TODAY, primes, results, weak_result

SEEN = re.compile(r"\x1b\[[0-9;]*m")


def at(text, *wanted):
    """The places of strings in a text, all of which have to be there."""
    return [text.index(one) for one in wanted]


def test_the_worst_come_first(rendered):
    text = rendered("table")
    places = at(text, "BROKEN  ", "fleet/a.pem #0", "WEAK  ", "fleet/c.pem #0", "UNREADABLE", "SUMMARY", "WHAT TO DO")
    assert places == sorted(places)


def test_a_finding_says_what_where_and_how_sure(rendered):
    text = rendered("table")
    assert "    CRITICAL  rsa-near-primes  broken, proven\n" in text
    assert "              The primes of device-17 are close.\n" in text
    assert "verified factor, factor bits 512, rounds 1\n" in text
    assert "    certificate, RSA-1024, CN=device-17\n" in text
    assert "serial 0a1b, sha256 " in text


def test_what_could_not_be_done_is_told_item_by_item(rendered):
    text = rendered("table")
    assert "fleet/bad.pem #2: base64 ends in the middle of a group (at byte 77)" in text
    assert "keys of type ML-DSA-44 are not assessed" in text
    assert "the strict parser refused a negative serial number" in text
    assert "rsa-near-primes: internal error: ValueError: x: fleet/n.pem #0" in text
    assert "not run       rsa-odd-shape: its table would not fit" in text


def test_one_failure_of_a_check_on_many_items_is_one_line(rendered):
    failed = [one for one in results() if one.not_run] * 40
    text = rendered("table", failed)
    assert text.count("internal error: ValueError: x") == 1
    assert "fleet/n.pem #0 and 39 more" in text.replace("\n    ", " ")


def test_the_summary_counts_and_never_says_good(rendered):
    text = rendered("table")
    assert "6 read (5 assessed, 1 not assessed), 1 unreadable; 1 file passed over" in text
    assert "2 broken, 1 weak, 0 notice" in text
    assert "nothing was found by the checks below, which is no proof" in text.replace("\n                ", " ")
    assert "3 ran, profile standard, catalogue 0123456789abcdef" in text
    assert not re.search(r"\b(good|secure|safe|ok|fine)\b", text, re.IGNORECASE)


def test_incomplete_lists_are_told(rendered):
    text = rendered("table", changes={"lists": ("debian-rsa-2048: 95 of 96 blocks",)})
    assert "lists         debian-rsa-2048: 95 of 96 blocks" in text


def test_what_to_do_next_is_about_the_worst_class(rendered):
    text = rendered("table")
    section = text[text.index("WHAT TO DO NEXT") : text.index("LEFT OUT")]
    assert "Make a new key with a current version of the software" in section
    assert "rsa-near-primes" in section
    assert "rsa-short" not in section
    assert "  keyassay prove fleet/a.pem\n" in section


def test_accepted_findings_no_longer_decide_what_to_do_next(rendered, accepting):
    text = rendered("table", gate=Gate(baseline=accepting("rsa-near-primes"), today=TODAY))
    section = text[text.index("WHAT TO DO NEXT") :]
    assert "rsa-short" in section
    assert "rsa-near-primes" not in section[: section.index("LEFT OUT")]
    assert "accepted until 2026-12-31: a test device" in text
    assert "ACCEPTED" in text


def test_what_the_profile_left_out_comes_with_the_command_that_runs_it(rendered):
    text = rendered("table", arguments=("--no-fleet", "a fleet/", "--x\u202e"))
    assert "from profile deep: rsa-deep-thing" in text
    assert "  keyassay scan --profile deep --no-fleet 'a fleet/' $'--x\\xe2\\x80\\xae'\n" in text


def test_the_last_line_is_the_verdict(rendered):
    def last(**options):
        return rendered("table", **options).splitlines()[-1]

    assert last() == "2 findings of class broken; 1 item could not be read.  (exit code 1)"
    weak = Gate(Classification.WEAK, today=TODAY)
    assert last(gate=weak) == "4 findings of class weak or worse; 1 item could not be read.  (exit code 1)"
    never = Gate(None, today=TODAY)
    assert (
        last(gate=never) == "No finding fails this run (--fail-on never), but 1 item could not be read.  (exit code 3)"
    )
    assert last(found=[]) == "There was nothing to read.  (exit code 2)"
    assert last(changes={"interrupted": True}).endswith("(exit code 130)")
    clean = [one for one in results() if not one.findings and one.item.assessed]
    assert last(found=clean) == "No finding of class broken.  (exit code 0)"


def test_colour_only_adds_escape_codes(rendered):
    coloured = rendered("table", colour=True)
    assert SEEN.search(coloured)
    assert SEEN.sub("", coloured) == rendered("table")


@pytest.mark.parametrize("width", [72, 80, 120])
def test_lines_fit_the_terminal(rendered, width):
    # digests, names without spaces and commands to copy stay in one piece
    for line in rendered("table", width=width).splitlines():
        assert len(line) <= width or " " not in line.strip() or line.startswith(("  keyassay ", "  fleet/")), line


def test_nothing_hostile_reaches_the_terminal(rendered):
    text = rendered("table", [weak_result(HOSTILE, f"{HOSTILE}\r\x9b2J\x00\u200b\u2066.pem")])
    assert all(character.isprintable() for character in text.replace("\n", ""))
    assert "\\x1b[2J" in text
    assert "\\u202e" in text
    assert "\\u200b" in text


def test_long_runs_are_counted_instead_of_listed(rendered):
    many = [weak_result("device-17", f"fleet/{number}.pem") for number in range(210)]
    text = rendered("table", many)
    assert "and 10 more items with findings, by check:\n         10  rsa-near-primes" in text
    assert text.count("CRITICAL  rsa-near-primes") == 200


def test_secrets_appear_only_if_asked_for(rendered):
    factor = f"{primes()[0]:x}"
    assert factor not in rendered("table")
    assert factor in rendered("table", reveal=True).replace("\n              ", "")

import csv
import io
import json

from hypothesis import given
from hypothesis import strategies as st

from keyassay.output.csv_rows import COLUMNS
from keyassay.output.escaping import csv_cell
from keyassay.output.gate import Gate
from sample_run import HOSTILE, TODAY, weak_result


def rows(text):
    return list(csv.DictReader(io.StringIO(text, newline="")))


def test_a_row_per_finding_and_one_for_each_item_without_any(rendered):
    found = rows(rendered("csv"))
    assert [(one["source"], one["index"], one["check"]) for one in found if "\\x1b" not in one["source"]] == [
        ("fleet/a.pem", "0", "rsa-near-primes"),
        ("fleet/a.pem", "1", ""),
        ("fleet/c.pem", "0", "rsa-short"),
        ("fleet/b.pem", "1", ""),
        ("fleet/bad.pem", "2", ""),
        ("fleet/n.pem", "0", ""),
    ]
    assert len(found) == 9
    assert all(None not in one and list(one) == list(COLUMNS) for one in found)


def test_a_row_holds_what_the_line_of_jsonl_holds(rendered):
    line = json.loads(rendered("jsonl").splitlines()[0])
    row = rows(rendered("csv"))[0]
    for name in ("source", "kind", "subject", "issuer", "serial", "sha256", "spki_sha256"):
        assert row[name] == line[name]
    for name in ("class", "severity", "confidence", "check", "reason_code", "message"):
        assert row[name] == line["findings"][0][name]
    assert json.loads(row["evidence"]) == line["findings"][0]["evidence"]
    assert row["key"] == "RSA-1024"


def test_every_row_is_one_line_and_no_cell_a_formula(rendered):
    text = rendered("csv", [weak_result(HOSTILE, '=HYPERLINK("http://e.xx")\n\r\x1b[2J'), weak_result("x", "@SUM(1)")])
    assert text.count("\n") == text.count("\r") == 3
    for row in rows(text):
        for cell in row.values():
            assert cell[:1] not in set("=+-@\t\r\n|%"), cell


@given(st.text())
def test_no_cell_begins_like_a_formula(text):
    shown = csv_cell(text)
    assert shown.isprintable()
    stripped = shown.lstrip(' "\u3000')
    assert not stripped.startswith(tuple("=+-@|%＝＋－＠"))


def test_an_accepted_finding_says_until_when(rendered, accepting):
    row = rows(rendered("csv", gate=Gate(baseline=accepting("rsa-near-primes"), today=TODAY)))[0]
    assert row["accepted"] == "until 2026-12-31: a test device"

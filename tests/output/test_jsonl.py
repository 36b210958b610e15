import json
from pathlib import Path

import contract
from keyassay.output.gate import Gate
from sample_run import HOSTILE, TODAY, primes, results, weak_result

DOCUMENTATION = Path(__file__).parents[2] / "docs" / "json-contract.md"


def lines(text):
    return [json.loads(line) for line in text.splitlines()]


def test_every_item_is_one_line_in_input_order(rendered):
    found = results()
    shown = lines(rendered("jsonl"))
    assert [(one["source"], one["index"]) for one in shown] == [(one.item.source, one.item.index) for one in found]


def test_lines_keep_the_contract(rendered):
    for line in lines(rendered("jsonl")):
        assert contract.problems("item", line) == []


def test_a_line_is_what_the_contract_shows(rendered):
    line = lines(rendered("jsonl"))[0]
    assert list(line) == [
        "source", "index", "kind", "subject", "issuer", "serial", "sha256", "spki_sha256", "key", "findings",
        "assessed", "error", "profile", "catalogue", "not_run",
    ]  # fmt: skip
    assert line["source"] == "fleet/a.pem"
    assert line["kind"] == "certificate"
    assert line["subject"] == "CN=device-17"
    assert line["issuer"] == "CN=Sample CA"
    assert line["serial"] == "0a1b"
    assert line["key"] == {"type": "rsa", "bits": 1024, "exponent": 65537}
    assert line["profile"] == "standard"
    assert line["findings"] == [
        {
            "check": "rsa-near-primes",
            "class": "broken",
            "severity": "CRITICAL",
            "confidence": "proven",
            "reason_code": "CERTIFICATE_KEY_VULNERABILITY_RSA_NEAR_PRIMES",
            "message": "The primes of device-17 are close.",
            "evidence": {"proof": "factor", "factor_bits": 512, "rounds": 1, "verified": True},
        }
    ]


def test_numbers_that_doubles_round_are_hex_strings(rendered):
    evidence = lines(rendered("jsonl"))[3]["findings"][0]["evidence"]
    assert evidence["large"] == "1000000000000000"
    assert evidence["octets"] == "00ff"
    assert evidence["nested"] == {"share": 0.5, "none": None}


def test_a_clean_item_has_every_field_and_no_finding(rendered):
    line = lines(rendered("jsonl"))[1]
    assert line["findings"] == []
    assert line["assessed"] is True
    assert line["error"] is None
    assert line["key"] == {"type": "ec", "bits": 256, "curve": "P-256"}


def test_items_not_assessed_and_unreadable_ones_say_why(rendered):
    shown = lines(rendered("jsonl"))
    assert (shown[4]["assessed"], shown[4]["error"]) == (False, "keys of type ML-DSA-44 are not assessed")
    assert (shown[5]["kind"], shown[5]["assessed"]) == ("unreadable", False)
    assert shown[5]["error"] == "base64 ends in the middle of a group (at byte 77)"
    assert shown[5]["sha256"] is shown[5]["key"] is shown[5]["subject"] is None
    assert shown[6]["not_run"] == [{"check": "rsa-near-primes", "reason": "internal error: ValueError: x"}]
    assert shown[6]["notices"] == ["the strict parser refused a negative serial number"]


def test_foreign_text_comes_back_as_it_was_and_the_lines_are_ascii(rendered):
    text = rendered("jsonl", [weak_result(HOSTILE, "a\udcff\u202e\n.pem")])
    assert text.isascii()
    assert text.count("\n") == 1
    assert json.loads(text)["source"] == "a\udcff\u202e\n.pem"


def test_revealed_numbers_keep_the_contract(rendered):
    line = lines(rendered("jsonl", reveal=True))[0]
    assert contract.problems("item", line) == []
    assert line["findings"][0]["evidence"]["factor"] == f"{primes()[0]:x}"


def test_an_accepted_finding_says_so(rendered, accepting):
    line = lines(rendered("jsonl", gate=Gate(baseline=accepting("rsa-near-primes"), today=TODAY)))[0]
    assert contract.problems("item", line) == []
    assert line["findings"][0]["accepted"] == {"reason": "a test device", "expires": "2026-12-31"}


def test_the_contract_is_not_satisfied_by_just_anything(rendered):
    line = lines(rendered("jsonl"))[0]
    for change in (
        {"index": -1},
        {"serial": "0xA1"},
        {"sha256": "AB" * 32},
        {"kind": "key"},
        {"assessed": False},
        {"key": {"type": "rsa", "bits": 2048}},
        {"key": {"type": "rsa", "bits": 2048, "exponent": 2**60}},
        {"key": {"type": "ec", "bits": 256}},
        {"findings": [{**line["findings"][0], "confidence": "likely"}]},
        {"findings": [{**line["findings"][0], "evidence": {"factor": 2**70, "verified": True}}]},
        {"surprise": 1},
    ):
        assert contract.problems("item", {**line, **change}), change
    for name in line:
        assert contract.problems("item", {one: value for one, value in line.items() if one != name}), name


def test_every_field_of_the_schemas_is_documented():
    text = DOCUMENTATION.read_text()
    for name in contract.property_names(contract.schema("item")) | contract.property_names(contract.schema("document")):
        assert f"`{name}`" in text, name


def test_the_documentation_names_no_field_that_is_not_there():
    known = contract.property_names(contract.schema("item")) | contract.property_names(contract.schema("document"))
    rows = [line for line in DOCUMENTATION.read_text().splitlines() if line.startswith("| `")]
    kinds = {"rsa", "ec", "dsa", "ed25519", "ed448", "x25519", "x448"}
    named = {word.strip("` ") for row in rows for word in row.split("|")[1].split(",")}
    assert named - kinds <= known

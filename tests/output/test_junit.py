from xml.etree import ElementTree

from keyassay.findings import Classification
from keyassay.output.gate import Gate
from sample_run import HOSTILE, TODAY, results, weak_result


def suite_of(text):
    root = ElementTree.fromstring(text)
    assert root.tag == "testsuites"
    (suite,) = root
    return root, suite


def test_every_item_is_a_test_case_and_the_counts_agree(rendered):
    root, suite = suite_of(rendered("junit"))
    cases = suite.findall("testcase")
    assert len(cases) == len(results()) == int(suite.get("tests")) == int(root.get("tests"))
    for name, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        assert int(suite.get(name)) == len(suite.findall(f"testcase/{tag}"))
    assert (suite.get("failures"), suite.get("errors"), suite.get("skipped")) == ("2", "1", "1")


def test_the_document_has_the_shape_that_build_servers_read(rendered):
    _, suite = suite_of(rendered("junit"))
    assert {one.tag for one in suite} == {"properties", "testcase"}
    for case in suite.findall("testcase"):
        assert set(case.attrib) == {"classname", "name"}
        assert len(case) <= 1
        for child in case:
            assert child.tag in {"failure", "error", "skipped", "system-out"}
            assert set(child.attrib) <= {"type", "message"}
    assert float(suite.get("time")) == 1.25


def test_what_fails_the_run_is_a_failure_and_the_rest_is_output(rendered, accepting):
    _, suite = suite_of(rendered("junit"))
    weak = next(one for one in suite.findall("testcase") if one.get("classname") == "fleet/c.pem")
    assert weak[0].tag == "system-out"
    _, suite = suite_of(rendered("junit", gate=Gate(Classification.WEAK, today=TODAY)))
    weak = next(one for one in suite.findall("testcase") if one.get("classname") == "fleet/c.pem")
    assert (weak[0].tag, weak[0].get("type")) == ("failure", "rsa-short")
    _, suite = suite_of(rendered("junit", gate=Gate(baseline=accepting("rsa-near-primes"), today=TODAY)))
    assert suite.get("failures") == "0"
    assert "[accepted until 2026-12-31: a test device]" in suite.find("testcase/system-out").text


def test_a_hostile_name_is_an_attribute_and_nothing_else(rendered):
    _, suite = suite_of(rendered("junit", [weak_result(HOSTILE, "]]>\x00\x1b&amp;\ufffe")]))
    case = suite.find("testcase")
    assert case.get("classname") == "]]>\\x00\\x1b&amp;\\ufffe"
    assert "<script" in case.get("name") or "\\<script" in case.get("name")
    assert len(list(suite.iter("script"))) == 0
